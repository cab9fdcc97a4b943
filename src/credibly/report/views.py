"""What the page shows, laid out from report.json: rows of cells, strips of opinions, scales.

Plain data for the template; texts in it are not yet escaped, the template does that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from credibly.report.drawing import family
from credibly.report.verdicts import Verdict
from credibly.report.wording import (
    COST_METRICS,
    UNDEFINED,
    Figure,
    bracket,
    cost,
    higher_is_better,
    number,
    words_of,
)

Report = Mapping[str, Any]


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


def systems_table(
    systems: Mapping[str, Mapping[str, Any]],
    metrics: Sequence[str],
    shipped: str,
    leaders: Mapping[str, Sequence[str]] | None = None,
    forest: bool = False,
    verdicts: Mapping[str, Mapping[str, Verdict]] | None = None,
) -> Table:
    """Return systems x metrics; a metric that is undefined for every system has no column."""
    shown = [name for name in metrics if any(_value(scores, name) is not None for scores in systems.values())]
    scales = {metric: _scale(systems.values(), metric) for metric in shown}
    rows = tuple(
        Row(
            name,
            family(name),
            name == shipped,
            tuple(
                cell(
                    metric,
                    scores.get(metric),
                    name in (leaders or {}).get(metric, ()),
                    scales[metric] if forest else None,
                    (verdicts or {}).get(name, {}).get(metric),
                )
                for metric in shown
            ),
        )
        for name, scores in systems.items()
    )
    return Table(tuple(column(metric, higher_is_better(metric)) for metric in shown), rows)


def classes_table(systems: Mapping[str, Mapping[str, Any]], system: str, classes: Sequence[str]) -> Table:
    """Return a system's precision and recall by class."""
    figures = systems[system]["classes"]
    rows = tuple(
        Row(name, "", False, tuple(cell(metric, figures[name][metric]) for metric in ("precision", "recall")))
        for name in classes
        if name in figures
    )
    return Table(tuple(column(metric, True) for metric in ("precision", "recall")), rows)


def by_class_table(
    systems: Mapping[str, Mapping[str, Any]], metric: str, shipped: str, classes: Sequence[str]
) -> Table:
    """Return systems x classes: the precision or the recall of each class."""
    rows = tuple(
        Row(
            name,
            family(name),
            name == shipped,
            tuple(cell(metric, scores["classes"][class_name][metric]) for class_name in classes),
        )
        for name, scores in systems.items()
    )
    words = words_of(metric)
    return Table(tuple(Column(name, "%", "higher", words.meaning) for name in classes), rows)


def costs_table(systems: Mapping[str, Mapping[str, Any]], shipped: str) -> Table | None:
    """Return systems x costs, or None where no cost is known; systems of unknown cost have no row."""
    known = {
        name: [_value(scores, metric) for metric in COST_METRICS]
        for name, scores in systems.items()
        if any(_value(scores, metric) is not None for metric in COST_METRICS)
    }
    columns = (
        Column("Training", "", "lower", "seconds of training, all members together"),
        Column("Parameters", "", "lower", "parameters that an answer needs"),
        Column("Size", "", "lower", "bytes of weights on disk"),
        Column("Texts a second", "", "higher", "texts answered a second on the machine of this run"),
    )
    rows = tuple(
        Row(
            name,
            family(name),
            name == shipped,
            tuple(Cell(cost(*pair)) for pair in zip(COST_METRICS, values, strict=True)),
        )
        for name, values in known.items()
    )
    return Table(columns, rows) if rows else None


@dataclass(frozen=True)
class Lane:
    """One line of a strip: who, the probabilities as places from 0 to 1, and these in words."""

    who: str
    shape: str
    family: str
    places: tuple[float, ...]
    beside: str


@dataclass(frozen=True)
class Strip:
    """Everybody's probability of one class on one axis from 0 to 1."""

    class_name: str
    lanes: tuple[Lane, ...]


def strips(text: Mapping[str, Any], classes: Sequence[str]) -> list[Strip]:
    """Return the strips of a compared text: the second class of two, else up to three classes that matter.

    Of three classes or more: the two that the ensemble finds most probable, and the true one.
    """
    probabilities = text["ensemble"]["probabilities"]
    ranked = sorted(range(len(classes)), key=lambda index: -probabilities[index])
    shown = [1] if len(classes) == 2 else ranked[:2]
    if len(classes) > 2 and text["label"] in classes and classes.index(text["label"]) not in shown:
        shown.append(classes.index(text["label"]))
    return [_strip(text, classes[index], index) for index in shown]


def _strip(text: Mapping[str, Any], class_name: str, index: int) -> Strip:
    members = tuple(member[index] for member in text["members"])
    span = "–".join(dict.fromkeys((f"{min(members):.2f}", f"{max(members):.2f}")))
    lanes = [Lane("members" if len(members) > 1 else "member", "dot", "single", members, span)]
    for who, shape in (("ensemble", "diamond"), ("student", "triangle")):
        if text[who] is not None:
            place = text[who]["probabilities"][index]
            lanes.append(Lane(who, shape, who, (place,), f"{place:.2f}"))
    if text["people"] is not None:
        place = text["people"][index]
        lanes.append(Lane("people", "square", "people", (place,), f"{place:.2f}"))
    return Strip(class_name, tuple(lanes))


def spoken(strip: Strip) -> str:
    """Say a strip in words, for those who hear the page."""
    parts = ", ".join(f"{lane.who} {lane.beside}" for lane in strip.lanes)
    return f"probability of {strip.class_name}: {parts}"


def flattened(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested settings as dotted keys with their values as text."""
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            rows += flattened(value, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", _setting(value)))
    return rows


def _setting(value: object) -> str:
    if value is None or value in ([], {}):
        return UNDEFINED
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _value(scores: Mapping[str, Any], metric: str) -> float | None:
    found: float | None = (scores.get(metric) or {}).get("value")
    return found


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


def _scale(systems: Iterable[Mapping[str, Any]], metric: str) -> tuple[float, float]:
    """Return the least and greatest end of a column's intervals."""
    figures = [scores[metric] for scores in systems if _value(scores, metric) is not None]
    lows = [figure["value"] if figure["low"] is None else figure["low"] for figure in figures]
    highs = [figure["value"] if figure["high"] is None else figure["high"] for figure in figures]
    return min(lows), max(highs)


def _forest(figure: Figure, scale: tuple[float, float] | None) -> Forest | None:
    if scale is None or scale[0] >= scale[1] or figure["low"] is None or figure["high"] is None:
        return None
    low, width = scale[0], scale[1] - scale[0]
    places = (100 * (figure[end] - low) / width for end in ("low", "value", "high"))
    return Forest(*(round(place, 1) for place in places))
