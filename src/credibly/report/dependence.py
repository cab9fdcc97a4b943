"""Texts that belong together: how much wider intervals would be that allowed for it, and is that chance?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from scipy.special import chdtrc

from credibly.records import UNKNOWN
from credibly.report.claims import Finding, Report
from credibly.report.wording import count
from credibly.uncertainty.numerics import log_of
from credibly.uncertainty.scoring.clusters import clusters_of, standard_error
from credibly.uncertainty.systems import Answer

Json = dict[str, Any]

HARDLY = 1.1
"""Standard errors that are larger by less are as good as those of independent texts."""

LEVEL = 0.025
"""Independent texts are said to belong together with this probability at most."""

ENOUGH = 30
"""With fewer groups a standard error by group is too uncertain to say that it is not larger."""


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
    sizes = np.bincount(clusters)
    return {"groups": len(sizes), "effective_groups": len(names) ** 2 / int((sizes**2).sum()), **ratios}


def what_groups_mean(report: Report) -> Iterator[Finding]:
    """Say how far the intervals can be trusted where texts belong together."""
    found = report.get("dependence") or {}
    ratios = {name: found[name] for name in ("accuracy", "nll") if found.get(name) is not None}
    if not ratios:
        return
    groups = found.get("effective_groups", found["groups"])
    told = " and ".join(
        f"{ratio:.1f} times for {'NLL' if name == 'nll' else name}" for name, ratio in ratios.items()
    )
    wider = any(
        ratio >= HARDLY and _by_chance(ratio, groups) * len(ratios) < LEVEL for ratio in ratios.values()
    )
    means = (
        "so that the intervals here are too narrow"
        if wider
        else "and the groups are too few to tell how much wider that makes the intervals"
        if groups < ENOUGH
        else "which hardly widens the intervals"
    )
    alike = f", which tell as much as {groups:.0f} of one size," if round(groups) < found["groups"] else ""
    evidence = (
        f"They take the texts for independent. Over the {count(found['groups'])} groups{alike} the standard "
        f"errors of {report['shipped']} are {told} what they would be of independent texts."
    )
    yield Finding("bad" if wider else "noted", f"Texts of a group belong together, {means}.", evidence)


def _by_chance(ratio: float, groups: float) -> float:
    """Return how probable so large a ratio is of independent rows: (G - 1) ratio^2 is about chi-squared."""
    return float(chdtrc(groups - 1, (groups - 1) * ratio**2))
