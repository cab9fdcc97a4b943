"""Rank scores of very many rows: their first-order change with each row's weight.

With 20,000 rows and more a resample moves a rank score by so little that the score is all but linear in
the counts: score + sum_n (counts_n - 1) influence_n (the infinitesimal jackknife; Efron 1982,
https://doi.org/10.1137/1.9781611970319). The interval's ends then differ from the exact bootstrap's by
up to a hundredth of its width (three for average precision over six classes), less than a thousand
resamples leave open, and one matrix product stands for a thousand passes over the sorted rows. Each
function here returns the score and its derivative by every row's weight, where all weights are one;
`ranks` has the scores themselves.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import polygamma

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

Influence = tuple[float, FloatArray]
"""A score, and its derivative by each row's weight, (N,)."""


def ranking_influence(group: IntArray, positive: BoolArray) -> tuple[Influence, Influence]:
    """Return AUROC and average precision with their influences.

    Args:
        group: (N,), each row's place among the distinct scores, highest first.
        positive: (N,).
    """
    hits, misses = (np.bincount(group[rows], minlength=group.max() + 1) for rows in (positive, ~positive))
    P, Q = hits.sum(), misses.sum()
    # Share of the negatives below, and of the positives above, each place; ties half.
    beaten = 1 - (np.cumsum(misses) - misses / 2) / Q
    beating = (np.cumsum(hits) - hits / 2) / P
    auroc = float((hits * beaten).sum() / P)
    auroc_influence = np.where(positive, (beaten[group] - auroc) / P, (beating[group] - auroc) / Q)
    found, taken = np.cumsum(hits), np.cumsum(hits + misses)
    precision = found / taken
    average_precision = float((hits * precision).sum() / P)
    as_found, as_taken = _from_here_on(hits / taken) / P, _from_here_on(hits * precision / taken) / P
    own = (precision[group] - average_precision) / P + as_found[group]
    return (auroc, auroc_influence), (average_precision, np.where(positive, own, 0.0) - as_taken[group])


def risk_coverage_influence(group: IntArray, wrong: BoolArray) -> Influence:
    """Return the AURC with its influence; `group` is each row's place by confidence, highest first.

    The derivative of `ranks.area_under_risk_coverage`'s closed form, H'(x) being trigamma(x + 1).
    """
    N, size = len(group), np.bincount(group)
    errors = np.bincount(group, wrong, minlength=len(size))
    after, share = np.cumsum(size), errors / size
    before, errors_before = after - size, np.cumsum(errors) - errors
    harmonic = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, N + 1))])
    rise = harmonic[after] - harmonic[before]
    slope, slope_before = polygamma(1, after + 1.0), polygamma(1, before + 1.0)
    own = 1 - before / size * rise
    area = float((errors_before * rise + errors * own).sum() / N)
    by_size = errors_before * slope - share * own + share * (1 - before * slope)
    by_before = errors_before * (slope - slope_before) - share * (rise + before * (slope - slope_before))
    later_rows, later_errors = _from_here_on(by_before) - by_before, _from_here_on(rise) - rise
    change = (by_size + later_rows)[group] + np.where(wrong, (own + later_errors)[group], 0.0)
    return area, (change - area) / N


def spearman_influence(first: IntArray, second: IntArray) -> Influence:
    """Return Spearman's correlation with its influence, of two places in rising order, (N,) each."""
    a, b = _centred_ranks(first), _centred_ranks(second)
    cross, a_square, b_square = (a * b).sum(), (a * a).sum(), (b * b).sum()
    correlation = float(cross / np.sqrt(a_square * b_square))
    cross_change = a * b + _above(first, b) + _above(second, a)
    a_change, b_change = a * a + 2 * _above(first, a), b * b + 2 * _above(second, b)
    relative = cross_change / np.sqrt(a_square * b_square)
    return correlation, relative - correlation / 2 * (a_change / a_square + b_change / b_square)


def _centred_ranks(group: IntArray) -> FloatArray:
    size = np.bincount(group)
    return np.asarray((np.cumsum(size) - size / 2)[group] - len(group) / 2)


def _above(group: IntArray, values: FloatArray) -> FloatArray:
    """Return, for each row, the sum of the values of rows ranked above it, ties half."""
    sums = np.bincount(group, values)
    return np.asarray((_from_here_on(sums) - sums / 2)[group])


def _from_here_on(values: NDArray[Any]) -> FloatArray:
    return np.asarray(np.cumsum(values[::-1])[::-1])
