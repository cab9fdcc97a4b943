"""The plots of what abstaining buys: accuracy by texts rejected, and sets of classes by coverage promised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from credibly.report.page.drawing import Drawing, Palette, in_percent
from credibly.report.page.extras import optional
from credibly.report.tables.families import family

Points = Sequence[Mapping[str, float]]

DASHES = {"total": (None, None), "aleatoric": (5, 2), "epistemic": (1.5, 1.5)}
"""One system has one colour: its kinds of uncertainty differ by their dashes."""
FEWEST_SHOWN = 0.04
"""The last few texts alone have accuracies of anything; they must not flatten the rest."""


def rejection_plot(system: str, kinds: Mapping[str, Points]) -> Drawing:
    """Draw accuracy against the share of texts rejected, a line a kind of uncertainty.

    Args:
        system: whose.
        kinds: points by kind, as `curves.rejection` gives them; a kind without points has no line.
    """
    drawn = {kind: points for kind, points in kinds.items() if points}

    def draw(figure: Any, palette: Palette) -> None:
        axes, shade = figure.subplots(), palette[family(system)]
        for kind, points in drawn.items():
            x, y = _column(points, "rejected"), _column(points, "accuracy")
            axes.plot(x, y, color=shade, linewidth=1.7, dashes=DASHES[kind], label=kind)
        first = next(iter(drawn.values()))
        ends = _column(first, "low"), _column(first, "high")
        axes.fill_between(_column(first, "rejected"), *ends, color=shade, alpha=0.14, linewidth=0)
        axes.axhline(first[0]["accuracy"], color=palette["soft"], linewidth=1, dashes=(3, 3), zorder=1)
        lowest = min(
            point["accuracy"]
            for points in drawn.values()
            for point in points
            if point["rejected"] < 1 - FEWEST_SHOWN
        )
        span = 1 - lowest
        axes.set(xlim=(0, 1.005), ylim=(lowest - 0.25 * span - 0.005, 1 + 0.03 * span + 1e-4))
        axes.set(xlabel="texts rejected, most uncertain first", ylabel="right answers among the rest")
        axes.legend(frameon=False, loc="lower right", title="rejected by", alignment="left")
        axes.grid(visible=True)
        in_percent(axes)

    rows: list[dict[str, Any]] = [
        {"uncertainty": kind, **point} for kind, points in drawn.items() for point in points
    ]
    return Drawing("rejection", f"{system}: right answers by share rejected", (4.2, 3.1), draw, rows)


def set_sizes_plot(system: str, sets: Sequence[Mapping[str, Any]]) -> Drawing:
    """Draw classes a set, and below it the coverage that came of it, against the coverage promised.

    Args:
        system: whose sets.
        sets: a mapping a promised coverage, as `promises.set_sizes` gives them.
    """

    def draw(figure: Any, palette: Palette) -> None:
        sizes, held = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1))
        shade, promised = palette[family(system)], [own["coverage_promised"] for own in sets]
        _dots(sizes, promised, [own["mean_size"] for own in sets], shade)
        sizes.set(ylabel="classes a set")
        sizes.set_ylim(bottom=0)
        expected = [own["expected"] for own in sets]
        held.fill_between(
            promised, _column(expected, "low"), _column(expected, "high"),
            color=palette["soft"], alpha=0.18, linewidth=0,
        )  # fmt: skip
        held.plot(promised, promised, color=palette["soft"], linewidth=1, dashes=(3, 3), zorder=1)
        _dots(held, promised, [own["coverage"] for own in sets], shade)
        held.set(xlabel="promised: sets that hold the right class", ylabel="came of it")
        for axes in (sizes, held):
            axes.grid(visible=True)
        in_percent(held)
        sizes.yaxis.set_major_locator(optional("matplotlib.ticker").MaxNLocator(4))

    title = f"{system}: sizes of prediction sets"
    return Drawing("set sizes", title, (4.2, 3.1), draw, [_flat(own) for own in sets])


def rejection_spoken(kinds: Mapping[str, Points]) -> str:
    """Return in words what `rejection_plot` shows: the accuracy with all, and without half of the texts."""
    half = {
        kind: min(points, key=lambda point: abs(point["rejected"] - 0.5))["accuracy"]
        for kind, points in kinds.items()
        if points
    }
    said = "; ".join(f"without the half of most {kind} {100 * share:.1f} %" for kind, share in half.items())
    return f"Right answers by share of texts rejected: {said}"


def set_sizes_spoken(sets: Sequence[Mapping[str, Any]]) -> str:
    """Return in words what `set_sizes_plot` shows."""
    said = "; ".join(
        f"{100 * own['coverage_promised']:g} % promised, {own['mean_size']['value']:.2f} classes"
        for own in sets
    )
    return f"Classes a set by the coverage promised: {said}"


def _dots(axes: Any, x: Sequence[float], figures: Sequence[Mapping[str, Any]], shade: str) -> None:
    """Draw figures with their intervals, joined by a line; an end that is not known is the figure itself."""
    y = _column(figures, "value")
    ends = [
        [
            0.0 if figure[end] is None else abs(value - figure[end])
            for value, figure in zip(y, figures, strict=True)
        ]
        for end in ("low", "high")
    ]
    axes.errorbar(x, y, yerr=ends, fmt="o-", color=shade, markersize=4, linewidth=1.2, elinewidth=1.1)


def _column(points: Sequence[Mapping[str, Any]], name: str) -> list[Any]:
    return [point[name] for point in points]


def _flat(figures: Mapping[str, Any]) -> dict[str, float | None]:
    """Return a figure's value under its own name and its ends beside it."""
    flat: dict[str, float | None] = {}
    for name, figure in figures.items():
        if isinstance(figure, Mapping):
            flat |= {
                name if end == "value" else f"{name}_{end}": figure[end] for end in ("value", "low", "high")
            }
        else:
            flat[name] = figure
    return flat
