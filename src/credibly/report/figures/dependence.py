"""Texts that belong together: how much wider intervals would be that allowed for it, and is that chance?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import chdtrc

from credibly.records import UNKNOWN
from credibly.report.figures.types import Json
from credibly.uncertainty.numerics import log_of
from credibly.uncertainty.scoring.clusters import clusters_of, effective_groups, standard_error
from credibly.uncertainty.systems import Answer


def dependence(answer: Answer, groups: Sequence[str] | None) -> Json | None:
    """Return how much larger standard errors are by group than for independent rows.

    Args:
        answer: of the system that ships; rows of unknown label are left out.
        groups: N names; None where rows do not belong together.

    Returns:
        ``groups``, their number; ``effective_groups``, how many of one size would tell as much, N^2 over the
        sum of the squared sizes; and the ratio (a design effect's root) for ``accuracy`` and ``nll``, None
        where the figure is the same for all rows. None where no group has two rows, or there is one group.
    """
    known = np.flatnonzero(answer.labels != UNKNOWN)
    names = [] if groups is None else [groups[int(row)] for row in known]
    if not 1 < len(set(names)) < len(names):
        return None
    clusters, alone = clusters_of(names, len(names)), clusters_of(None, len(names))
    labels, probs = answer.labels[known], answer.probs[known]
    values = {
        "accuracy": (probs.argmax(axis=1) == labels).astype(np.float64),
        "nll": -log_of(probs)[np.arange(len(labels)), labels],
    }
    ratios = {
        name: standard_error(own, clusters) / error if (error := standard_error(own, alone)) else None
        for name, own in values.items()
    }
    return {"groups": len(set(names)), "effective_groups": effective_groups(clusters), **ratios}


def groups_by_column(recipe: Mapping[str, Any]) -> bool:
    """Return whether groups are those of a column, and not equal texts with what stands within them."""
    return recipe.get("data", {}).get("group", "") is not None


def by_chance(ratio: float, groups: float) -> float:
    """Return how probable so large a ratio is of independent rows: (G - 1) ratio^2 is about chi-squared."""
    return float(chdtrc(groups - 1, (groups - 1) * ratio**2))
