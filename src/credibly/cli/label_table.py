"""What a labelling found, as tables for a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

NAMES = {
    "raw": "as the model says it",
    "corrected": "without the prompts' bias",
    "prior_corrected": "for the class shares",
}


def print_labelling(content: dict[str, Any], console: Console) -> None:
    """Print the labels' shares before and after each correction, and what is to be said of them."""
    classes = list(content["assumed_shares"])
    table = Table(box=None, title_justify="left")
    table.add_column(f"{content['texts']:,} texts, {content['members']} prompts")
    for name in (*classes, "changed", "total", "epistemic"):
        table.add_column(name, justify="right")
    for name, figures in content["systems"].items():
        shares = [f"{figures['shares'][own]:.1%}" for own in classes]
        uncertainty = [f"{figures[f'mean_{part}']:.3f}" for part in ("total", "epistemic")]
        table.add_row(NAMES[name], *shares, f"{figures['changed']:.1%}", *uncertainty)
    console.print(table)
    console.print(
        f"The classes' words hold {content['mass']:.1%} of what the model might say (median).", soft_wrap=True
    )
    for note in content["notes"]:
        console.print(f"- {note}", soft_wrap=True)
