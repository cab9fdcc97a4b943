"""Which rows stick out among known ones, how many do, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from credibly.records import Interval
from credibly.uncertainty.exact import conformal_quantile, exact_interval, smallest_calibration

FloatArray = NDArray[np.float64]

LEVELS = (0.95, 0.99)
"""Shares of the known rows beyond which a row is called strange."""


@dataclass(frozen=True)
class Beyond:
    """How many rows lie beyond a level of the known rows' scores.

    Args:
        level: at most 1 - level of further rows of the known kind lie beyond it.
        share: of the rows, with its exact binomial interval.
    """

    level: float
    share: Interval

    def as_json(self) -> dict[str, Any]:
        """Return what JSON holds."""
        return {"level": self.level, "share": self.share.as_json()}


def beyond(inside: FloatArray, outside: FloatArray, levels: Sequence[float] = LEVELS) -> list[Beyond]:
    """Return how many of the rows outside score above each level of those inside.

    A level is the conformal quantile, so that of rows like those inside at most 1 - level lie beyond it on
    average, whatever the number of rows; one that takes more rows than there are is left out.

    Args:
        inside: scores of N known rows, larger for stranger ones.
        outside: of K rows.
        levels: shares.

    >>> [found.share.value for found in beyond(np.arange(99.0), np.array([10.0, 97.0, 120.0]))]
    [0.6666666666666666, 0.3333333333333333]
    """
    return [
        Beyond(level, exact_interval(int((outside > conformal_quantile(inside, level)).sum()), len(outside)))
        for level in levels
        if len(inside) >= smallest_calibration(level)
    ]


def share_as_strange(inside: FloatArray, outside: FloatArray) -> FloatArray:
    """Return for each row outside the share of known rows that score as high, itself counted among them.

    That is the conformal p-value (1 + #) / (N + 1): for a row like those inside it is at most a with
    probability a at most (Vovk et al. 2005, https://doi.org/10.1007/b106715).

    Args:
        inside: scores of N known rows.
        outside: of K rows.

    >>> share_as_strange(np.array([1.0, 2.0, 3.0]), np.array([0.0, 2.0, 9.0])).tolist()
    [1.0, 0.75, 0.25]
    """
    as_high = len(inside) - np.searchsorted(np.sort(inside), outside, side="left")
    return np.asarray((1 + as_high) / (len(inside) + 1))


def reasons(
    inside: Mapping[str, FloatArray], outside: Mapping[str, FloatArray], level: float = LEVELS[0]
) -> list[list[str]]:
    """Return for each row the names under which it is as strange as no more than 1 - level of the known rows.

    Args:
        inside: scores of N known rows by name.
        outside: of K rows by the same names.
        level: a share.

    >>> reasons({"far": np.arange(40.0)}, {"far": np.array([3.0, 50.0])})
    [[], ['far']]
    """
    rare = {name: share_as_strange(inside[name], outside[name]) <= 1 - level for name in inside}
    rows = len(next(iter(outside.values())))
    return [[name for name, flags in rare.items() if flags[row]] for row in range(rows)]
