"""Rows that belong together: what is drawn as one, and how much wider that makes an interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from credibly.errors import InputError
from credibly.records import FloatArray, IntArray

ENOUGH = 30
"""With fewer groups a standard error by group is too uncertain to go by."""


def clusters_of(groups: Sequence[str] | None, N: int) -> IntArray:
    """Return the number of each row's group, int64, (N,), from 0; without groups each row is one of its own.

    Raises:
        InputError: not one group a row, or fewer than two groups.
    """
    if groups is None:
        return np.arange(N)
    clusters: IntArray = np.unique(np.asarray(groups, dtype=object), return_inverse=True)[1]
    if len(clusters) != N or clusters.max() < 1:
        raise InputError(f"expected a group for each of the {N} rows, and two groups or more")
    return clusters


def effective_groups(clusters: IntArray) -> float:
    """Return how many groups of one size would tell as much: N^2 over the sum of the squared sizes.

    >>> effective_groups(np.array([0, 0, 1, 1])), effective_groups(np.array([0, 0, 0, 1]))
    (2.0, 1.6)
    """
    return float(len(clusters) ** 2 / (np.bincount(clusters) ** 2).sum())


def units_of(groups: IntArray | None) -> IntArray | None:
    """Return the number of each row's group, int64, (N,), from 0, where figures' intervals go by groups.

    None where each row stands for itself: without groups, with groups of one row, and with fewer than
    `ENOUGH` effective groups, from which no interval could be made.
    """
    if groups is None or len(groups) < ENOUGH:
        return None
    clusters: IntArray = np.unique(groups, return_inverse=True)[1]
    together = clusters.max() + 1 < len(clusters) and effective_groups(clusters) >= ENOUGH
    return clusters if together else None


def widening(values: FloatArray, clusters: IntArray | None) -> float:
    """Return how much wider an interval is that allows for groups, by a figure's mean: 1 or more.

    The root of the design effect (Kish 1965): the standard error of the mean of values, (N,), by groups,
    clusters, (N,), from 0, over that of independent rows.
    """
    if clusters is None or not len(values) or np.ptp(values) == 0:
        return 1.0
    alone = standard_error(values, np.arange(len(values)))
    return max(standard_error(values, clusters) / alone, 1.0)


def standard_error(values: FloatArray, clusters: IntArray) -> float:
    """Return the standard error of the mean of values, (N,), by the sums of what each group lies off it.

    However rows depend within groups (Liang and Zeger 1986, https://doi.org/10.1093/biomet/73.1.13).

    >>> standard_error(np.array([0.0, 0.0, 1.0, 1.0]), np.array([0, 0, 1, 1]))
    0.5
    """
    sums = np.bincount(clusters, values - values.mean())
    return float(np.sqrt(len(sums) / (len(sums) - 1) * (sums**2).sum()) / len(values))
