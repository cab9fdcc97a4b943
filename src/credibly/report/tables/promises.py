"""The tables of what is promised, of answers and of sets, beside what came of it on the test texts."""

from __future__ import annotations

from credibly.report.figures.types import Report
from credibly.report.tables.cells import Cell, Column, Row, Table, plain_cell
from credibly.report.words.numbers import bracket


def by_groups(report: Report) -> str:
    """Return what is added to a promise's words where some texts belong together."""
    together = report.get("promises", {}).get("by_groups")
    return "; of texts that belong together one counts, here and in what is promised" if together else ""


def abstention_table(report: Report) -> Table | None:
    """Return the risks promised of the answers given; None where nothing is promised."""
    rows = tuple(
        Row(
            f"at most {100 * own['risk_promised']:g} % wrong",
            "",
            False,
            (plain_cell("accuracy", own["coverage"]), plain_cell("accuracy", own["risk"])),
        )
        for own in report.get("promises", {}).get("abstention", [])
    )
    columns = (Column("answered", "%", "higher", ""), Column("wrong of these", "%", "lower", ""))
    return Table(columns, rows) if rows else None


def sets_table(report: Report) -> Table | None:
    """Return the coverages promised of prediction sets; None where nothing is promised."""
    rows = tuple(
        Row(
            f"the right class in {100 * own['coverage_promised']:g} %",
            "",
            False,
            (
                plain_cell("accuracy", own["coverage"]),
                Cell(bracket("accuracy", own["expected"])),
                Cell(f"{own['mean_size']['value']:.2f}"),
                plain_cell("accuracy", own["singletons"]),
            ),
        )
        for own in report.get("promises", {}).get("sets", [])
    )
    columns = (
        Column("right class in the set", "%", "", ""),
        Column("to be expected", "%", "", "if the promise holds, on so many calibration and test texts"),
        Column("classes a set", "", "lower", ""),
        Column("sets of one class", "%", "higher", ""),
    )
    return Table(columns, rows) if rows else None
