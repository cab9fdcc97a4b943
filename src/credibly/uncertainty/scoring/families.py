"""What metrics are made of: each prepares the figures that one look at an answer gives (`resampling`)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from credibly.records import UNKNOWN
from credibly.uncertainty.numerics import entropy, log_of
from credibly.uncertainty.scoring.binning import (
    bin_matrix,
    debiased_error,
    over_all_rows,
    plain_error,
    summed,
)
from credibly.uncertainty.scoring.ranks import area_under_risk_coverage, area_under_roc, ranking, spearman
from credibly.uncertainty.scoring.resampling import Statistic
from credibly.uncertainty.scoring.risk import best_area
from credibly.uncertainty.systems import Answer

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


def means(answer: Answer) -> Statistic:
    """Prepare the metrics that are means of one number a row: losses and uncertainties.

    NLL is -ln p(label), Brier's score the sum over classes of (p - one-hot)^2, in [0, 2]; `nll_raters`
    the cross-entropy of the raters' shares against p, `kl_raters` what of it is above the shares' own
    entropy. Probabilities below 1e-12 are scored as that.
    """
    known = answer.labels != UNKNOWN
    one_hot = np.eye(answer.probs.shape[1])[answer.labels]
    log_probs = log_of(answer.probs)
    everywhere = np.ones(len(known), dtype=bool)
    columns: dict[str, tuple[FloatArray, BoolArray]] = {
        "nll": (-(one_hot * log_probs).sum(axis=1), known),
        "brier": (((answer.probs - one_hot) ** 2).sum(axis=1), known),
        "mean_total": (answer.uncertainty.total, everywhere),
        "mean_aleatoric": (answer.uncertainty.aleatoric, everywhere),
        "mean_epistemic": (answer.uncertainty.epistemic, everywhere),
        "mean_variance": (answer.uncertainty.variance, everywhere),
    }
    if answer.label_probs is not None:
        surprise = -(answer.label_probs * log_probs).sum(axis=1)
        columns["nll_raters"] = (surprise, everywhere)
        columns["kl_raters"] = (surprise - entropy(answer.label_probs), everywhere)
    # A sparse product: threaded BLAS waits longer for its threads than so thin a one takes.
    masks = np.stack([rows for _, rows in columns.values()]).astype(np.float64)
    numbers = csr_matrix(np.stack([column for column, _ in columns.values()]) * masks)
    weights = csr_matrix(np.stack([known, everywhere]).astype(np.float64))
    weight_of = [0 if rows is known else 1 for _, rows in columns.values()]

    def statistic(counts: FloatArray) -> dict[str, FloatArray]:
        with np.errstate(divide="ignore", invalid="ignore"):
            averages = (numbers @ counts) / (weights @ counts)[weight_of]
        return dict(zip(columns, averages, strict=True))

    return statistic


def confusion(answer: Answer) -> Callable[[FloatArray], tuple[FloatArray, FloatArray, FloatArray]]:
    """Return the function of counts (N, R) that gives hits, predicted and actual rows a class, (C, R)."""
    C = answer.probs.shape[1]
    rows = np.flatnonzero(answer.labels != UNKNOWN)
    cells, cell_of = np.unique(answer.labels[rows] * C + answer.predicted[rows], return_inverse=True)
    labels, predicted = np.divmod(cells, C)
    by_cell = csr_matrix((np.ones(len(rows)), (cell_of, rows)), shape=(len(cells), len(answer.labels)))
    hit = np.flatnonzero(predicted == labels)
    every = np.arange(len(cells))
    places = np.concatenate([labels[hit], predicted + C, labels + 2 * C])
    by_class = csr_matrix((np.ones(len(places)), (places, np.r_[hit, every, every])), (3 * C, len(cells)))

    def sums(counts: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        total = np.asarray(by_class @ (by_cell @ counts))
        return total[:C], total[C : 2 * C], total[2 * C :]

    return sums


def decisions(answer: Answer) -> Statistic:
    """Prepare accuracy, the macro averages of precision, recall and F1, and the labels' own Brier score.

    Averaged over the classes that occur among labels or predictions, as scikit-learn does with
    zero_division=0: a class never predicted has precision 0, one without rows recall 0.
    """
    sums = confusion(answer)

    def statistic(counts: FloatArray) -> dict[str, FloatArray]:
        hits, predicted, actual = sums(counts)
        present = np.maximum((predicted + actual > 0).sum(axis=0), 1)
        precision, recall = hits / np.maximum(predicted, 1), hits / np.maximum(actual, 1)
        f1 = 2 * hits / np.maximum(predicted + actual, 1)
        rows = actual.sum(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            figures = {
                "accuracy": hits.sum(axis=0) / rows,
                "f1_macro": f1.sum(axis=0) / present,
                "precision_macro": precision.sum(axis=0) / present,
                "recall_macro": recall.sum(axis=0) / present,
                "brier_uncertainty": 1 - ((actual / rows) ** 2).sum(axis=0),
            }
        return {name: np.where(rows > 0, figure, np.nan) for name, figure in figures.items()}

    return statistic


def class_figures(answer: Answer) -> Statistic:
    """Prepare precision and recall a class, named (class, figure) as ``"CLASS/precision"``.

    NaN where a class is never predicted (precision) or has no rows (recall).
    """
    sums = confusion(answer)

    def statistic(counts: FloatArray) -> dict[str, FloatArray]:
        hits, predicted, actual = sums(counts)
        with np.errstate(divide="ignore", invalid="ignore"):
            precision, recall = hits / predicted, hits / actual
        figures: dict[str, FloatArray] = {}
        for index, name in enumerate(answer.class_names):
            figures[f"{name}/precision"], figures[f"{name}/recall"] = precision[index], recall[index]
        return figures

    return statistic


def calibration(answer: Answer) -> Statistic | None:
    """Prepare the plain and the debiased ECE: top label, 15 bins of equal width (`binning`)."""
    rows = np.flatnonzero(answer.labels != UNKNOWN)
    if not len(rows):
        return None
    matrix = calibration_matrix(answer)

    def statistic(counts: FloatArray) -> dict[str, FloatArray]:
        bins = summed(matrix, counts)
        empty = bins.rows.sum(axis=0) == 0
        plain, debiased = plain_error(bins), debiased_error(bins)
        return {"ece": np.where(empty, np.nan, plain), "ece_debiased": np.where(empty, np.nan, debiased)}

    return statistic


def calibration_matrix(answer: Answer) -> csr_matrix:
    """Return the `bin_matrix` of an answer over all its rows, those of unknown label left empty."""
    rows = np.flatnonzero(answer.labels != UNKNOWN)
    small = bin_matrix(answer.confidence[rows], (answer.predicted == answer.labels)[rows])
    return over_all_rows(small, rows, len(answer.labels))


def selective(answer: Answer) -> Statistic | None:
    """Prepare areas under the risk-coverage curve, by the probability of the predicted class.

    `eaurc` is the AURC above that of the same answers with all mistakes last. `augrc` counts mistakes among
    all rows instead of among the answered: the mean over k = 1..N of the mistakes among the k most
    confident, over N. That is (1 - A) E (N - E) + E (E + 1) / 2, over N^2, for E mistakes and the AUROC A of
    confidence for finding right answers; ties are halved.
    """
    rows = np.flatnonzero(answer.labels != UNKNOWN)
    if not len(rows):
        return None
    confidence, wrong = answer.confidence[rows], (answer.predicted != answer.labels)[rows]
    area = area_under_risk_coverage(confidence, wrong)
    ranked = area_under_roc(confidence, ~wrong) if _both(wrong) else None
    sums = csr_matrix(np.stack([np.ones(len(rows)), wrong]))

    def statistic(counts: FloatArray) -> dict[str, FloatArray]:
        taken = _taken(counts, rows)
        N, E = np.asarray(sums @ taken)
        auroc = np.nan_to_num(ranked(taken)) if ranked else np.zeros_like(N)
        with np.errstate(divide="ignore", invalid="ignore"):
            augrc = ((1 - auroc) * E * (N - E) + E * (E + 1) / 2) / N**2
            best = best_area(N, N - E)
        aurc = area(taken)
        return {"aurc": aurc, "eaurc": aurc - best, "augrc": augrc}

    return statistic


def mistakes(answer: Answer) -> Statistic | None:
    """Prepare the AUROC of total uncertainty for finding mistakes; None if all or none are."""
    rows = np.flatnonzero(answer.labels != UNKNOWN)
    wrong = (answer.predicted != answer.labels)[rows]
    if not _both(wrong):
        return None
    ranked = area_under_roc(answer.uncertainty.total[rows], wrong)
    return lambda counts: {"error_auroc": ranked(_taken(counts, rows))}


def classes(answer: Answer) -> Statistic | None:
    """Prepare AUROC and average precision of the class.

    Two classes: of the second one's probability. More: each class against the rest, averaged over the
    classes that some rows have and some have not; a resample that lacks one of those is left out.
    """
    rows = np.flatnonzero(answer.labels != UNKNOWN)
    labels, probs = answer.labels[rows], answer.probs[rows]
    C = probs.shape[1]
    chosen = [index for index in ([1] if C == 2 else range(C)) if _both(labels == index)]
    if not chosen:
        return None
    ranked = [ranking(probs[:, index], labels == index) for index in chosen]

    def statistic(counts: FloatArray) -> dict[str, FloatArray]:
        taken = _taken(counts, rows)
        auroc, average_precision = np.mean([weighted(taken) for weighted in ranked], axis=0)
        return {"auroc": auroc, "average_precision": average_precision}

    return statistic


def raters(answer: Answer) -> Statistic | None:
    """Prepare Spearman's correlation of aleatoric uncertainty with the entropy of the raters' shares.

    The raters' entropies are rounded to 12 digits: shares of (0.3, 0.7) and (0.7, 0.3) are a tie.
    """
    if answer.label_probs is None:
        return None
    correlation = spearman(answer.uncertainty.aleatoric, entropy(answer.label_probs).round(12))
    return lambda counts: {"spearman_raters": correlation(counts)}


def _taken(counts: FloatArray, rows: NDArray[np.intp]) -> FloatArray:
    return counts if len(rows) == len(counts) else counts[rows]


def _both(flags: BoolArray) -> bool:
    return bool(flags.any() and not flags.all())
