"""Exact statements from counts: no approximation, whatever the number of rows."""

from __future__ import annotations

from fractions import Fraction
from math import ceil, floor, log, log1p

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr, betaincinv, betaln

from credibly.errors import InputError
from credibly.records import Interval

FloatArray = NDArray[np.float64]

CONFIDENCE = 0.95


def check_share(name: str, value: float) -> None:
    """Raise InputError unless a share lies strictly between 0 and 1."""
    if not 0 < value < 1:
        raise InputError(f"expected a {name} above 0 and below 1, got {value}")


def checked_column(values: ArrayLike, name: str) -> FloatArray:
    """Return one finite number a row, float64, (N,), or raise InputError."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not np.isfinite(array).all():
        shown = np.array2string(array, threshold=5)
        raise InputError(f"expected {name} as finite numbers of shape (N,), got shape {array.shape}: {shown}")
    return array


def exact_interval(count: int, rows: int, confidence: float = CONFIDENCE) -> Interval:
    """Return a share with its exact binomial interval; undefined without rows.

    (Clopper & Pearson 1934, https://doi.org/10.1093/biomet/26.4.404.) It covers at least as often as it
    says for every true share and number of rows.

    >>> exact_interval(0, 10).high.__round__(4)
    0.3085
    """
    if rows == 0:
        return Interval(None)
    tail = (1 - confidence) / 2
    low = betaincinv(count, rows - count + 1, tail) if count > 0 else 0.0
    high = betaincinv(count + 1, rows - count, 1 - tail) if count < rows else 1.0
    return Interval(count / rows, low, high)


def chance_of_so_few(errors: ArrayLike, rows: ArrayLike, risk: float) -> FloatArray:
    """Return P(Binomial(rows, risk) <= errors): the exact p-value of "the error rate is above risk".

    1 where there are no rows.

    >>> chance_of_so_few([0, 1], [58, 93], 0.05).round(4).tolist()
    [0.051, 0.05]
    """
    return np.asarray(bdtr(np.asarray(errors, dtype=np.float64), np.asarray(rows, dtype=np.int64), risk))


def rows_without_error(risk: float, delta: float) -> int:
    """Return how many rows, none of them wrong, show that the error rate is at most risk: p <= delta.

    >>> rows_without_error(0.05, 0.05)
    59
    """
    rows = ceil(log(delta) / log1p(-risk))
    return rows if chance_of_so_few(0, rows, risk) <= delta else rows + 1


def conformal_rank(rows: int, coverage: float) -> int:
    """Return ceil((n + 1) coverage), in exact arithmetic: in floating point 100 * 0.07 is above 7.

    >>> conformal_rank(99, 0.07), conformal_rank(9, 0.9)
    (7, 9)
    """
    return ceil((rows + 1) * Fraction(str(float(coverage))))


def smallest_calibration(coverage: float) -> int:
    """Return the smallest n with ceil((n + 1) coverage) <= n: with fewer rows nothing can be promised.

    >>> smallest_calibration(0.9), smallest_calibration(0.95)
    (9, 19)
    """
    share = Fraction(str(float(coverage)))
    return ceil(share / (1 - share))


def conformal_quantile(scores: FloatArray, coverage: float) -> float:
    """Return the ceil((n + 1) coverage)-th smallest of n scores.

    A further row that is exchangeable with these scores at most that with probability coverage or more,
    and without ties at most coverage + 1 / (n + 1).

    Raises:
        InputError: too few scores for the coverage, or a coverage that is no share.
    """
    check_share("coverage", coverage)
    N, least = len(scores), smallest_calibration(coverage)
    if least > N:
        raise InputError(
            f"expected {least} calibration rows or more for a coverage of {coverage}, got {N}; "
            f"{N} rows can promise at most {floor(1000 * N / (N + 1)) / 1000}"
        )
    rank = conformal_rank(N, coverage)
    return float(np.partition(scores, rank - 1)[rank - 1])


def coverage_range(
    rows: int, coverage: float, test_rows: int | None = None, confidence: float = CONFIDENCE
) -> Interval:
    """Return what coverage a calibration set of so many rows gives: its mean and a central interval.

    The promise is an average over calibration sets. Of one set, without ties among the scores, the
    coverage is a draw from Beta(k, n + 1 - k) with k = ceil((n + 1) coverage) (Vovk 2012,
    https://arxiv.org/abs/1209.2673); ties only raise it. What then shows on so many
    test rows is beta-binomial.

    Args:
        rows: n, the calibration rows behind the threshold.
        coverage: what is promised.
        test_rows: what the coverage is looked at on; None for endlessly many.
        confidence: the interval's.

    >>> coverage_range(99, 0.9).value
    0.9
    """
    rank = conformal_rank(rows, coverage)
    a, b = rank, rows + 1 - rank
    tails = np.array([(1 - confidence) / 2, (1 + confidence) / 2])
    if test_rows is None:
        low, high = betaincinv(a, b, tails)
    else:
        low, high = np.searchsorted(_beta_binomial(test_rows, a, b), tails) / max(test_rows, 1)
    return Interval(a / (a + b), low, high)


def _beta_binomial(rows: int, a: int, b: int) -> FloatArray:
    """Return P(K <= k) for k = 0..rows, K the hits among rows whose chance is a draw from Beta(a, b)."""
    k = np.arange(rows + 1)
    ways = -betaln(k + 1, rows - k + 1) - np.log(rows + 1)
    return np.asarray(np.minimum(np.cumsum(np.exp(ways + betaln(k + a, rows - k + b) - betaln(a, b))), 1.0))
