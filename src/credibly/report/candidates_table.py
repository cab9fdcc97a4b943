"""A comparison in the terminal: what is recommended and why, and a line a candidate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from credibly.report.verdicts import SIGNS, WORDS, against_shipped
from credibly.report.wording import bracket, cost, count, number, visible

Content = Mapping[str, Any]

COLUMNS = {"accuracy": "accuracy, %", "nll": "NLL", "ece_debiased": "ECE, %", "aurc": "AURC"}


def print_comparison(content: Content, console: Console) -> None:
    """Print a comparison, rendered from comparison.json's dictionary alone; 100 columns are enough."""
    console.print()
    console.print(Text(visible(content["advice"][0]), style="bold"))
    for sentence in content["advice"][1:]:
        console.print(Padding(Text(visible(sentence)), (0, 0, 0, 1)))
    console.print(_table(content))


def _table(content: Content) -> Table:
    signs = ", ".join(f"{SIGNS[kind]} {words}" for kind, words in WORDS.items())
    caption = (
        f"{count(content['rows']['test'])} test texts; against {visible(content['shipped'])}: {signs}.\n"
        f"Chosen by the NLL of {count(content['rows']['calibration'])} calibration texts (on the left) and "
        "speed alone."
    )
    table = Table(
        box=SIMPLE_HEAD, padding=(0, 1, 0, 0), caption=Text(caption), caption_justify="left", pad_edge=False
    )
    table.add_column("candidate", overflow="fold", max_width=26)
    for head in ("NLL, calib.", *COLUMNS.values(), "texts/s"):
        table.add_column(head, justify="right", no_wrap=True)
    verdicts = against_shipped(content)
    for name, own in content["choice"].items():
        figures = content["systems"][name]
        cells = [
            Text(_figure(metric, figures[metric], SIGNS.get(verdicts[name].get(metric), "")))  # type: ignore[arg-type]
            for metric in COLUMNS
        ]
        standing = "" if own["as_good"] else "\ntruly worse"
        table.add_row(
            Text(visible(name), style="bold" if name == content["shipped"] else ""),
            Text(f"{number('nll', own['nll'])}{standing}"),
            *cells,
            Text(cost("rows_per_second", own["rows_per_second"])),
        )
    return table


def _figure(metric: str, figure: Mapping[str, Any], sign: str) -> str:
    return f"{sign}{number(metric, figure['value'], unit=False)}\n{bracket(metric, figure)}".rstrip()
