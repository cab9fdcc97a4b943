"""Brier's score in parts that add up exactly: reliability, resolution, uncertainty, and within bins.

Every class's probability p is put into 15 bins of equal width. With w_b a bin's share of the rows, p_b
and y_b its mean probability and share of the class, y the class's share of all rows, and sums over
classes,

    reliability   sum_b w_b (p_b - y_b)^2      uncertainty   y (1 - y)
    resolution    sum_b w_b (y_b - y)^2        within bins   mean of (p - p_b)^2 - 2 (p - p_b)(label - y_b)

    Brier = reliability - resolution + uncertainty + within bins

(Murphy 1973, https://doi.org/10.1175/1520-0450(1973)012<0595:ANVPOT>2.0.CO;2; the last term, Stephenson
et al. 2008, https://doi.org/10.1175/2007WAF2006116.1, where p is not the same for all rows of a bin).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.special import ndtri

from credibly.records import UNKNOWN
from credibly.uncertainty.binning import BINS, bin_of
from credibly.uncertainty.resampling import Statistic
from credibly.uncertainty.systems import Answer

FloatArray = NDArray[np.float64]
Estimate = tuple[float, float, float]

PARTS = ("brier_reliability", "brier_resolution", "brier_uncertainty", "brier_within_bins")


def brier_parts(answer: Answer) -> Statistic | None:
    """Prepare the four parts of Brier's score."""
    rows = np.flatnonzero(answer.labels != UNKNOWN)
    if not len(rows):
        return None
    probs, truth, place, K = _cells(answer, rows)
    columns = (np.ones_like(probs), probs, truth, probs**2, probs * truth)
    where = np.concatenate([place.ravel() + K * part for part in range(len(columns))])
    values = np.concatenate([column.ravel() for column in columns])
    across = np.tile(np.repeat(rows, probs.shape[1]), len(columns))
    matrix = csr_matrix((values, (where, across)), shape=(len(columns) * K, len(answer.ids)))

    def statistic(counts: FloatArray) -> dict[str, FloatArray]:
        n, p, y, pp, py = np.asarray(matrix @ counts).reshape(len(columns), K // BINS, BINS, -1)
        N = n[0].sum(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            share = y.sum(axis=1) / N
            p_bin, y_bin = (np.divide(sums, n, out=np.zeros_like(n), where=n > 0) for sums in (p, y))
            figures = (
                (n * (p_bin - y_bin) ** 2).sum(axis=(0, 1)) / N,
                (n * (y_bin - share[:, None]) ** 2).sum(axis=(0, 1)) / N,
                (share * (1 - share)).sum(axis=0),
                (pp - n * p_bin**2 - 2 * (py - n * p_bin * y_bin)).sum(axis=(0, 1)) / N,
            )
        return dict(zip(PARTS, figures, strict=True))

    return statistic


def brier_estimate(part: str) -> Callable[[Answer, float], Estimate]:
    """Return the function that gives a part without chance's share, and the ends of its interval.

    A bin's share of a class is off by chance, with variance s_b^2, which adds to reliability and
    resolution alike (Ferro & Fricker 2012, https://doi.org/10.1002/qj.1924); the percentile bootstrap adds
    it twice. So the interval is the normal one about the part without it, its variance by each row's
    influence, and by s_b^4 where gaps are all chance.
    """
    return lambda answer, confidence: _estimates(answer, confidence)[part]


def _estimates(answer: Answer, confidence: float) -> dict[str, Estimate]:
    rows = np.flatnonzero(answer.labels != UNKNOWN)
    N = len(rows)
    probs, truth, place, K = _cells(answer, rows)

    def mean_by_bin(values: FloatArray) -> FloatArray:
        return np.asarray(np.bincount(place.ravel(), values.ravel(), K) / np.maximum(n, 1))

    n = np.bincount(place.ravel(), minlength=K)
    p_bin, y_bin, share = mean_by_bin(probs), mean_by_bin(truth), truth.mean(axis=0)
    # Drawn towards the probability as if by two rows more: a bin of one class would else be free of error.
    drawn = (n * y_bin + 2 * p_bin) / (n + 2)
    chance = drawn * (1 - drawn) / np.maximum(n, 1)
    d, y_b, gap = (p_bin - y_bin)[place], y_bin[place], probs - truth
    of = {
        "reliability": (2 * d * gap - d**2).sum(axis=1),
        "resolution": (2 * y_b * truth - y_b**2 - 2 * share * truth + share**2).sum(axis=1),
        "uncertainty": (truth - 2 * share * truth + share**2).sum(axis=1),
        "brier": (gap**2).sum(axis=1),
    }
    by_chance = {
        "reliability": float((n * chance).sum() / N),
        "resolution": float((n * chance).sum() / N - (share * (1 - share)).sum() / N),
        "uncertainty": -float((share * (1 - share)).sum() / N),
        "brier": 0.0,
    }
    within = {"brier": 1, "reliability": -1, "resolution": 1, "uncertainty": -1}
    of["within_bins"] = sum(sign * of[name] for name, sign in within.items())
    by_chance["within_bins"] = sum(sign * by_chance[name] for name, sign in within.items())
    squared = 4 * float((n**2 * chance**2).sum()) / N**2
    of_squares = {"reliability": squared, "resolution": squared, "uncertainty": 2 / N**2}
    reach = float(ndtri((1 + confidence) / 2))
    found = {}
    for name in ("reliability", "resolution", "uncertainty", "within_bins"):
        value = float(of[name].mean()) - by_chance[name]
        half = reach * np.sqrt(of[name].var() / N + of_squares.get(name, 0.0))
        lowest = -np.inf if name == "within_bins" else 0.0
        low, high = max(value - half, lowest), max(value + half, lowest)
        found[f"brier_{name}"] = (max(value, lowest), low, high)
    return found


def _cells(answer: Answer, rows: NDArray[np.intp]) -> tuple[FloatArray, FloatArray, NDArray[np.int64], int]:
    """Return probabilities, one-hot labels and the place of the bin, each (N, C), and how many bins."""
    C = answer.probs.shape[1]
    probs, truth = answer.probs[rows], np.eye(C)[answer.labels[rows]]
    return probs, truth, bin_of(probs) + BINS * np.arange(C), BINS * C
