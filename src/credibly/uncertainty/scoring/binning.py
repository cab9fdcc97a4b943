"""Calibration error by bins of confidence: as it shows, without chance's share, and how far to trust it.

The mean of absolute gaps is never zero: chance alone puts every bin off. With w_b the share of rows in
bin b, d_b the gap between its accuracy and its mean confidence, and s_b that gap's standard error, a
true gap of delta shows as a folded normal with mean

    m(delta, s) = s sqrt(2 / pi) exp(-delta^2 / 2 s^2) + delta (1 - 2 Phi(-delta / s)).

Everything here follows from that one curve.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.special import ndtr

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

BINS = 15
"""Bins of equal width, each open on the left and closed on the right (Guo et al. 2017)."""

BISECTIONS = 40


def bin_of(confidence: FloatArray, bins: int = BINS) -> IntArray:
    """Return the index of each confidence's bin, (N,).

    >>> bin_of(np.array([0.01, 0.5, 0.51, 1.0]), bins=2).tolist()
    [0, 0, 1, 1]
    """
    edges = np.linspace(0.0, 1.0, bins + 1)
    return np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1).astype(np.int64)


@dataclass(frozen=True)
class Bins:
    """Sums over the rows of each bin, for R weightings of the rows at once; each float64, (B, R).

    Args:
        rows: number of rows; a fraction where rows count for less than one.
        confidence: sum of their confidences.
        correct: number of correct ones.
    """

    rows: FloatArray
    confidence: FloatArray
    correct: FloatArray

    @property
    def _filled(self) -> FloatArray:
        """Rows to divide by, (B, R): 1 for an empty bin."""
        return np.where(self.rows > 0, self.rows, 1.0)

    @property
    def share(self) -> FloatArray:
        """w, (B, R): share of the rows."""
        total = self.rows.sum(axis=0)
        return np.asarray(self.rows / np.where(total > 0, total, 1.0))

    @property
    def gap(self) -> FloatArray:
        """d, (B, R): |accuracy - mean confidence|, 0 for an empty bin."""
        return np.abs(self.correct - self.confidence) / self._filled

    @property
    def error(self) -> FloatArray:
        """s, (B, R): standard error of the gap, from a `cautious_share`."""
        share = cautious_share(self.correct, self.confidence / self._filled, self.rows, self.share)
        return np.asarray(np.sqrt(np.maximum(share * (1 - share), 0.0) / self._filled))


def cautious_share(hits: FloatArray, expected: FloatArray, rows: FloatArray, share: FloatArray) -> FloatArray:
    """Return each bin's share of hits, as far from 0 and 1 as its variance should be estimated from.

    Drawn towards the expected share as if by two rows more, and towards 1/2 as if by four more that all
    bins divide among them (as Agresti & Coull 1998 do for one, https://doi.org/10.1080/00031305.1998.10480550):
    rows that are all right would else claim to be free of error, alone in a bin or all together.
    """
    return (hits + 2 * expected + 2 * share) / (rows + 2 + 4 * share)


def binned(confidence: FloatArray, correct: NDArray[np.bool_], counts: FloatArray) -> Bins:
    """Return the bins' sums, with row n taken counts[n, r] times: counts (N, R)."""
    return summed(bin_matrix(confidence, correct), counts)


def bin_matrix(
    confidence: FloatArray, correct: NDArray[np.bool_], place: IntArray | None = None
) -> csr_matrix:
    """Return the sparse matrix, (3 B, N), whose product with counts is every sum of `Bins`.

    Args:
        confidence: (N,).
        correct: (N,).
        place: of each row's bin, (N,); that of `bin_of` if left out.
    """
    N = len(confidence)
    bins, rows = bin_of(confidence) if place is None else place, np.arange(N)
    values = np.concatenate([np.ones(N), confidence, correct.astype(np.float64)])
    places = np.concatenate([bins, bins + BINS, bins + 2 * BINS])
    return csr_matrix((values, (places, np.tile(rows, 3))), shape=(3 * BINS, N))


def over_all_rows(matrix: csr_matrix, rows: NDArray[np.intp], N: int) -> csr_matrix:
    """Return a matrix over some rows, (K, len(rows)), as one over all N, the others' columns left empty."""
    into = csr_matrix((np.ones(len(rows)), (np.arange(len(rows)), rows)), shape=(len(rows), N))
    return (matrix @ into).tocsr()


def summed(matrix: csr_matrix, counts: FloatArray) -> Bins:
    """Return the bins of counts, (N, R), under a `bin_matrix`."""
    sums = np.asarray(matrix @ counts)
    return Bins(sums[:BINS], sums[BINS : 2 * BINS], sums[2 * BINS :])


def plain_error(bins: Bins) -> FloatArray:
    """Return the expected calibration error, (R,): sum_b w_b d_b (Guo et al. 2017)."""
    return np.asarray((bins.share * bins.gap).sum(axis=0))


def debiased_error(bins: Bins) -> FloatArray:
    """Return the calibration error without chance's share, (R,): the t >= 0 with sum_b w_b m(t, s_b) = ECE.

    That is: if every bin were truly off by t, the plain ECE would on average be the one observed. Zero
    where chance alone shows as much. Chosen by simulation (`tests/uncertainty/test_binning.py`) over
    four kinds of confidences, N = 300 to 5000: of perfectly calibrated models the plain ECE shows all
    of its bias (2.0 % at N = 1000 for a confident binary model), this a third of it (0.6 %), subtracting
    the bootstrap's bias (Kumar et al. 2019, https://arxiv.org/abs/1909.10155, in closed form) or
    inverting each bin alone 60 %; of models off by 3 to 10 % it is within half a point at N = 1000,
    as those are, where subtracting chance's full share would take 1 to 4 points too much.
    (Roelofs et al. 2022, https://arxiv.org/abs/2012.08668, compare estimators of the same quantity.)
    """
    share, error, target = bins.share, bins.error, plain_error(bins)
    low, high = np.zeros_like(target), target  # m(t, s) >= t: the answer is at most the plain ECE
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        too_high = (share * folded_mean(middle + 0 * error, error)).sum(axis=0) > target
        low, high = np.where(too_high, low, middle), np.where(too_high, middle, high)
    by_chance = (share * folded_mean(0 * error, error)).sum(axis=0)
    return np.where(by_chance >= target, 0.0, high)


def folded_mean(gap: FloatArray, error: FloatArray) -> FloatArray:
    """Return m(delta, s), the mean of |X| for X ~ Normal(delta, s^2); |delta| where s is zero."""
    ratio = gap / np.where(error > 0, error, 1.0)
    mean = error * np.sqrt(2 / np.pi) * np.exp(-(ratio**2) / 2) + gap * (1 - 2 * ndtr(-ratio))
    return np.asarray(np.where(error > 0, mean, np.abs(gap)))
