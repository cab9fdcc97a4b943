"""The page of a comparison: what is recommended, what that rests on, and every candidate's figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from credibly.report.figures.metrics import SHIFT_METRICS
from credibly.report.figures.types import Report
from credibly.report.page.drawing import Drawing, Palette, cut, svg
from credibly.report.page.html import markup, page_of
from credibly.report.tables.calibration import calibration_table
from credibly.report.tables.cells import Cell, Column, Row, Table, plain_cell
from credibly.report.tables.families import family
from credibly.report.tables.settings import flattened
from credibly.report.tables.systems import costs_table, systems_table
from credibly.report.words.metrics import METRIC_WORDS
from credibly.report.words.numbers import UNDEFINED, cost, count, number, p_value
from credibly.report.words.verdicts import against_shipped

METRICS = (
    "accuracy", "nll", "brier", "ece_debiased", "aurc", "risk_at_90", "error_auroc", "mean_epistemic",
)  # fmt: skip


def render_comparison(content: Report) -> str:
    """Return the page of a comparison, rendered from comparison.json's dictionary alone.

    Raises:
        MissingExtraError: Jinja2 or matplotlib is not installed.
    """
    return page_of(
        "candidates/page.html",
        content=content,
        drawing=markup(svg(pareto_plot(content))),
        facts=_facts(content),
        choice_table=choice_table(content),
        main_table=_coloured(
            content,
            systems_table(
                content["systems"], METRICS, content["shipped"], content["leaders"], forest=True,
                verdicts=against_shipped(content),
            ),
        ),
        calibration_table=_coloured(content, calibration_table(content)),
        costs=_coloured(content, costs_table(content["systems"], content["shipped"])),
        shift_tables=[
            (domain, _coloured(content, systems_table(found, SHIFT_METRICS, content["shipped"])))
            for domain, found in content["shift"].items()
        ],
        glossary=[METRIC_WORDS[name] for name in METRICS if name in METRIC_WORDS],
        settings=[(name, flattened(recipe)) for name, recipe in content["recipes"].items()],
        percent_confidence=f"{100 * content['evaluation']['confidence']:g}",
    )  # fmt: skip


def choice_table(content: Report) -> Table:
    """Return what the choice rests on: calibration NLL, how far that lies above the least, and speed."""
    columns = (
        Column("NLL", "calibration texts", "lower", "under a calibrator that was fitted without the text"),
        Column("above the least", "paired", "lower", "with its interval"),
        Column("p", "", "", "of no difference, corrected for their number (Holm)"),
        Column("texts a second", "", "higher", "measured one after another on this machine"),
        Column("", "", "", ""),
    )
    return Table(columns, tuple(_choice_row(content, name) for name in content["choice"]))


def _choice_row(content: Report, name: str) -> Row:
    own = content["choice"][name]
    behind, p = own["behind"], own["behind"]["adjusted_p"]
    best, chosen = name == content["best"], name == content["shipped"]
    standing = "least NLL" if best else "as good" if own["as_good"] else "truly worse"
    cells = (
        Cell(number("nll", own["nll"])),
        Cell(UNDEFINED) if best else plain_cell("nll", behind),
        Cell(p_value(p)),
        Cell(cost("rows_per_second", own["rows_per_second"])),
        Cell(f"{standing}, recommended" if chosen else standing),
    )
    return Row(name, family(own["kind"]), chosen, cells)


def pareto_plot(content: Report) -> Drawing:
    """Draw the test NLL of every candidate, with its interval, against the texts a second that it answers.

    A line joins those that no other one beats in both.
    """
    points = _points(content)

    def draw(figure: Any, palette: Palette) -> None:
        axes = figure.subplots()
        for name, (speed, nll) in points.items():
            shade = palette[family(content["choice"][name]["kind"])]
            chosen = name == content["shipped"]
            ends = [[nll["value"] - nll["low"]], [nll["high"] - nll["value"]]]
            axes.errorbar(
                [speed], [nll["value"]], yerr=ends, fmt="D" if chosen else "o", color=shade,
                markersize=9 if chosen else 6, elinewidth=1.1, zorder=3,
            )  # fmt: skip
            axes.annotate(
                cut(name, 34), (speed, nll["value"]), xytext=(7, 5), textcoords="offset points",
                fontsize=8, color=palette["ink"], fontweight="bold" if chosen else "normal",
            )  # fmt: skip
        line = [points[name] for name in front(content)]
        axes.plot(
            [speed for speed, _ in line], [nll["value"] for _, nll in line],
            color=palette["soft"], linewidth=1, dashes=(4, 3), zorder=1,
        )  # fmt: skip
        axes.set_xscale("log")
        axes.margins(x=0.28, y=0.12)
        axes.set(xlabel="texts a second", ylabel="NLL on the test texts")
        axes.grid(visible=True, which="both")

    rows: list[dict[str, Any]] = [
        {"candidate": name, "rows_per_second": speed, **nll} for name, (speed, nll) in points.items()
    ]
    return Drawing("pareto", "NLL against texts a second", (7.4, 4.2), draw, rows)


def front(content: Report) -> list[str]:
    """Return the candidates that no other one beats in both NLL and speed, the slowest first."""
    known = {name: (speed, nll["value"]) for name, (speed, nll) in _points(content).items()}
    beaten = {
        name
        for name, (speed, nll) in known.items()
        for fast, less in known.values()
        if fast >= speed and less <= nll and (fast, less) != (speed, nll)
    }
    return sorted((name for name in known if name not in beaten), key=lambda name: float(known[name][0]))


def _points(content: Report) -> dict[str, tuple[float, Mapping[str, Any]]]:
    """Return texts a second and test NLL of the candidates that have both."""
    return {
        name: (own["rows_per_second"], nll)
        for name, own in content["choice"].items()
        if own["rows_per_second"] and (nll := content["systems"][name]["nll"])["value"] is not None
    }


def _coloured(content: Report, table: Table | None) -> Table | None:
    """Return a table whose rows have the colours of the candidates' kinds."""
    if table is None:
        return None
    rows = (replace(row, family=family(content["choice"][row.name]["kind"])) for row in table.rows)
    return replace(table, rows=tuple(rows))


def _facts(content: Report) -> str:
    rows = content["rows"]
    systems = len(content["recipes"])
    return (
        f"{systems} systems, {len(content['choice'])} candidates · {count(rows['train'])} texts to train on, "
        f"{count(rows['calibration'])} to calibrate and choose on, {count(rows['test'])} to test"
    )
