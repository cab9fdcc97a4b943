"""The rows by which something can be promised: they must not depend on one another."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from credibly.records import IntArray


def one_of_each(groups: IntArray | None, N: int, seed: int = 0) -> NDArray[np.bool_]:
    """Return which of N rows stay, bool, (N,), where of every group one does, drawn by its place.

    What is then promised holds for one text of a further group, each group counting alike: where large
    groups are harder than small ones, it does not hold for the average over texts.

    Args:
        groups: int64, (N,): rows of one number belong together; None where none do, and all stay.
        N: rows.
        seed: of the draw.

    >>> one_of_each(np.array([7, 4, 7, 4]), 4).sum()
    np.int64(2)
    """
    if groups is None:
        return np.ones(N, dtype=bool)
    order = np.random.default_rng(seed).permutation(N)
    stays = np.zeros(N, dtype=bool)
    stays[order[np.unique(groups[order], return_index=True)[1]]] = True
    return stays
