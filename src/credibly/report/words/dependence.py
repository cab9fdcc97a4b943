"""What it means for the intervals that texts belong together."""

from __future__ import annotations

from collections.abc import Iterator

from credibly.report.figures.dependence import by_chance
from credibly.report.figures.types import Report
from credibly.report.words.claims import Finding
from credibly.report.words.numbers import count

HARDLY = 1.1
"""Standard errors that are larger by less are as good as those of independent texts."""

LEVEL = 0.025
"""Independent texts are said to belong together with this probability at most."""

ENOUGH = 30
"""With fewer groups a standard error by group is too uncertain to say that it is not larger."""


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
        ratio >= HARDLY and by_chance(ratio, groups) * len(ratios) < LEVEL for ratio in ratios.values()
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
    by_column = report.get("recipe", {}).get("data", {}).get("group", "") is not None
    which = "Texts of a group" if by_column else "Equal texts, and texts that stand within others,"
    yield Finding("bad" if wider else "noted", f"{which} belong together, {means}.", evidence)
