"""What `doctor` found, on the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table


def print_facts(facts: dict[str, Any], console: Console) -> None:
    """Print the facts as a table."""
    table = Table(show_header=False, box=None)
    for block in ("versions", "processor", "cache"):
        for name, value in facts[block].items():
            table.add_row(
                block if name == next(iter(facts[block])) else "",
                name,
                str(value if value is not None else "-"),
            )
    for index, asset in enumerate(facts["assets"]):
        state = (
            f"{asset['bytes'] / 1e6:.0f} MB"
            if asset["cached"]
            else f"not here: credibly fetch {asset['name']}"
        )
        table.add_row(
            "" if index else "assets", asset["name"], f"{asset['kind']}, {asset['licence']}, {state}"
        )
    console.print(table)
