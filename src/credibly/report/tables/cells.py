"""A table of figures as plain data: its columns, rows and cells, whatever renders it.

Texts in it are not yet escaped.
"""

from __future__ import annotations

from dataclasses import dataclass

from credibly.report.figures.types import Figure
from credibly.report.words.metrics import words_of
from credibly.report.words.numbers import UNDEFINED, bracket, number
from credibly.report.words.verdicts import Verdict


@dataclass(frozen=True)
class Forest:
    """A figure's place on its column's common scale, from 0 to 100.

    Args:
        low: left end of the interval.
        value: the dot.
        high: right end of the interval.
    """

    low: float
    value: float
    high: float


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Args:
        main: the figure.
        below: its interval, in small text.
        spread: the standard deviation over members, in small text.
        leads: whether no other system is better beyond the interval, and one at least is worse.
        forest: its place on the column's scale, where the table shows it.
        verdict: whether it is truly better than the shipped system's, or worse, or equal within doubt.
    """

    main: str
    below: str = ""
    spread: str = ""
    leads: bool = False
    forest: Forest | None = None
    verdict: Verdict | None = None


@dataclass(frozen=True)
class Row:
    """One row of a table: its name, the family whose colour it has, and its cells."""

    name: str
    family: str
    shipped: bool
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Column:
    """The head of a column: label, unit, which way is better ("" where neither is), and what it means."""

    label: str
    unit: str
    better: str
    meaning: str


@dataclass(frozen=True)
class Table:
    """A table of figures."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


def column(metric: str, higher: bool | None, label: str = "") -> Column:
    """Return the head of a metric's column.

    Args:
        metric: its name in the report.
        higher: whether higher is better; None where neither is.
        label: in place of the metric's own.
    """
    words = words_of(metric)
    better = "" if higher is None else "higher" if higher else "lower"
    return Column(label or words.label, "%" if words.percent else "", better, words.meaning)


def cell(
    metric: str,
    figure: Figure | None,
    leads: bool = False,
    scale: tuple[float, float] | None = None,
    verdict: Verdict | None = None,
) -> Cell:
    """Return a figure with its interval as a cell.

    Args:
        metric: its name in the report.
        figure: ``value``, ``low``, ``high`` and perhaps ``spread``; undefined where None.
        leads: whether no other system is better beyond the interval, and one at least is worse.
        scale: the least and greatest end of the column's intervals, where the table shows the figure's place.
        verdict: whether it is truly better than the shipped system's, or worse, or equal within doubt.
    """
    if figure is None or figure["value"] is None:
        return Cell(UNDEFINED)
    spread = figure.get("spread")
    return Cell(
        number(metric, figure["value"], False),
        bracket(metric, figure),
        f"±{number(metric, spread, False)}" if spread else "",
        leads,
        _forest(figure, scale),
        verdict,
    )


def plain_cell(metric: str, figure: Figure) -> Cell:
    """Return a figure with its interval alone as a cell."""
    return Cell(number(metric, figure["value"], False), bracket(metric, figure))


def _forest(figure: Figure, scale: tuple[float, float] | None) -> Forest | None:
    if scale is None or scale[0] >= scale[1] or figure["low"] is None or figure["high"] is None:
        return None
    low, width = scale[0], scale[1] - scale[0]
    places = (100 * (figure[end] - low) / width for end in ("low", "value", "high"))
    return Forest(*(round(place, 1) for place in places))
