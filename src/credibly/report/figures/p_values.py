"""P-values of differences between systems: from their intervals, and the exact one of accuracies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, ndtr, ndtri

from credibly.records import UNKNOWN, Interval
from credibly.uncertainty.systems import Answer


def p_value(difference: Interval, confidence: float) -> float | None:
    """Return the two-sided p-value of a difference, from its interval; None where there is none.

    As if normal, with the standard error that the interval's side towards zero shows (Altman & Bland
    2011, https://doi.org/10.1136/bmj.d2304): below 1 - confidence exactly where the interval excludes zero.
    Shares of resamples could not tell p-values below 1 / resamples apart, which a table of many needs.

    >>> round(p_value(Interval(0.2, 0.0, 0.4), 0.95), 4)
    0.05
    """
    value, low, high = difference.value, difference.low, difference.high
    if value is None or low is None or high is None:
        return None
    reach = value - low if value > 0 else high - value
    reach = reach if reach > 0 else (high - low) / 2
    if value == 0 or reach == 0:
        return 1.0 if value == 0 or low <= 0 <= high else 0.0
    return float(2 * ndtr(-ndtri((1 + confidence) / 2) * abs(value) / reach))


def sign_test(first: Sequence[Answer], second: Sequence[Answer]) -> float | None:
    """Return the exact p-value of equal accuracies (McNemar 1947, https://doi.org/10.1007/BF02295996).

    By the rows that one alone answers rightly, of which either has half if the accuracies are equal. On a
    handful of such rows intervals are too narrow. None for several answers, whose mean has no such rows.
    """
    if len(first) > 1 or len(second) > 1:
        return None
    right = [_right(side[0]) for side in (first, second)]
    alone = [int((one & ~other).sum()) for one, other in (right, right[::-1])]
    return min(1.0, 2 * float(bdtr(min(alone), sum(alone), 0.5)))


def _right(answer: Answer) -> NDArray[np.bool_]:
    known = answer.labels != UNKNOWN
    return np.asarray((answer.predicted == answer.labels)[known])
