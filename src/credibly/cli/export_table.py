"""The table of the precisions that an export tried."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from credibly.report.words.numbers import cost

HEADER = (
    "precision",
    "rows/s a core",
    "size",
    "labels equal",
    "within 0.03",
    "99 % within",
    "ECE, points",
    "",
)


def print_export(content: dict[str, Any], console: Console) -> None:
    """Print what was tried of each system, what was chosen, and where it is."""
    for part in (content, content.get("members")):
        if part is None:
            continue
        table = Table(*HEADER)
        for row in part["tried"]:
            table.add_row(*_cells(row))
        console.print(f"{part['system']}: {part['precision']}")
        console.print(table)
        if any(row["ece_points"] is None for row in part["tried"]):
            console.print("The calibration error was not compared, for want of labels.")
    console.print(f"Exported to {content['folder']}", soft_wrap=True)


def _cells(row: dict[str, Any]) -> list[str]:
    points = row["ece_points"]
    return [
        row["precision"],
        f"{row['rows_per_core_second']:,.0f}",
        cost("bytes", row["bytes"]),
        f"{row['equal_labels']:.1%}",
        f"{row['within']:.1%}",
        f"{row['difference_99']:.3f}",
        "-" if points is None else f"{points:.2f}",
        "chosen" if row["chosen"] else "" if row["passed"] else "not the same",
    ]
