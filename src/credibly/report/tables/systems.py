"""The tables of systems: their figures, by class, their costs and differences, and other domains."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from credibly.report.figures.metrics import COST_METRICS, MAIN_METRICS, SHIFT_METRICS, higher_is_better
from credibly.report.figures.types import Report
from credibly.report.tables.cells import Cell, Column, Row, Table, cell, column
from credibly.report.tables.families import family
from credibly.report.words.metrics import METRIC_WORDS, words_of
from credibly.report.words.numbers import cost, count, difference, p_value
from credibly.report.words.verdicts import Verdict, against_shipped


def main_table(report: Report) -> Table:
    """Return every system's main figures, each with its verdict against the shipped one."""
    return systems_table(
        report["systems"], MAIN_METRICS, report["shipped"], report["leaders"],
        forest=True, verdicts=against_shipped(report),
    )  # fmt: skip


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


def comparisons_table(report: Report) -> Table | None:
    """Return the paired differences, pairs x metrics; None where nothing was compared."""
    pairs = report["comparisons"]
    if not pairs:
        return None
    metrics = list(next(iter(pairs.values())))
    columns = systems_table(report["systems"], metrics, "", {}).columns
    shown = [name for name in metrics if any(column.label == METRIC_WORDS[name].label for column in columns)]
    rows = tuple(
        Row(
            pair.replace(" - ", " − "),
            "",
            False,
            tuple(_difference(metric, figures[metric]) for metric in shown),
        )
        for pair, figures in pairs.items()
    )
    return Table(columns, rows)


def shift_summary(report: Report) -> Table | None:
    """Return the shipped system's figures by domain, the test texts first; None without shift sets."""
    shipped = report["shipped"]
    found = {domain: scores[shipped] for domain, scores in report["shift"].items() if shipped in scores}
    if not found:
        return None
    domains = {f"test ({count(report['rows']['test'])})": report["systems"][shipped]}
    domains.update(
        {f"{domain} ({count(report['rows'][domain])})": scores for domain, scores in found.items()}
    )
    table = systems_table(domains, SHIFT_METRICS, "", forest=True)
    own = family(shipped)
    return Table(table.columns, tuple(Row(row.name, own, False, row.cells) for row in table.rows))


def _difference(metric: str, figure: Mapping[str, Any]) -> Cell:
    value, _, interval = difference(metric, figure).replace(" points", "").partition(" ")
    p = figure.get("adjusted_p")
    return Cell(value, interval, "" if p is None else f"p {p_value(p)}")


def _value(scores: Mapping[str, Any], metric: str) -> float | None:
    found: float | None = (scores.get(metric) or {}).get("value")
    return found


def _scale(systems: Iterable[Mapping[str, Any]], metric: str) -> tuple[float, float]:
    """Return the least and greatest end of a column's intervals."""
    figures = [scores[metric] for scores in systems if _value(scores, metric) is not None]
    lows = [figure["value"] if figure["low"] is None else figure["low"] for figure in figures]
    highs = [figure["value"] if figure["high"] is None else figure["high"] for figure in figures]
    return min(lows), max(highs)
