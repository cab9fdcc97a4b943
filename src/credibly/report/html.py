"""The report as one HTML file that needs nothing else: no network, no script, light and dark.

Texts, class names and file names are hostile input: the template escapes all it is given, and only
our own style sheet and our own drawings are marked safe.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from credibly.report import page, plots, views
from credibly.report.extras import optional
from credibly.report.wording import count, visible

Report = Mapping[str, Any]


def render_html(report: Report) -> str:
    """Return the page of a report, rendered from report.json's dictionary alone.

    Args:
        report: as `build_report` returns it, or as read from report.json.

    Raises:
        MissingExtraError: Jinja2 or matplotlib is not installed.
    """
    jinja2, markupsafe = optional("jinja2"), optional("markupsafe")
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.filters.update(
        count=count,
        prose=_prose,
        capital=lambda text: text[:1].upper() + text[1:],
        breakable=lambda name: markupsafe.escape(visible(name)).replace("+", markupsafe.Markup("<wbr>+")),
    )
    environment.globals.update(family=plots.family, strips=views.strips, spoken=views.spoken)
    drawings = {name: markupsafe.Markup(drawing) for name, drawing in page.drawings(report).items()}
    rendered: str = environment.from_string(_package_file("template.html")).render(
        report=report,
        style=markupsafe.Markup(_package_file("style.css")),
        drawings=drawings,
        **page.parts(report),
    )
    return rendered


def _package_file(name: str) -> str:
    return files("credibly.report").joinpath(name).read_text(encoding="utf-8")


def _shown(value: object) -> object:
    """Return what the template writes for a value; our own markup passes as it is."""
    if value is None:
        return ""
    return visible(value) if type(value) is str else value


def _prose(text: str) -> str:
    """Keep a figure, its unit and its interval on one line each, and write minus signs as such."""
    signed = re.sub(r"(?<![^\[( ])-(?=\d)", "\N{MINUS SIGN}", text).replace(" %", "\N{NO-BREAK SPACE}%")
    return re.sub(r"(\[[^\[\], ]+,) ([^\[\], ]+\])", "\\1\N{NO-BREAK SPACE}\\2", signed)
