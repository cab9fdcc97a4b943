"""What more training texts bring."""

from __future__ import annotations

from collections.abc import Iterator

from credibly.report.figures.learning import SYSTEM
from credibly.report.figures.types import Report
from credibly.report.words.claims import Finding, changes_of
from credibly.report.words.numbers import count
from credibly.report.words.verdicts import Verdict, verdict


def what_more_brings(report: Report) -> Iterator[Finding]:
    """Say what the last of the training texts brought, from which a reader may judge what more would."""
    points = report["curves"].get("learning", [])
    if len(points) < 2:
        return
    few, all_of_them = points[-2:]
    changes = all_of_them["change"]
    outcome = verdict("nll", changes["nll"])
    if outcome is None:
        return
    claims: dict[Verdict, str] = {
        "better": "More training texts still help.",
        "equal": "What the last of the training texts brought is not beyond the interval.",
        "worse": "More training texts made it worse.",
    }
    evidence = (
        f"From {count(few['rows'])} to {count(all_of_them['rows'])} texts, {SYSTEM}: {changes_of(changes)}"
    )
    yield Finding("bad" if outcome == "worse" else "noted", claims[outcome], evidence)
