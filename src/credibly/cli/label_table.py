"""What a labelling found, as tables for a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

NAMES = {
    "raw": "as the model says it",
    "corrected": "without the labellers' bias",
    "prior_corrected": "for the class shares",
    "dawid_skene": "votes by Dawid and Skene",
}


def print_labelling(content: dict[str, Any], console: Console) -> None:
    """Print the labels' shares before and after each correction, and what is to be said of them."""
    classes = list(content["assumed_shares"])
    table = Table(box=None, title_justify="left")
    asked = {"prompts": "prompts", "samples": "sampled answers"}.get(_source(content), "labellers")
    table.add_column(f"{content['texts']:,} texts, {content['members']} {asked}")
    for name in (*classes, "changed", "total", "epistemic"):
        table.add_column(name, justify="right")
    rows = dict(content["systems"])
    if _source(content) == "samples":
        del rows["corrected"]  # votes have no bias that could be taken off
    if content["combine"] != "mean":
        rows[content["combine"]] = content["combined"][content["combine"]]
    for name, figures in rows.items():
        shares = [f"{figures['shares'][own]:.1%}" for own in classes]
        uncertainty = [f"{figures[f'mean_{part}']:.3f}" for part in ("total", "epistemic")]
        table.add_row(NAMES[name], *shares, f"{figures['changed']:.1%}", *uncertainty)
    console.print(table)
    if content["mass"] is not None:
        console.print(
            f"The classes' words hold {content['mass']:.1%} of what the model might say (median).",
            soft_wrap=True,
        )
    for note in content["notes"]:
        console.print(f"- {note}", soft_wrap=True)


def _source(content: dict[str, Any]) -> str:
    """Return the one kind of labellers that were asked; empty where there are several."""
    kinds = {own["kind"].partition(" ")[0] for own in content["labellers"]}
    return kinds.pop() if len(kinds) == 1 else ""
