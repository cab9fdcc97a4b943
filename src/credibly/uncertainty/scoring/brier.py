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
from scipy.special import chdtri, chndtr, chndtrinc, ndtri

from credibly.records import UNKNOWN
from credibly.uncertainty.scoring.binning import BINS, bin_of, cautious_share
from credibly.uncertainty.scoring.resampling import Statistic
from credibly.uncertainty.systems import Answer

FloatArray = NDArray[np.float64]
Estimate = tuple[float, float, float]

PARTS = ("brier_reliability", "brier_resolution", "brier_within_bins")
"""Those that bins have a part in; the uncertainty is that of the labels alone."""


def brier_parts(answer: Answer) -> Statistic | None:
    """Prepare the parts of Brier's score that bins have a part in."""
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
                (pp - n * p_bin**2 - 2 * (py - n * p_bin * y_bin)).sum(axis=(0, 1)) / N,
            )
        return dict(zip(PARTS, figures, strict=True))

    return statistic


def uncertainty_estimate(answer: Answer, confidence: float) -> Estimate:
    """Return Brier's uncertainty and the ends of its interval.

    It is (C - 1) / C less the squared distance of the classes' shares from equal ones, which over N rows
    goes as a noncentral chi-square does, and bends there: percentiles never reach equal shares. That holds
    near these; elsewhere the sum of squares is normal, by the multinomial's moments. The wider ends count.
    Shares nearer to equal than chance brings them are luck: they say as much as the median of equal ones.
    """
    C, rows = answer.probs.shape[1], np.flatnonzero(answer.labels != UNKNOWN)
    share = np.bincount(answer.labels[rows], minlength=C) / len(rows)
    distance = len(rows) * C * float(((share - 1 / C) ** 2).sum())
    distance = max(distance, float(chdtri(C - 1, 0.5)))
    value, scale = 1 - float((share**2).sum()), len(rows) * C
    tails = (1 + confidence) / 2, (1 - confidence) / 2
    near, far = (
        float(chndtrinc(distance, C - 1, tail)) if chndtr(distance, C - 1, 0) > tail else 0.0
        for tail in tails
    )
    spread = 4 * (float((share**3).sum()) - float((share**2).sum()) ** 2) / len(rows)
    reach = float(ndtri(tails[0])) * np.sqrt(max(spread, 0.0))
    low, high = min(1 - 1 / C - far / scale, value - reach), max(1 - 1 / C - near / scale, value + reach)
    return value, max(min(low, value), 0.0), min(max(high, value), 1 - 1 / C)


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
    probs, truth, place, K = _cells(answer, rows)
    n = np.bincount(place.ravel(), minlength=K)
    p_bin, y_bin = (
        np.bincount(place.ravel(), values.ravel(), K) / np.maximum(n, 1) for values in (probs, truth)
    )
    drawn = cautious_share(n * y_bin, p_bin, n.astype(np.float64), n / len(rows))
    chance, share = drawn * (1 - drawn) / len(rows), truth.mean(axis=0)
    p_own, y_own = p_bin[place], y_bin[place]
    gap, noise = p_own - y_own, float(chance[n > 0].sum())
    # Each row's share in a part: its mean is the part, its deviation from that the row's influence.
    reliability = 2 * gap * (probs - truth) - gap**2
    resolution = 2 * y_own * truth - y_own**2 - 2 * share * truth + share**2
    within = (probs - p_own) ** 2 - 2 * (probs - p_own) * (truth - y_own)
    within *= (n / np.maximum(n - 1, 1))[place]  # squares about a bin's own mean are too small
    squares = 4 * float((chance[n > 0] ** 2).sum())
    overall = float((share * (1 - share)).sum()) / len(rows)
    reach = float(ndtri((1 + confidence) / 2))
    most = 1 - 1 / probs.shape[1]  # of resolution, which is part of the labels' own uncertainty
    return {
        "brier_reliability": _normal(reliability, noise, squares, reach, 0.0),
        "brier_resolution": _normal(resolution, noise - overall, squares, reach, 0.0, most),
        "brier_within_bins": _normal(within, 0.0, 0.0, reach, -np.inf),
    }


def _normal(
    each: FloatArray, noise: float, squares: float, reach: float, lowest: float, highest: float = np.inf
) -> Estimate:
    """Return a sum over classes of each row's share, (N, C), less the noise, and the ends of its interval."""
    rows = each.sum(axis=1)
    value, half = float(rows.mean()) - noise, reach * float(np.sqrt(rows.var() / len(rows) + squares))
    low, middle, high = np.clip([value - half, value, value + half], lowest, highest).tolist()
    return middle, low, high


def _cells(answer: Answer, rows: NDArray[np.intp]) -> tuple[FloatArray, FloatArray, NDArray[np.int64], int]:
    """Return probabilities, one-hot labels and the place of the bin, each (N, C), and how many bins."""
    C = answer.probs.shape[1]
    probs, truth = answer.probs[rows], np.eye(C)[answer.labels[rows]]
    return probs, truth, bin_of(probs) + BINS * np.arange(C), BINS * C
