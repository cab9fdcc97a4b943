"""How tables are printed, whatever they show."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text


def plain_table(caption: Text | None = None) -> Table:
    """Return an empty table with a line below its head, and with its caption on the left."""
    return Table(
        box=SIMPLE_HEAD, padding=(0, 1, 0, 0), caption=caption, caption_justify="left", pad_edge=False
    )
