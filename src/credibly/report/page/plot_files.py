"""Every plot of the page as files of their own: SVG and PNG to look at, CSV to draw it anew."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from credibly.errors import InputError
from credibly.report.page.content import drawings
from credibly.report.page.drawing import COLOURS, Drawing, Palette, picture, slug
from credibly.report.page.html import package_file
from credibly.runs import write_bytes


def write_plots(report: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write every plot of a report as SVG, PNG and CSV, from report.json's dictionary alone.

    ``01-reliability-single.svg`` and so on, in the order of the page; light on white, colours written
    out. Files of these names are replaced, others left alone.

    Args:
        report: as `build_report` returns it, or as read from report.json.
        folder: made where it is not there.

    Returns:
        the files, in their order.

    Raises:
        InputError: the folder is a file, or cannot be made.
        MissingExtraError: Jinja2 or matplotlib is not installed.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"expected a folder for the plots, got '{folder}' ({error.strerror})") from None
    drawn = drawings(report).values()
    files = {
        f"{number:02}-{slug(drawing.name)}.{form}": content
        for number, drawing in enumerate(drawn, start=1)
        for form, content in _forms(drawing).items()
    }
    for name, content in files.items():
        write_bytes(folder / name, content)
    return [folder / name for name in files]


def light() -> Palette:
    """Return the colours that the page's style sheet has in light.

    >>> light()["paper"]
    '#ffffff'
    """
    block = re.search(r":root \{(.*?)\}", package_file("page/style.css"), re.DOTALL)
    assert block is not None
    colours = {
        name.replace("-", "_"): colour for name, colour in re.findall(r"--([a-z-]+): (#\w+)", block[1])
    }
    return {name: colours[name] for name in COLOURS}


def _forms(drawing: Drawing) -> dict[str, bytes]:
    palette = light()
    return {"csv": _table(drawing), **{form: picture(drawing, palette, form) for form in ("png", "svg")}}


def _table(drawing: Drawing) -> bytes:
    """Return a drawing's data as CSV (RFC 4180, UTF-8); what is not known is an empty cell."""
    buffer = io.StringIO(newline="")
    table = csv.DictWriter(buffer, list(drawing.rows[0]) if drawing.rows else [])
    table.writeheader()
    table.writerows(drawing.rows)
    return buffer.getvalue().encode("utf-8")
