"""The table of the members one by one."""

from __future__ import annotations

from credibly.report.figures.metrics import higher_is_better
from credibly.report.figures.types import Report
from credibly.report.tables.cells import Row, Table, cell, column
from credibly.report.words.metrics import words_of

MOST_CLASSES = 6
"""The table shows precision and recall of so many classes; report.json has them of all."""


def members_table(report: Report) -> Table | None:
    """Return members x figures; None for a report of one member, or from before there was such a table."""
    members, classes = report.get("each_member", []), report["classes"]
    if len(members) < 2 or all(member["accuracy"]["value"] is None for member in members):
        return None
    kinds = ("precision", "recall") if len(classes) <= MOST_CLASSES else ()
    columns = [column(metric, higher_is_better(metric)) for metric in ("accuracy", "nll")]
    columns += [column(kind, True, f"{words_of(kind).label}, {name}") for name in classes for kind in kinds]
    rows = [
        Row(
            member["name"],
            "single",
            False,
            tuple(
                cell(metric, figure)
                for metric, figure in [
                    ("accuracy", member["accuracy"]),
                    ("nll", member["nll"]),
                    *((kind, member["classes"][name][kind]) for name in classes for kind in kinds),
                ]
            ),
        )
        for member in members
    ]
    return Table(tuple(columns), tuple(rows))
