"""Whether two sets of texts come from the same source: a test of their embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from credibly.records import IntArray
from credibly.uncertainty.unknown.distances import Embedded, checked, unit_length

FloatArray = NDArray[np.float64]

PERMUTATIONS = 999
MOST_ROWS = 1000
"""Of each set, drawn at random: the test's cost grows with the square of the rows."""
CHUNK = 128
"""Permutations at a time."""
FEWEST_ROWS = 2
"""With fewer a set's likeness to itself is undefined."""


@dataclass(frozen=True)
class TwoSampleTest:
    """What a test of two sets found.

    Args:
        discrepancy: the squared maximum mean discrepancy, about 0 where the sets are alike.
        p: the chance of as large a discrepancy if they are, at least 1 / (permutations + 1).
        rows: how many of each set took part.
        permutations: how many were drawn.
    """

    discrepancy: float
    p: float
    rows: tuple[int, int]
    permutations: int

    def as_json(self) -> dict[str, Any]:
        """Return what JSON holds."""
        return {**vars(self), "rows": list(self.rows)}


def two_sample_test(
    first: Embedded,
    second: Embedded,
    permutations: int = PERMUTATIONS,
    most_rows: int = MOST_ROWS,
    seed: int = 0,
) -> TwoSampleTest | None:
    """Test whether two sets of texts come from one distribution (Gretton et al. 2012).

    https://jmlr.org/papers/v13/gretton12a.html. The unbiased squared maximum mean discrepancy, with the
    kernel exp(-|a - b|^2 / (2 m)) of embeddings made of length one, m the median squared distance of all
    pairs, averaged over both depths. Its distribution where the sets are alike is that over random
    permutations of the rows; so the p-value holds for any number of rows as long as these are independent
    of one another.

    Args:
        first: N texts.
        second: K texts.
        permutations: how many.
        most_rows: of each set, drawn at random where there are more.
        seed: of the draws.

    Returns:
        None where a set has fewer than two rows.

    Raises:
        InputError: no rows, or numbers that are not finite.
    """
    random = np.random.default_rng(seed)
    sides = [side.take(_drawn(len(side), most_rows, random)) for side in (first, second)]
    N, K = (len(side) for side in sides)
    if min(N, K) < FEWEST_ROWS:
        return None
    depths = ([side.last for side in sides], [side.middle for side in sides])
    kernel = np.mean([_kernel(unit_length(checked(np.concatenate(depth)))) for depth in depths], axis=0)
    belongs = np.arange(N + K) < N
    observed = float(_discrepancy(kernel, belongs[:, None])[0])
    drawn = np.concatenate(
        [
            _discrepancy(kernel, np.stack([random.permutation(belongs) for _ in range(size)], axis=1))
            for size in _chunks(permutations)
        ]
    )
    # Equal sets have equal discrepancies but for rounding, which must not look like a difference.
    as_large = int((drawn >= observed - 1e-9).sum())
    return TwoSampleTest(observed, (1 + as_large) / (1 + permutations), (N, K), permutations)


def _drawn(rows: int, most: int, random: np.random.Generator) -> IntArray:
    return np.arange(rows) if rows <= most else random.choice(rows, most, replace=False)


def _kernel(rows: FloatArray) -> FloatArray:
    """Return the kernel of all pairs, zero on the diagonal: no row is compared with itself."""
    squares = (rows**2).sum(axis=1)
    distances = np.maximum(squares[:, None] + squares - 2 * rows @ rows.T, 0.0)
    median = float(np.median(distances[np.triu_indices(len(rows), 1)])) or 1.0
    kernel = np.exp(-distances / (2 * median))
    np.fill_diagonal(kernel, 0.0)
    return np.asarray(kernel)


def _discrepancy(kernel: FloatArray, belongs: NDArray[np.bool_]) -> FloatArray:
    """Return the unbiased discrepancy for each way, (N + K, B), of saying which rows are of the first set."""
    first = belongs.astype(np.float64)
    N = first[:, 0].sum()
    K = len(first) - N
    likeness = kernel @ first
    within = (first * likeness).sum(axis=0)
    between = likeness.sum(axis=0) - within
    others = kernel.sum() - within - 2 * between
    return np.asarray(within / (N * (N - 1)) + others / (K * (K - 1)) - 2 * between / (N * K))


def _chunks(total: int) -> list[int]:
    return [min(CHUNK, total - start) for start in range(0, total, CHUNK)]
