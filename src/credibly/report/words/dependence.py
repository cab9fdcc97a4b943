"""What it means for the intervals that texts belong together."""

from __future__ import annotations

from collections.abc import Iterator

from credibly.report.figures.dependence import by_chance, groups_by_column
from credibly.report.figures.types import Report
from credibly.report.words.claims import Finding
from credibly.report.words.numbers import count
from credibly.uncertainty.scoring.clusters import ENOUGH

HARDLY = 1.1
"""Standard errors that are larger by less are as good as those of independent texts: not worth a word."""

LEVEL = 0.025
"""Independent texts are said to belong together with this probability at most."""


def what_groups_mean(report: Report) -> Iterator[Finding]:
    """Say how far the intervals can be trusted where texts belong together."""
    found = report.get("dependence") or {}
    ratios = {name: found[name] for name in ("accuracy", "nll") if found.get(name) is not None}
    groups = found.get("effective_groups", found.get("groups", 0))
    if not ratios or (groups >= ENOUGH and max(ratios.values()) < HARDLY):
        return
    told = " and ".join(
        f"{ratio:.1f} times for {'NLL' if name == 'nll' else name}" for name, ratio in ratios.items()
    )
    allowed = groups >= ENOUGH
    wider = any(
        ratio >= HARDLY and by_chance(ratio, groups) * len(ratios) < LEVEL for ratio in ratios.values()
    )
    means = (
        "and the intervals of tables allow for it"
        if allowed
        else "so that the intervals here are too narrow"
        if wider
        else "and the groups are too few to tell how much wider that makes the intervals"
    )
    alike = f", which tell as much as {groups:.0f} of one size," if round(groups) < found["groups"] else ""
    taken = (
        "They are drawn as one, in tests of calibration too; the bands of plots take texts for independent."
        if allowed
        else "The intervals take the texts for independent."
    )
    evidence = (
        f"{taken} Over the {count(found['groups'])} groups{alike} the standard errors of {report['shipped']} "
        f"are {told} what they would be of independent texts."
    )
    by_column = groups_by_column(report.get("recipe", {}))
    which = "Texts of a group" if by_column else "Equal texts, and texts that stand within others,"
    yield Finding("bad" if wider and not allowed else "noted", f"{which} belong together, {means}.", evidence)
