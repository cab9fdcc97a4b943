"""What the shipped system can promise by its calibration split, and what came of it on the test texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from credibly.errors import InputError
from credibly.records import UNKNOWN, IntArray, Interval
from credibly.report.figures.systems import Answers
from credibly.report.figures.types import Json
from credibly.uncertainty.calibration.calibrators import Calibrator
from credibly.uncertainty.promises.conformal import PredictionSets
from credibly.uncertainty.promises.independent import one_of_each
from credibly.uncertainty.promises.selective import Abstention
from credibly.uncertainty.promises.selective_figures import selective_table
from credibly.uncertainty.promises.set_figures import set_table
from credibly.uncertainty.systems import Answer, bare_name, chosen_form, keeps_labels

RISKS = (0.01, 0.02, 0.05, 0.1)
COVERAGES = (0.8, 0.9, 0.95)
DRAWN_COVERAGES = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.975, 0.99)
"""Those of the plot of set sizes."""

FloatArray = NDArray[np.float64]


def promises(
    shipped: str,
    on_calibration: Answers,
    on_test: Answers,
    calibrators: Mapping[str, Calibrator],
    confidence: float,
) -> Json:
    """Return abstention at some risks and prediction sets at some coverages; None where a split is missing.

    Both go by the system before its calibrator, which the calibration rows were used for; where that
    moves labels, the system has its temperature instead. Of rows that belong together one counts. What
    there are too few rows to promise is left out.

    Args:
        shipped: the system.
        on_calibration: every system's answers on the calibration split; empty where there is none.
        on_test: likewise on the test split.
        calibrators: by system.
        confidence: of the intervals.
    """
    if shipped not in on_calibration:
        return {"abstention": [], "sets": []}
    shipped = _promising(shipped, on_test, calibrators)
    calibration, test = (_rows(shipped, answers) for answers in (on_calibration, on_test))
    if not len(test.labels):
        return {"abstention": [], "sets": []}
    return {
        "system": shipped,
        "by_groups": any(_together(answers[shipped][0]) for answers in (on_calibration, on_test)),
        "abstention": _abstention(calibration, test, confidence),
        "sets": _sets(calibration, test, confidence, COVERAGES),
    }


def set_sizes(
    shipped: str,
    on_calibration: Answers,
    on_test: Answers,
    calibrators: Mapping[str, Calibrator],
    confidence: float,
) -> list[Json]:
    """Return what `promises` does of sets at three coverages for many, by rising coverage."""
    if shipped not in on_calibration:
        return []
    shipped = _promising(shipped, on_test, calibrators)
    calibration, test = (_rows(shipped, answers) for answers in (on_calibration, on_test))
    return _sets(calibration, test, confidence, DRAWN_COVERAGES) if len(test.labels) else []


@dataclass(frozen=True)
class Rows:
    """A system on the rows of known label: what it is wrong on, and the rest before its calibrator.

    Args:
        uncertainty: total, in nats, (N,).
        wrong: bool, (N,).
        probs: (N, C), each row normalised.
        labels: int64, (N,).
        class_names: C names.
    """

    uncertainty: FloatArray
    wrong: NDArray[np.bool_]
    probs: FloatArray
    labels: IntArray
    class_names: tuple[str, ...]


def _promising(shipped: str, on_test: Answers, calibrators: Mapping[str, Calibrator]) -> str:
    """Return the form of a system that labels as it does before its calibrator."""
    if keeps_labels(shipped, calibrators):
        return shipped
    return chosen_form(bare_name(shipped), on_test) or shipped


def _rows(shipped: str, answers: Answers) -> Rows:
    """Return the rows of known label, and of those that belong together one."""
    shown, bare = answers[shipped][0], answers[bare_name(shipped)][0]
    known = np.flatnonzero(shown.labels != UNKNOWN)
    groups = None if shown.groups is None else shown.groups[known]
    kept = known[one_of_each(groups, len(known))]
    wrong = (shown.predicted != shown.labels)[kept]
    return Rows(bare.uncertainty.total[kept], wrong, bare.probs[kept], bare.labels[kept], bare.class_names)


def _together(answer: Answer) -> bool:
    """Return whether some rows belong together."""
    return answer.groups is not None and len(np.unique(answer.groups)) < len(answer.groups)


def _abstention(calibration: Rows, test: Rows, confidence: float) -> list[Json]:
    found = []
    for risk in RISKS:
        with suppress(InputError):  # too few rows for it
            found.append(Abstention.at_risk(calibration.uncertainty, calibration.wrong, risk))
    return [
        {
            "risk_promised": figures.abstention.level,
            "threshold": figures.abstention.threshold,
            "coverage": figures.coverage.as_json(),
            "risk": figures.risk.as_json(),
        }
        for figures in selective_table(found, test.uncertainty, test.wrong, confidence)
    ]


def _sets(calibration: Rows, test: Rows, confidence: float, coverages: Sequence[float]) -> list[Json]:
    found = []
    for coverage in coverages:
        with suppress(InputError):  # too few rows for it
            found.append(PredictionSets.fit(calibration.probs, calibration.labels, coverage))
    tables = [set_table(own, test.probs, test.labels, confidence=confidence).overall for own in found]
    return [
        {
            "coverage_promised": own.coverage,
            "coverage": figures.coverage.as_json(),
            "expected": (figures.expected or Interval(None)).as_json(),
            "mean_size": figures.mean_size.as_json(),
            "singletons": figures.singletons.as_json(),
            "empty": figures.empty.as_json(),
        }
        for own, figures in zip(found, tables, strict=True)
    ]
