"""The tables of calibration: of every system, and of the shipped one by slice."""

from __future__ import annotations

from credibly.report.figures.types import Report
from credibly.report.tables.cells import Cell, Column, Row, Table, plain_cell
from credibly.report.tables.families import family
from credibly.report.words.numbers import count, number, p_value


def calibration_table(report: Report) -> Table | None:
    """Return each system's calibration error beside a perfect model's, and tests; None without any."""
    tests = report["calibration_tests"]
    if not tests:
        return None
    columns = (
        Column("ECE, debiased", "%", "lower", ""),
        Column("ECE, plain", "%", "lower", ""),
        Column("a perfect model's plain ECE", "% and 95th percentile", "", ""),
        Column("consistency test", "p", "", "p-value of the plain ECE if the model were calibrated"),
        Column("Spiegelhalter's test", "p", "", "p-value of the Brier score if the model were calibrated"),
    )
    rows = []
    for name, found in tests.items():
        scores = report["systems"][name]
        cells = [plain_cell(metric, scores[metric]) for metric in ("ece_debiased", "ece")]
        cells.append(
            Cell(
                number("ece", found["ece_perfect_mean"], False),
                number("ece", found["ece_perfect_p95"], False),
            )
        )
        cells += [Cell(p_value(found[test])) for test in ("consistency_p", "spiegelhalter_p")]
        rows.append(Row(name, family(name), name == report["shipped"], tuple(cells)))
    return Table(columns, tuple(rows))


def slices_table(report: Report) -> Table | None:
    """Return the shipped system's calibration by slice; None where no slice is large enough."""
    columns = (
        Column("texts", "", "", ""),
        Column("confidence", "%", "", "mean probability of the predicted class"),
        Column("right", "%", "", "share of right answers"),
        Column("too sure by", "points", "", "confidence less accuracy; below zero it is not sure enough"),
        Column("test", "p", "", "if the probabilities held, corrected for the number of slices (Holm)"),
    )
    rows = []
    for own in report.get("slices", []):
        cells = (
            Cell(count(own["rows"])),
            Cell(number("accuracy", own["confidence"], False)),
            Cell(number("accuracy", own["accuracy"], False)),
            plain_cell("accuracy", own["gap"]),
            Cell(p_value(own["adjusted_p"])),
        )
        rows.append(Row(f"{own['kind']}: {own['name']}", "", False, cells))
    return Table(columns, tuple(rows)) if rows else None
