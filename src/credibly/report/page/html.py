"""The report as one HTML file that needs nothing else: no network, no script, light and dark.

Texts, class names and file names are hostile input: the template escapes all it is given, and only
our own style sheet and our own drawings are marked safe.
"""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Any

from credibly.report.figures.types import Report
from credibly.report.page import content, strips
from credibly.report.page.drawing import svg
from credibly.report.page.extras import optional
from credibly.report.tables.families import family
from credibly.report.words.numbers import count
from credibly.report.words.text import capital, visible
from credibly.report.words.verdicts import SIGNS, WORDS


def render_html(report: Report) -> str:
    """Return the page of a report, rendered from report.json's dictionary alone.

    Args:
        report: as `build_report` returns it, or as read from report.json.

    Raises:
        MissingExtraError: Jinja2 or matplotlib is not installed.
    """
    drawings = {name: markup(svg(drawing)) for name, drawing in content.drawings(report).items()}
    return page_of("page/report.html", report=report, drawings=drawings, **content.parts(report))


def page_of(template: str, **parts: object) -> str:
    """Return a page of ours.

    Args:
        template: its file, as `package_file` takes it.
        parts: what it shows; all but what `markup` marks is escaped.

    Raises:
        MissingExtraError: Jinja2 is not installed.
    """
    jinja2, markupsafe = optional("jinja2"), optional("markupsafe")
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(package_file),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.filters.update(
        count=count,
        prose=_prose,
        capital=capital,
        breakable=lambda name: markupsafe.escape(visible(name)).replace("+", markupsafe.Markup("<wbr>+")),
    )
    environment.globals.update(
        family=family,
        strips=strips.strips,
        spoken=strips.spoken,
        verdict_signs=SIGNS,
        verdict_words=WORDS,
    )
    style = markup(package_file("page/style.css"))
    rendered: str = environment.get_template(template).render(style=style, **parts)
    return rendered


def markup(drawing: str) -> Any:
    """Return a drawing of our own as what is written into a page as it is.

    Raises:
        MissingExtraError: Jinja2 is not installed.
    """
    return optional("markupsafe").Markup(drawing)


def package_file(name: str) -> str:
    """Return the text of a file of `credibly.report`, by its path there."""
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
