"""Every metric, as a function of how often each row is taken (`resampling`), and the table of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from credibly.errors import InputError, did_you_mean
from credibly.uncertainty.scoring.brier import brier_parts
from credibly.uncertainty.scoring.families import (
    calibration,
    classes,
    decisions,
    means,
    mistakes,
    raters,
    selective,
)
from credibly.uncertainty.scoring.other_bins import class_wise, equal_mass
from credibly.uncertainty.scoring.resampling import Family
from credibly.uncertainty.scoring.risk import operating_points
from credibly.uncertainty.scoring.smooth import smooth
from credibly.uncertainty.systems import Answer


@dataclass(frozen=True)
class Metric:
    """One figure of the tables.

    Args:
        name: its key in report.json.
        higher_is_better: None where neither is.
        description: in one line.
        reference: where it is defined.
        family: prepares the statistic that gives it, often with others; None for a figure that
            compares two sets of rows (`intervals.score_shift`).
    """

    name: str
    higher_is_better: bool | None
    description: str
    reference: str
    family: Family | None

    def __call__(self, answer: Answer) -> float | None:
        """Return the figure of an answer; None where it is undefined.

        Raises:
            InputError: the metric compares two sets of rows.
        """
        return values(answer, [self.name])[self.name]


def values(answer: Answer, metrics: Iterable[str] | None = None) -> dict[str, float | None]:
    """Return figures of an answer by name, all that are of one set of rows if no names are given.

    Raises:
        InputError: an unknown name, or one that compares two sets of rows.
    """
    names = checked_metrics(metrics)
    ones = np.ones((len(answer.ids), 1))
    found: dict[str, float | None] = dict.fromkeys(names)
    for family in families(names):
        statistic = family(answer)
        for name, figure in (statistic(ones) if statistic else {}).items():
            if name in found and np.isfinite(figure[0]):
                found[name] = float(figure[0])
    return found


def checked_metrics(metrics: Iterable[str] | None) -> tuple[str, ...]:
    """Return the names of known metrics of one set of rows: those given, or all.

    Raises:
        InputError: an unknown name, or one that compares two sets of rows.
    """
    known = [name for name, metric in METRICS.items() if metric.family]
    for name in () if metrics is None else (metrics := tuple(metrics)):
        if name not in known:
            advice = " (it compares two sets of rows: score_shift gives it)" if name in METRICS else ""
            raise InputError(f"unknown metric '{name}'{did_you_mean(name, known)}{advice}")
    return tuple(known if metrics is None else metrics)


def families(names: Sequence[str]) -> list[Family]:
    """Return the families that give these metrics, each once."""
    return list(dict.fromkeys(family for name in names if (family := METRICS[name].family)))


SCIKIT_LEARN = "https://scikit-learn.org/stable/modules/model_evaluation.html"
BRIER = "Brier 1950, https://doi.org/10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2"
GUO = "Guo et al. 2017, https://arxiv.org/abs/1706.04599"
NIXON = "Nixon et al. 2019, https://arxiv.org/abs/1904.01685"
KULL = "Kull et al. 2019, https://arxiv.org/abs/1910.12656"
BLASIOK = "Błasiok & Nakkiran 2023, https://arxiv.org/abs/2309.12236"
MURPHY = "Murphy 1973, https://doi.org/10.1175/1520-0450(1973)012<0595:ANVPOT>2.0.CO;2"
EL_YANIV = "El-Yaniv & Wiener 2010, https://jmlr.org/papers/v11/el-yaniv10a.html"
KUMAR = "after Kumar et al. 2019, https://arxiv.org/abs/1909.10155"
GEIFMAN = "Geifman & El-Yaniv 2017, https://arxiv.org/abs/1705.08500"
EAURC = "Geifman et al. 2019, https://arxiv.org/abs/1805.08206"
TRAUB = "Traub et al. 2024, https://arxiv.org/abs/2407.01032"
HENDRYCKS = "Hendrycks & Gimpel 2017, https://arxiv.org/abs/1610.02136"
DEPEWEG = "Depeweg et al. 2018, https://arxiv.org/abs/1710.07283"
BAAN = "Baan et al. 2022, https://arxiv.org/abs/2210.16133"

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            "accuracy", True, "share of rows whose most probable class is the label", SCIKIT_LEARN, decisions
        ),
        Metric("f1_macro", True, "F1, mean over classes", SCIKIT_LEARN, decisions),
        Metric("precision_macro", True, "precision, mean over classes", SCIKIT_LEARN, decisions),
        Metric("recall_macro", True, "recall, mean over classes", SCIKIT_LEARN, decisions),
        Metric("nll", False, "mean -ln p(label), nats", SCIKIT_LEARN, means),
        Metric("brier", False, "mean squared error of the probabilities, summed over classes", BRIER, means),
        Metric("ece", False, "plain calibration error, top label, 15 bins", GUO, calibration),
        Metric("ece_debiased", False, "calibration error without chance's share", KUMAR, calibration),
        Metric(
            "ece_equal_mass",
            False,
            "plain calibration error, 15 bins of as many rows each",
            NIXON,
            equal_mass,
        ),
        Metric(
            "ece_classwise", False, "plain calibration error of every class's probability", KULL, class_wise
        ),
        Metric("smooth_ece", False, "calibration error without bins, rows smoothed", BLASIOK, smooth),
        Metric(
            "brier_reliability",
            False,
            "Brier's part: shares off the probabilities, in bins",
            MURPHY,
            brier_parts,
        ),
        Metric(
            "brier_resolution",
            True,
            "Brier's part: the bins' shares off the overall ones",
            MURPHY,
            brier_parts,
        ),
        Metric("brier_uncertainty", None, "Brier of the overall shares for every row", MURPHY, decisions),
        Metric(
            "brier_within_bins", None, "Brier's part that bins hide, so that all add up", MURPHY, brier_parts
        ),
        Metric(
            "aurc", False, "error rate among the most confident rows, mean over coverages", GEIFMAN, selective
        ),
        Metric("eaurc", False, "AURC above that of the same answers in the best order", EAURC, selective),
        Metric("augrc", False, "share of rows answered wrongly, mean over coverages", TRAUB, selective),
        Metric(
            "auroc",
            True,
            "chance that a row of the class scores above one that is not",
            SCIKIT_LEARN,
            classes,
        ),
        Metric("average_precision", True, "precision averaged over recall", SCIKIT_LEARN, classes),
        *(
            Metric(
                f"risk_at_{name}",
                False,
                f"error rate of the most confident {name} %",
                EL_YANIV,
                operating_points,
            )
            for name in (80, 90)
        ),
        *(
            Metric(
                f"coverage_at_{name}",
                True,
                f"share answered with at most {name} % mistakes",
                EL_YANIV,
                operating_points,
            )
            for name in (1, 5)
        ),
        Metric("error_auroc", True, "total uncertainty's AUROC for finding mistakes", HENDRYCKS, mistakes),
        Metric("mean_total", None, "mean total uncertainty, nats", DEPEWEG, means),
        Metric("mean_aleatoric", None, "mean aleatoric uncertainty, nats", DEPEWEG, means),
        Metric("mean_epistemic", None, "mean epistemic uncertainty, nats", DEPEWEG, means),
        Metric("mean_variance", None, "mean variance of the predicted class's probability", DEPEWEG, means),
        Metric("nll_raters", False, "cross-entropy of the raters' shares, nats", BAAN, means),
        Metric("kl_raters", False, "KL divergence from the raters' shares, nats", BAAN, means),
        Metric(
            "spearman_raters", True, "rank correlation of aleatoric with the raters' entropy", BAAN, raters
        ),
        Metric("ood_auroc", True, "total uncertainty's AUROC for telling shifted rows", HENDRYCKS, None),
        Metric("ood_auroc_epistemic", True, "epistemic uncertainty's AUROC for the same", HENDRYCKS, None),
    )
}
"""Every metric by its name in report.json, in the order of the tables."""
