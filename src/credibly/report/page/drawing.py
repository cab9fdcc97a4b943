"""How a plot becomes a picture: inline SVG that the page's style sheet colours, or a file of its own.

A plot is drawn by matplotlib in the colours of a palette. The page's palette holds placeholders, one a
variable of its style sheet, so that one SVG reads in light and in dark; a file has that sheet's light
colours written out, a title and a key. Text stays text, and equal input gives equal bytes.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from credibly.report.page.extras import optional
from credibly.report.tables.families import FAMILIES, family

COLOURS = ("ink", "soft", "grid", "paper", *FAMILIES)
"""Names in every palette; those of the style sheet's variables, with underscores."""

Palette = Mapping[str, str]
"""A colour, as #rrggbb, by its name."""

PAGE: Palette = {name: f"#0000{index:02x}" for index, name in enumerate(COLOURS, start=1)}
"""Placeholders, replaced by CSS variables when an SVG is written into a page."""

_VARIABLES = {colour: f"var(--{name.replace('_', '-')})" for name, colour in PAGE.items()}

_KEY_COLUMNS = 2
_LONGEST_LABEL = 34
_DOTS_AN_INCH = 200
_NO_METADATA = {
    "svg": dict.fromkeys(("Creator", "Date", "Format", "Type")),
    "png": {"Software": None},
}


@dataclass(frozen=True)
class Drawing:
    """A plot with its data.

    Args:
        name: of its file and of its ids on a page.
        title: what it shows, for a reader who has nothing else.
        inches: width and height.
        draw: draws it into a figure, in a palette's colours.
        rows: its data, a mapping a point, all with the same keys.
        key: by label, the system whose colour it has; a page has a key of its own.
    """

    name: str
    title: str
    inches: tuple[float, float]
    draw: Callable[[Any, Palette], None]
    rows: Sequence[Mapping[str, Any]] = ()
    key: Mapping[str, str] = field(default_factory=dict)


def svg(drawing: Drawing) -> str:
    """Return a drawing as an inline SVG element that the page's style sheet colours.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """

    def draw(figure: Any) -> None:
        drawing.draw(figure, PAGE)
        for patch in (figure.patch, *(axes.patch for axes in figure.axes)):
            patch.set_alpha(0)

    return inline(_saved(drawing.inches, draw, PAGE, "svg").decode(), slug(drawing.name))


def picture(drawing: Drawing, palette: Palette, form: str) -> bytes:
    """Return a drawing as a file of its own, with its title and key, on the palette's paper.

    Args:
        drawing: what to draw.
        palette: its colours.
        form: ``svg`` or ``png``.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """

    def draw(figure: Any) -> None:
        figure.patch.set_facecolor(palette["paper"])
        figure.suptitle(cut(drawing.title, 2 * _LONGEST_LABEL), fontsize=10)
        drawing.draw(figure, palette)
        for axes in figure.axes:
            axes.patch.set_facecolor(palette["paper"])
        if drawing.key:
            _add_key(figure, drawing.key, palette)

    width, height = drawing.inches
    key_lines = -(-len(drawing.key) // _KEY_COLUMNS)
    content = _saved((max(width, 4.8), height + 0.35 + 0.2 * key_lines), draw, palette, form)
    # Without the document type, which names an address.
    return content[content.index(b"<svg") :] if form == "svg" else content


def inline(document: str, prefix: str) -> str:
    """Make an SVG document one element of a page: own ids, CSS colours, nothing that names an address."""
    element = document[document.index("<svg") :]
    # A <style> in an inline SVG would hold for the whole page.
    element = re.sub(r"<(metadata|style)\b.*?</\1>", "", element, flags=re.DOTALL)
    element = re.sub(r'\s(?:xmlns(?::\w+)?|version)="[^"]*"', "", element)
    element = element.replace("xlink:href", "href")
    used = set(re.findall(r'(?:url\(|href=")#([^")]+)', element))
    element = re.sub(
        r'\sid="([^"]+)"', lambda found: f' id="{prefix}-{found[1]}"' if found[1] in used else "", element
    )
    element = re.sub(r'(url\(|href=")#', rf"\g<1>#{prefix}-", element)
    element = re.sub(r"#0000[0-9a-f]{2}\b", lambda found: _VARIABLES.get(found[0], found[0]), element)
    element = re.sub(r"\sfont-family: [^;\"]+;?", "", element)
    return element.replace("<svg ", '<svg aria-hidden="true" ', 1)


def slug(name: str) -> str:
    """Return a name as files and ids may have it.

    >>> slug("reliability student+temperature")
    'reliability-student-temperature'
    """
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def cut(text: str, most: int) -> str:
    """Shorten a text to fit a place, and drop what no document may hold.

    >>> cut("a long name", 8)
    'a long …'
    """
    clean = "".join(letter for letter in text if letter.isprintable())
    return clean if len(clean) <= most else clean[: most - 1] + "…"


def in_percent(axes: Any) -> None:
    """Label the axes in per cent."""
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda share, _: tick(share))


def tick(share: float) -> str:
    """Return a share as a tick's label, with as many digits as tell it from its neighbours.

    >>> tick(0.975), tick(1.0), tick(0.07), tick(-1e-17)
    ('97.5%', '100%', '7%', '0%')
    """
    return f"{round(100 * share, 6) + 0:.4g}%"


def _saved(inches: tuple[float, float], draw: Callable[[Any], None], palette: Palette, form: str) -> bytes:
    matplotlib, figures = optional("matplotlib"), optional("matplotlib.figure")
    with matplotlib.rc_context(_style(palette)), warnings.catch_warnings():
        # Where ours lacks a letter of a name, a viewer of the SVG has it, and a PNG shows a box.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = figures.Figure(figsize=inches, layout="constrained")
        draw(figure)
        target = io.BytesIO()
        dots = _DOTS_AN_INCH if form == "png" else "figure"
        figure.savefig(target, format=form, dpi=dots, metadata=_NO_METADATA[form])
    return target.getvalue()


def _style(palette: Palette) -> dict[str, Any]:
    ink, soft, grid = palette["ink"], palette["soft"], palette["grid"]
    return {
        "svg.hashsalt": "credibly",
        "svg.fonttype": "none",
        "text.parse_math": False,
        "font.size": 9,
        "axes.edgecolor": grid,
        "axes.labelcolor": soft,
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.unicode_minus": False,
        "text.color": ink,
        "xtick.color": grid,
        "ytick.color": grid,
        "xtick.labelcolor": soft,
        "ytick.labelcolor": soft,
        "grid.color": grid,
        "grid.linewidth": 0.6,
    }


def _add_key(figure: Any, key: Mapping[str, str], palette: Palette) -> None:
    line = optional("matplotlib.lines").Line2D
    handles = [line([], [], color=palette[family(system)], linewidth=4) for system in key.values()]
    figure.legend(
        handles, [cut(label, _LONGEST_LABEL) for label in key],
        loc="outside lower center", ncols=_KEY_COLUMNS, frameon=False, fontsize=8, handlelength=1,
    )  # fmt: skip
