"""Scores that depend on the order of the rows, for many weightings of the rows at once.

The rows are sorted once. After that every resample is a column of counts: a sparse product adds them up
by place in the order, cumulative sums do the rest, and nothing is sorted again. Of very many rows the
first-order change is taken instead (`influence`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from credibly.uncertainty.scoring.influence import (
    Influence,
    ranking_influence,
    risk_coverage_influence,
    spearman_influence,
)

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

Weighted = Callable[[FloatArray], FloatArray]
"""A score of counts (N, R), whole numbers >= 0: row n is taken counts[n, r] times -> (R,), NaN where
undefined."""


LINEAR_FROM = 20_000
"""Rows from which resampled rank scores are taken to be linear in the counts, see `influence`."""

LINEAR_SIDE = 1000
"""Rows that positives and negatives must each have for it: a rare class is not linear, but fast anyway."""


def ranking(scores: FloatArray, positive: BoolArray) -> Callable[[FloatArray], tuple[FloatArray, FloatArray]]:
    """Return the weighted AUROC and average precision of scores that should rank positives first.

    AUROC is the probability that a positive scores above a negative, ties counted half. Average
    precision is sum_k (recall_k - recall_k-1) precision_k over the distinct scores, as scikit-learn
    defines it (no interpolation). Both are NaN where a resample lacks positives or negatives.

    Args:
        scores: (N,), larger for rows held more likely positive.
        positive: (N,).
    """
    if _linear(positive):
        influences = ranking_influence(_groups(-scores)[0], positive)
        auroc, average_precision = (_first_order(part) for part in influences)
        return lambda counts: (auroc(counts), average_precision(counts))
    sums = _by_place(scores, positive)

    def weighted(counts: FloatArray) -> tuple[FloatArray, FloatArray]:
        found = sums(counts)
        return _auroc(*found), _average_precision(*found)

    return weighted


def area_under_roc(scores: FloatArray, positive: BoolArray) -> Weighted:
    """Return the weighted AUROC alone, as `ranking` has it, in half the time."""
    if _linear(positive):
        return _first_order(ranking_influence(_groups(-scores)[0], positive)[0])
    sums = _by_place(scores, positive)
    return lambda counts: _auroc(*sums(counts))


Sums = tuple[FloatArray, FloatArray, FloatArray | None, FloatArray]
"""At each of K places, best first: positives, negatives above, negatives level with them (each (K, R);
None where there are no ties), and all negatives, (R,)."""


def _by_place(scores: FloatArray, positive: BoolArray) -> Callable[[FloatArray], Sums]:
    """Return the function of counts (N, R) that gives the sums which both scores of a ranking rest on."""
    group, groups = _groups(-scores)
    has_positive = np.bincount(group[positive], minlength=groups) > 0
    K = int(has_positive.sum())
    # Only groups with a positive matter one by one; negatives between two of them are one sum.
    segment: IntArray = (np.cumsum(has_positive) - has_positive)[group]
    tied = has_positive[group] & ~positive
    positives = _adder(segment, positive, K)
    between = _adder(segment, ~positive & ~tied, K + 1)
    ties = _adder(segment, tied, K) if tied.any() else None

    def sums(counts: FloatArray) -> Sums:
        hits, gaps = positives @ counts, between @ counts
        level = ties @ counts if ties is not None else None
        above = gaps[:K] if level is None else gaps[:K] + _shifted(level)
        negatives = gaps.sum(axis=0) + (0.0 if level is None else level.sum(axis=0))
        return hits, np.cumsum(above, axis=0), level, negatives

    return sums


def _auroc(
    hits: FloatArray, above: FloatArray, level: FloatArray | None, negatives: FloatArray
) -> FloatArray:
    total = hits.sum(axis=0)
    misplaced = np.einsum("kr,kr->r", hits, above if level is None else above + level / 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((total > 0) & (negatives > 0), 1 - misplaced / (total * negatives), np.nan)


def _average_precision(
    hits: FloatArray, above: FloatArray, level: FloatArray | None, negatives: FloatArray
) -> FloatArray:
    found, total = np.cumsum(hits, axis=0), hits.sum(axis=0)
    taken = found + above if level is None else found + above + level
    precision = np.divide(found, taken, out=np.zeros_like(found), where=taken > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        average = np.einsum("kr,kr->r", hits, precision) / total
    return np.where((total > 0) & (negatives > 0), average, np.nan)


def area_under_risk_coverage(confidence: FloatArray, wrong: BoolArray) -> Weighted:
    """Return the weighted AURC: the mean over k = 1..N of the error rate among the k most confident rows.

    (Geifman & El-Yaniv 2017, https://arxiv.org/abs/1705.08500.) Rows of equal confidence, a
    resample's copies of one row among them, have no order: the expectation over all orders is taken,
    which is sum over a group of (E + e j / n) / (m + j), j = 1..n, for m rows and E errors before it
    and n rows and e errors in it. Summed by error instead of by k, with harmonic numbers H, a group adds
    e (H(N) - H(m+n) + 1 - m/n (H(m+n) - H(m))).
    """
    group, groups = _groups(-confidence)
    if _linear(wrong):
        return _first_order(risk_coverage_influence(group, wrong))
    # Only groups with an error matter one by one; the rows between two of them are one sum.
    has_error = np.bincount(group[wrong], minlength=groups) > 0
    segment: IntArray = (np.cumsum(has_error) - has_error)[group]
    K, inside = int(has_error.sum()), has_error[group]
    between, errors = _adder(segment, ~inside, K + 1), _adder(segment, wrong, K)
    sizes = _adder(segment, inside, K)

    def weighted(counts: FloatArray) -> FloatArray:
        gaps, wrongs, size = between @ counts, errors @ counts, sizes @ counts
        before = np.cumsum(gaps[:K] + _shifted(size), axis=0)
        rows = gaps.sum(axis=0) + size.sum(axis=0)
        harmonic = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, int(rows.max(initial=0)) + 1))])
        reached = harmonic[(before + size).astype(np.int64)]
        rise = reached - harmonic[before.astype(np.int64)]
        own = 1 - np.divide(before * rise, size, out=np.zeros_like(size), where=size > 0)
        area = np.einsum("kr,kr->r", wrongs, harmonic[rows.astype(np.int64)] - reached + own)
        with np.errstate(invalid="ignore"):
            return np.asarray(area / rows)

    return weighted


def spearman(first: FloatArray, second: FloatArray) -> Weighted:
    """Return the weighted Spearman correlation: Pearson's of average ranks; NaN if either is constant.

    A row taken w times stands w times among the ranks, as in a resample that was written out.
    """
    if len(first) >= LINEAR_FROM and np.ptp(first) > 0 and np.ptp(second) > 0:
        return _first_order(spearman_influence(_groups(first)[0], _groups(second)[0]))
    first_rank, second_rank = _average_ranks(first), _average_ranks(second)

    def weighted(counts: FloatArray) -> FloatArray:
        rows = counts.sum(axis=0)
        # Average ranks have the mean (n + 1) / 2 whatever the ties; centred, they lose no digits.
        centre = (rows + 1) / 2
        a, b = first_rank(counts) - centre, second_rank(counts) - centre
        weighted_a = counts * a
        cross = np.einsum("nr,nr->r", weighted_a, b)
        a_square = np.einsum("nr,nr->r", weighted_a, a)
        b_square = np.einsum("nr,nr,nr->r", counts, b, b)
        with np.errstate(divide="ignore", invalid="ignore"):
            correlation = cross / np.sqrt(a_square * b_square)
        return np.where((a_square > 0) & (b_square > 0), np.clip(correlation, -1, 1), np.nan)

    return weighted


def _average_ranks(values: FloatArray) -> Callable[[FloatArray], FloatArray]:
    """Return the function of counts (N, R) that gives every row's average rank, (N, R)."""
    group, groups = _groups(values)
    adder = _adder(group, np.ones(len(values), dtype=bool), groups)

    def ranks(counts: FloatArray) -> FloatArray:
        size = adder @ counts
        middle = np.cumsum(size, axis=0) - (size - 1) / 2
        return np.asarray(middle[group])

    return ranks


def _groups(values: FloatArray) -> tuple[IntArray, int]:
    """Return each row's place among the distinct values in rising order, and how many there are."""
    distinct, place = np.unique(values, return_inverse=True)
    return place.astype(np.int64), len(distinct)


def _linear(positive: BoolArray) -> bool:
    fewest = min(int(positive.sum()), int((~positive).sum()))
    return len(positive) >= LINEAR_FROM and fewest >= LINEAR_SIDE


def _first_order(score: Influence) -> Weighted:
    """Return score + sum_n (counts_n - 1) influence_n as a function of counts (N, R)."""
    value, influence = score
    # A sparse row: threaded BLAS waits longer for its threads than so thin a product takes.
    row, constant = csr_matrix(influence[None]), value - influence.sum()
    return lambda counts: np.asarray((row @ counts)[0] + constant)


def _adder(place: IntArray, rows: BoolArray, places: int) -> csr_matrix:
    """Return the sparse matrix (places, N) that adds the counts of these rows up by place."""
    chosen = np.flatnonzero(rows)
    shape = (places, len(place))
    return csr_matrix((np.ones(len(chosen)), (place[chosen], chosen)), shape=shape)


def _shifted(level: FloatArray) -> FloatArray:
    """Return each row replaced by the one before it, zero first."""
    return np.concatenate([np.zeros_like(level[:1]), level[:-1]])
