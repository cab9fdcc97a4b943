"""Points of the risk-coverage curve: the risk at a coverage, the coverage at a risk, and E-AURC.

Rows are answered by falling confidence. The risk is the share of mistakes among the answered.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.special import digamma, ndtri, polygamma

from credibly.records import UNKNOWN
from credibly.uncertainty.exact import chance_of_so_few
from credibly.uncertainty.scoring.influence import risk_coverage_influence
from credibly.uncertainty.scoring.ranks import LINEAR_FROM
from credibly.uncertainty.scoring.resampling import Statistic
from credibly.uncertainty.systems import Answer

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
Estimate = tuple[float, float, float]

COVERAGES = (0.8, 0.9)
RISKS = (0.01, 0.05)

PLACES = 4096
"""Of very many rows the curve is drawn through so many thresholds, not all."""


def operating_points(answer: Answer) -> Statistic | None:
    """Prepare the risk at some coverages and the coverage at some risks.

    `risk_at_80` is the risk when the most confident 80 % are answered, rows of equal confidence in every
    order alike. `coverage_at_5` is the largest share of the rows that a threshold of confidence answers
    with at most 5 % mistakes among them; 0 where none does.
    """
    rows = np.flatnonzero(answer.labels != UNKNOWN)
    if not len(rows):
        return None
    place, K = _places(answer.confidence[rows])
    wrong = (answer.predicted != answer.labels)[rows]
    shape = (K, len(answer.ids))
    every = csr_matrix((np.ones(len(rows)), (place, rows)), shape=shape)
    mistakes = csr_matrix((np.ones(int(wrong.sum())), (place[wrong], rows[wrong])), shape=shape)

    def statistic(counts: FloatArray) -> dict[str, FloatArray]:
        taken, errors = (np.cumsum(part @ counts, axis=0) for part in (every, mistakes))
        with np.errstate(divide="ignore", invalid="ignore"):
            risks = {f"risk_at_{100 * c:.0f}": _risk_at(c, taken, errors) for c in COVERAGES}
            return risks | {f"coverage_at_{100 * r:.0f}": _coverage_at(r, taken, errors) for r in RISKS}

    return statistic


def coverage_estimate(risk: float) -> Callable[[Answer, float], Estimate]:
    """Return the function that gives the coverage at a risk, and the ends of its interval.

    The largest coverage in a sample is one that luck has helped to, and the bootstrap does it again. So
    the ends are the largest coverages at which so many mistakes show, by the exact binomial test at the
    confidence's tails, that the risk is lower, and at which they do not show that it is higher.
    """

    def estimate(answer: Answer, confidence: float) -> Estimate:
        place, wrong, rows = _curve(answer)
        taken = np.cumsum(np.bincount(place))
        errors = np.cumsum(np.bincount(place, wrong))
        tail = (1 - confidence) / 2
        lower = chance_of_so_few(errors, taken, risk) <= tail
        higher = (errors > 0) & (1 - chance_of_so_few(np.maximum(errors - 1, 0), taken, risk) <= tail)
        held = (errors <= risk * taken, lower, ~higher)
        value, low, high = (float(np.max(taken, where=where, initial=0)) / len(rows) for where in held)
        return value, low, high

    return estimate


def _risk_at(coverage: float, taken: FloatArray, errors: FloatArray) -> FloatArray:
    """Return the expected share of mistakes among the first ceil(coverage N) rows, (R,)."""
    answered = answered_at(coverage, taken[-1])
    end = np.minimum((taken < answered).sum(axis=0), len(taken) - 1)
    across = np.arange(taken.shape[1])
    before = np.where(end > 0, taken[end - 1, across], 0.0), np.where(end > 0, errors[end - 1, across], 0.0)
    share = (answered - before[0]) / (taken[end, across] - before[0])
    return np.asarray((before[1] + share * (errors[end, across] - before[1])) / answered)


def answered_at(coverage: float, rows: FloatArray | float) -> FloatArray:
    """Return how many of so many rows a coverage answers: ceil(coverage N)."""
    return np.asarray(np.ceil(np.round(coverage * np.asarray(rows), 9)))


def _coverage_at(risk: float, taken: FloatArray, errors: FloatArray) -> FloatArray:
    """Return the largest coverage of a threshold at which the risk is no higher, (R,)."""
    held = np.where(errors <= risk * taken + 1e-9, taken, 0.0)
    return np.asarray(held.max(axis=0) / taken[-1])


def best_area(N: FloatArray, right: FloatArray) -> FloatArray:
    """Return the AURC with all mistakes last: the mean over k = 1..N of max(0, k - right) / k.

    >>> best_area(np.array(4.0), np.array(2.0)).round(4).item()  # (0 + 0 + 1/3 + 2/4) / 4
    0.2083
    """
    rise = digamma(N + 1) - digamma(right + 1)
    return np.asarray((N - right - right * rise) / N)


def excess_influence(answer: Answer) -> FloatArray:
    """Return the derivative of the E-AURC by each labelled row's weight, (N,), where all weights are one."""
    place, wrong, rows = _curve(answer)
    _, influence = risk_coverage_influence(place, wrong)
    N, right = float(len(rows)), float((~wrong).sum())
    rise = digamma(N + 1) - digamma(right + 1)
    by_rows = (1 - right * polygamma(1, N + 1)) / N - float(best_area(np.array(N), np.array(right))) / N
    by_right = (-1 - rise + right * polygamma(1, right + 1)) / N
    return np.asarray(influence - by_rows - by_right * ~wrong)


def excess_estimate(answer: Answer, confidence: float) -> Estimate:
    """Return the E-AURC, and the ends of its interval: normal in its logarithm, by each row's influence.

    Of one that is zero the upper end is that of the AURC of rows that are all right (`score_intervals`).
    In a resample the copies of a row have no order among themselves, which raises its E-AURC and not
    that of other rows: percentiles lie too high.
    """
    place, wrong, rows = _curve(answer)
    N = np.array(float(len(rows)))
    area, _ = risk_coverage_influence(place, wrong)
    value = area - float(best_area(N, N - wrong.sum()))
    reach = float(ndtri((1 + confidence) / 2))
    if value <= 0:
        return value, value, reach**2 / (len(rows) + reach**2)
    half = reach * float(np.sqrt((excess_influence(answer) ** 2).sum()))
    return value, value * float(np.exp(-half / value)), value * float(np.exp(half / value))


def _curve(answer: Answer) -> tuple[NDArray[np.int64], BoolArray, NDArray[np.intp]]:
    """Return the labelled rows: their places by falling confidence, which are wrong, and their numbers."""
    rows = np.flatnonzero(answer.labels != UNKNOWN)
    place = np.unique(-answer.confidence[rows], return_inverse=True)[1].astype(np.int64)
    return place, (answer.predicted != answer.labels)[rows], rows


def _places(confidence: FloatArray) -> tuple[NDArray[np.int64], int]:
    """Return each row's place by falling confidence, ties in one, and how many places there are."""
    values = -confidence
    if len(values) < LINEAR_FROM:
        distinct, place = np.unique(values, return_inverse=True)
        return place.astype(np.int64), len(distinct)
    edges = np.unique(np.quantile(values, np.arange(1, PLACES + 1) / PLACES, method="inverted_cdf"))
    return np.searchsorted(edges, values, side="left").astype(np.int64), len(edges)
