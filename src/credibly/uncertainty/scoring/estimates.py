"""Intervals by formula, for figures in which chance has a share that the percentile bootstrap doubles."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from credibly.records import UNKNOWN, Interval
from credibly.uncertainty.scoring.binning import Bins, debiased_error
from credibly.uncertainty.scoring.brier import PARTS, brier_estimate, uncertainty_estimate
from credibly.uncertainty.scoring.calibration_interval import answer_bins, error_interval
from credibly.uncertainty.scoring.clusters import units_of, widening
from credibly.uncertainty.scoring.other_bins import class_wise_estimate, equal_mass_estimate
from credibly.uncertainty.scoring.risk import RISKS, coverage_estimate, excess_estimate
from credibly.uncertainty.scoring.smooth import smooth_estimate
from credibly.uncertainty.systems import Answer

FloatArray = NDArray[np.float64]

Estimator = Callable[[Answer, float], tuple[float, float, float]]
"""Of an answer and a confidence: the figure without chance's share, and the ends of its interval."""


def error_estimate(answer: Answer, confidence: float) -> tuple[float, float, float]:
    """Return the debiased calibration error, and the ends of its `error_interval`.

    Where rows belong together they count as so many fewer as the gaps' design effect says.
    """
    bins, effect = answer_bins(answer), gap_widening(answer) ** 2
    bins = Bins(bins.rows / effect, bins.confidence / effect, bins.correct / effect)
    return float(debiased_error(bins)[0]), *error_interval(bins, confidence)


def gap_widening(answer: Answer) -> float:
    """Return how much wider intervals are that allow for groups, by confidence - correct; 1 or more."""
    known = answer.labels != UNKNOWN
    units = None if answer.groups is None else units_of(answer.groups[known])
    return widening((answer.confidence - (answer.predicted == answer.labels))[known], units)


def widened(estimator: Estimator) -> Estimator:
    """Return an estimator whose ends lie as much further off, within [0, 1], as groups demand."""

    def estimate(answer: Answer, confidence: float) -> tuple[float, float, float]:
        (value, low, high), by = estimator(answer, confidence), gap_widening(answer)
        if by == 1:
            return value, low, high
        floor, top = 0.0 if low >= 0 else -np.inf, 1.0 if high <= 1 else np.inf
        further = max(value - by * (value - low), floor), min(value + by * (high - value), top)
        return value, min(low, further[0]), max(high, further[1])

    return estimate


CORRECTED: Mapping[str, Estimator] = {
    "ece": error_estimate,
    "ece_debiased": error_estimate,
    "ece_equal_mass": widened(equal_mass_estimate),
    "ece_classwise": widened(class_wise_estimate),
    "smooth_ece": widened(smooth_estimate),
    **{part: widened(brier_estimate(part)) for part in PARTS},
    "brier_uncertainty": widened(uncertainty_estimate),
    "eaurc": widened(excess_estimate),
    **{f"coverage_at_{100 * risk:.0f}": widened(coverage_estimate(risk)) for risk in RISKS},
}
"""By metric. The population's figure is what they cover; a plain figure may lie above its interval."""


def mean_estimate(metric: str, answers: Sequence[Answer], confidence: float) -> tuple[float, float, float]:
    """Return a figure without chance's share and its interval's ends, each the mean over answers."""
    estimate, low, high = np.mean([CORRECTED[metric](one, confidence) for one in answers], axis=0)
    return float(estimate), float(low), float(high)


def corrected_interval(
    metric: str, answers: Sequence[Answer], figure: Interval, confidence: float
) -> Interval:
    """Return a figure with its interval by formula; of several answers at least as wide as their mean's."""
    if figure.value is None:
        return figure
    _, low, high = mean_estimate(metric, answers, confidence)
    return Interval(figure.value, low, high, figure.spread)


def resampled_as(metric: str) -> str:
    """Return the metric whose resamples say how far two systems' figures go together."""
    return "ece" if metric == "ece_debiased" else metric


def corrected_difference(
    difference: float,
    estimates: Sequence[tuple[float, float, float]],
    samples: tuple[FloatArray, FloatArray],
) -> Interval:
    """Return a difference of two systems' figures with an interval for the population's.

    The bootstrap is as biased for a difference as for one figure, unless both systems are equally well
    calibrated. So the two intervals by formula are joined: with estimates t, ends L and U and the
    correlation r of the two systems' plain figures over resamples,
    low = t1 - t2 - sqrt((t1 - L1)^2 + (U2 - t2)^2 - 2 r (t1 - L1)(U2 - t2)) and likewise high
    (Zou 2007, https://doi.org/10.1037/1082-989X.12.4.399). Systems that no resample tells apart differ
    by exactly nothing.

    Args:
        difference: of the figures as they stand.
        estimates: of both, by `mean_estimate`.
        samples: of both, (R,), of `resampled_as` on the same resamples.
    """
    if np.array_equal(samples[0], samples[1], equal_nan=True):
        return Interval(difference, 0.0, 0.0)
    correlation = _correlation(*samples)
    # An estimate may lie beside its interval, by chance: a distance is then nothing.
    (t1, low1, high1), (t2, low2, high2) = ((t, min(low, t), max(high, t)) for t, low, high in estimates)
    return Interval(
        difference,
        t1 - t2 - _joined(t1 - low1, high2 - t2, correlation),
        t1 - t2 + _joined(high1 - t1, t2 - low2, correlation),
    )


def _correlation(first: FloatArray, second: FloatArray) -> float:
    """Return Pearson's correlation over the resamples defined for both, 0 where either is constant."""
    defined = np.isfinite(first) & np.isfinite(second)
    a, b = first[defined], second[defined]
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum()) / size if size > 0 else 0.0


def _joined(first: float, second: float, correlation: float) -> float:
    return float(np.sqrt(max(first**2 + second**2 - 2 * correlation * first * second, 0.0)))
