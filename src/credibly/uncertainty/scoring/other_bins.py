"""Calibration errors by other bins: of equal mass, and of every class's probability."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, vstack

from credibly.records import UNKNOWN
from credibly.uncertainty.scoring.binning import (
    BINS,
    Bins,
    bin_matrix,
    debiased_error,
    over_all_rows,
    plain_error,
    summed,
)
from credibly.uncertainty.scoring.calibration_interval import error_interval
from credibly.uncertainty.scoring.resampling import Statistic
from credibly.uncertainty.systems import Answer

FloatArray = NDArray[np.float64]
Estimate = tuple[float, float, float]

CLASSES_MOVE_TOGETHER = float(np.sqrt(2))
"""A row that one class has too often another has too seldom: of two classes every gap stands there twice,
so that their mean varies as one of them does."""


def equal_mass(answer: Answer) -> Statistic | None:
    """Prepare the plain ECE of 15 bins that hold as many rows each (Nixon et al. 2019).

    https://arxiv.org/abs/1904.01685. Rows of equal confidence are never parted. Resamples have the bins
    of the rows themselves.
    """
    rows = _labelled(answer)
    if not len(rows):
        return None
    matrix = over_all_rows(_equal_mass_matrix(answer, rows), rows, len(answer.ids))
    return lambda counts: {"ece_equal_mass": _plain(summed(matrix, counts))}


def class_wise(answer: Answer) -> Statistic | None:
    """Prepare the class-wise ECE (Kull et al. 2019, https://arxiv.org/abs/1910.12656).

    The mean over classes of sum_b w_b |share of the class - mean probability of it|, in 15 bins of
    equal width of that probability.
    """
    rows = _labelled(answer)
    if not len(rows):
        return None
    matrix = over_all_rows(_class_matrix(answer, rows), rows, len(answer.ids))

    def statistic(counts: FloatArray) -> dict[str, FloatArray]:
        return {"ece_classwise": _plain(_stacked(matrix, counts, answer.probs.shape[1]))}

    return statistic


def equal_mass_estimate(answer: Answer, confidence: float) -> Estimate:
    """Return the debiased error in bins of equal mass, and the ends of its `error_interval`."""
    rows = _labelled(answer)
    bins = summed(_equal_mass_matrix(answer, rows), np.ones((len(rows), 1)))
    return float(debiased_error(bins)[0]), *error_interval(bins, confidence)


def class_wise_estimate(answer: Answer, confidence: float) -> Estimate:
    """Return the debiased class-wise error, and the ends of its interval: classes move together."""
    rows = _labelled(answer)
    bins = _stacked(_class_matrix(answer, rows), np.ones((len(rows), 1)), answer.probs.shape[1])
    return float(debiased_error(bins)[0]), *error_interval(bins, confidence, CLASSES_MOVE_TOGETHER)


def _equal_mass_matrix(answer: Answer, rows: NDArray[np.intp]) -> csr_matrix:
    confidence = answer.confidence[rows]
    upper = np.quantile(confidence, np.arange(1, BINS) / BINS, method="inverted_cdf")
    place = np.searchsorted(upper, confidence, side="left").astype(np.int64)
    return bin_matrix(confidence, (answer.predicted == answer.labels)[rows], place)


def _class_matrix(answer: Answer, rows: NDArray[np.intp]) -> csr_matrix:
    """Return the sums of `bin_matrix` for every class in turn, (C 3 B, N)."""
    parts = [
        bin_matrix(answer.probs[rows, index], answer.labels[rows] == index)
        for index in range(answer.probs.shape[1])
    ]
    return vstack(parts).tocsr()


def _stacked(matrix: csr_matrix, counts: FloatArray, C: int) -> Bins:
    """Return the bins of all classes as if they were bins of C N rows: shares then average over classes."""
    sums = np.asarray(matrix @ counts).reshape(C, 3, BINS, -1)
    return Bins(*(sums[:, part].reshape(C * BINS, -1) for part in range(3)))


def _plain(bins: Bins) -> FloatArray:
    return np.where(bins.rows.sum(axis=0) == 0, np.nan, plain_error(bins))


def _labelled(answer: Answer) -> NDArray[np.intp]:
    return np.flatnonzero(answer.labels != UNKNOWN)
