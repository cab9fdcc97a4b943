"""The rows by which something can be promised: they must not depend on one another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from credibly.records import IntArray
from credibly.uncertainty.calibration.calibration_rows import hashed


def one_of_each(groups: IntArray | None, ids: Sequence[str], seed: int = 0) -> NDArray[np.bool_]:
    """Return which rows stay, bool, (N,), where of every group one does: drawn by a hash of the ids.

    Rows of a group may depend on one another in any way, those that stay do not. What is then promised
    holds for one text of a further group, whatever the size of the groups.

    Args:
        groups: int64, (N,): rows of one number belong together; None where none do, and all stay.
        ids: N unique names.
        seed: of the draw.

    >>> one_of_each(np.array([7, 4, 7, 4]), ["a", "b", "c", "d"]).sum()
    np.int64(2)
    """
    if groups is None:
        return np.ones(len(ids), dtype=bool)
    order = np.argsort(hashed(ids, seed), kind="stable")
    stays = np.zeros(len(ids), dtype=bool)
    stays[order[np.unique(groups[order], return_index=True)[1]]] = True
    return stays
