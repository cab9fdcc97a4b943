"""Rows that belong together: the standard error of a mean whose rows depend on one another within groups.

Liang and Zeger (1986, https://doi.org/10.1093/biomet/73.1.13): by the sums over groups, however rows depend.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from credibly.errors import InputError
from credibly.records import FloatArray, IntArray


def clusters_of(groups: Sequence[str] | IntArray | None, N: int) -> IntArray:
    """Return the number of each row's group, int64, (N,), from 0; without groups each row is one of its own.

    Raises:
        InputError: not one group a row, or fewer than two groups.
    """
    if groups is None:
        return np.arange(N)
    clusters: IntArray = np.unique(np.asarray(groups), return_inverse=True)[1]
    if len(clusters) != N or clusters.max() < 1:
        raise InputError(f"expected a group for each of the {N} rows, and two groups or more")
    return clusters


def standard_error(values: FloatArray, clusters: IntArray) -> float:
    """Return the standard error of the mean of values, (N,), by the sums of what each group lies off it.

    >>> standard_error(np.array([0.0, 0.0, 1.0, 1.0]), np.array([0, 0, 1, 1]))
    0.5
    """
    sums = np.bincount(clusters, values - values.mean())
    return float(np.sqrt(len(sums) / (len(sums) - 1) * (sums**2).sum()) / len(values))
