"""The report's plots, each with its data: what is drawn, in the colours of whatever palette."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from credibly.report.figures.learning import SYSTEM
from credibly.report.page.drawing import Drawing, Palette, cut, in_percent, tick
from credibly.report.page.extras import optional
from credibly.report.tables.families import family
from credibly.report.words.metrics import words_of
from credibly.report.words.numbers import count


def reliability_plot(systems: Mapping[str, Sequence[Mapping[str, float]]], classes: int) -> Drawing:
    """Draw a family's reliability diagram: accuracy against confidence with intervals, and a histogram.

    The last system is drawn full, with the histogram of its confidences; one before it (the same
    without temperature) hollow.

    Args:
        systems: one or two systems of a family with their bins, as `curves.reliability` gives them.
        classes: C; the least confidence that a top label can have is 1 / C.
    """
    names = list(systems)

    def draw(figure: Any, palette: Palette) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
        everything = [bin for bins in systems.values() for bin in bins]
        least = min([1 / classes, *(bin["confidence"] for bin in everything)])
        floor = max(0.0, min([least, *(bin["accuracy"] - 0.03 for bin in everything)]))
        upper.plot([least, 1], [least, 1], color=palette["soft"], linewidth=1, dashes=(3, 3), zorder=1)
        for name in names:
            _dots(upper, systems[name], palette[family(name)], full=name == names[-1])
        upper.set(ylim=(floor - 0.02, 1.02), ylabel="accuracy")
        bins = systems[names[-1]]
        rows = sum(bin["count"] for bin in bins) or 1
        places, shares = [bin["confidence"] for bin in bins], [bin["count"] / rows for bin in bins]
        lower.bar(places, shares, width=0.035, color=palette[family(names[-1])], alpha=0.55)
        lower.set(xlim=(least - 0.02, 1.02), xlabel="confidence", ylabel="texts")
        for axes in (upper, lower):
            axes.grid(visible=True)
            in_percent(axes)
        lower.yaxis.set_major_locator(optional("matplotlib.ticker").MaxNLocator(2))

    return Drawing(
        f"reliability {names[-1]}",
        f"Do the probabilities of {names[-1]} hold?",
        (3.3, 3.1),
        draw,
        [{"system": name, **bin} for name, bins in systems.items() for bin in bins],
        {names[-1]: names[-1], **{f"{name} (hollow)": name for name in names[:-1]}},
    )


def _dots(axes: Any, bins: Sequence[Mapping[str, float]], shade: str, full: bool) -> None:
    """Draw the bins' accuracies with their intervals: full, or hollow and fainter."""
    x, y = [bin["confidence"] for bin in bins], [bin["accuracy"] for bin in bins]
    ends = [[bin["accuracy"] - bin["low"] for bin in bins], [bin["high"] - bin["accuracy"] for bin in bins]]
    drawn = axes.errorbar(
        x, y, yerr=ends, fmt="o", markersize=5, linewidth=0, elinewidth=1.7 if full else 0.9, color=shade,
        markerfacecolor=shade if full else "none", markeredgewidth=1.2, zorder=4 if full else 3,
    )  # fmt: skip
    if not full:
        for part in (drawn[0], *drawn[2]):
            part.set_alpha(0.65)


def risk_coverage_plot(curves: Mapping[str, Sequence[Mapping[str, float]]]) -> Drawing:
    """Draw risk against coverage, a line a system; the line's key is the page's own legend."""

    def draw(figure: Any, palette: Palette) -> None:
        axes = figure.subplots()
        for name, points in curves.items():
            x = [point["coverage"] for point in points]
            axes.plot(x, [point["risk"] for point in points], color=palette[family(name)], linewidth=1.7)
        shaded = list(curves)[-1]
        axes.fill_between(
            [point["coverage"] for point in curves[shaded]],
            [point["low"] for point in curves[shaded]],
            [point["high"] for point in curves[shaded]],
            color=palette[family(shaded)], alpha=0.14, linewidth=0,
        )  # fmt: skip
        # The first few texts alone have intervals up to 1; they must not flatten the rest.
        highest = max(
            point["risk"] for points in curves.values() for point in points if point["coverage"] > 0.04
        )
        axes.set(xlim=(0, 1.005), ylim=(0, highest * 1.18 or 0.01))
        axes.set(xlabel="texts answered, most certain first", ylabel="wrong answers")
        axes.grid(visible=True)
        in_percent(axes)

    rows: list[dict[str, Any]] = [
        {"system": name, **point} for name, points in curves.items() for point in points
    ]
    key = {name: name for name in curves}
    return Drawing("risk coverage", "Wrong answers by share answered", (5.2, 3.2), draw, rows, key)


def uncertainty_plot(
    kind: str, domains: Mapping[str, Mapping[str, Mapping[str, Any]]], short: bool = False
) -> Drawing:
    """Draw one kind of uncertainty by domain: 5-95 %, 25-75 % and the median of each system's rows.

    Args:
        kind: total, aleatoric or epistemic.
        domains: {domain: {system: {kind: quantiles}}} as report.json holds them.
        short: whether the domains' names are left out of the axis.
    """

    def draw(figure: Any, palette: Palette) -> None:
        axes = figure.subplots()
        for place, systems in enumerate(domains.values()):
            for index, (system, kinds) in enumerate(systems.items()):
                at = kinds[kind]
                if at["0.5"] is None:
                    continue
                y = place + (index - (len(systems) - 1) / 2) * 0.3
                shade = palette[family(system)]
                axes.plot([at["0.05"], at["0.95"]], [y, y], color=shade, linewidth=1.3)
                axes.plot([at["0.25"], at["0.75"]], [y, y], color=shade, linewidth=5.5, alpha=0.6)
                axes.plot([at["0.5"]], [y], "o", color=shade, markersize=5.5)
        axes.set_yticks(range(len(domains)), ["" if short else cut(domain, 18) for domain in domains])
        axes.tick_params(axis="y", length=0, labelcolor=palette["ink"])
        axes.set(ylim=(len(domains) - 0.5, -0.5), xlabel=f"{kind}, nats")
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(optional("matplotlib.ticker").MaxNLocator(4))
        axes.grid(visible=True, axis="x")
        axes.spines["left"].set_visible(False)

    rows: list[dict[str, Any]] = [
        {
            "domain": domain,
            "system": system,
            **{name if name == "mean" else f"quantile_{name}": at for name, at in kinds[kind].items()},
        }
        for domain, systems in domains.items()
        for system, kinds in systems.items()
    ]
    return Drawing(
        f"uncertainty {kind}",
        f"{kind.capitalize()} uncertainty by domain",
        (3.3, 0.75 + 0.45 * len(domains)),
        draw,
        rows,
        {row["system"]: row["system"] for row in rows},
    )


def history_plot(histories: Mapping[str, Mapping[str, Sequence[float | None]]], column: str) -> Drawing:
    """Draw one column of the training histories against the step, a line a network."""

    def draw(figure: Any, palette: Palette) -> None:
        axes = figure.subplots()
        for name, columns in histories.items():
            x = columns.get("step") or columns.get("epoch") or list(range(len(columns[column])))
            # Held-out rows are not measured at every step: a line joins the steps where they are.
            points = [pair for pair in zip(x, columns[column], strict=True) if None not in pair] or [
                (float("nan"), float("nan"))
            ]
            thin = name.startswith("members")
            axes.plot(
                *zip(*points, strict=True),
                color=palette[family(name)], linewidth=1.0 if thin else 1.6, alpha=0.55 if thin else 1.0,
                marker="o" if len(points) < 3 else None,
            )  # fmt: skip
        across = "step" if any("step" in columns for columns in histories.values()) else "epoch"
        axes.set(xlabel=across, ylabel=column.replace("_", " "))
        axes.set_ylim(bottom=0)
        axes.grid(visible=True)

    places = [name for name in ("step", "epoch") if any(name in columns for columns in histories.values())]
    rows: list[dict[str, Any]] = [
        {"network": name, **{kept: _at(columns, kept, row) for kept in (*places, column)}}
        for name, columns in histories.items()
        for row in range(len(columns[column]))
    ]
    title = f"{column.replace('_', ' ').capitalize()} while training"
    key = {name.partition("/")[0]: name for name in histories}
    return Drawing(f"history {column}", title, (4.2, 2.7), draw, rows, key)


def learning_plot(points: Sequence[Mapping[str, Any]], metric: str) -> Drawing:
    """Draw a figure of the ensemble with its interval against the number of training texts."""
    words = words_of(metric)

    def draw(figure: Any, palette: Palette) -> None:
        axes, ticker = figure.subplots(), optional("matplotlib.ticker")
        x, y = [point["rows"] for point in points], [point[metric]["value"] for point in points]
        ends = [
            [abs(point[metric][end] - point[metric]["value"]) for point in points] for end in ("low", "high")
        ]
        axes.errorbar(x, y, yerr=ends, fmt="-o", markersize=5, linewidth=1.4, color=palette[family(SYSTEM)])
        axes.set_xscale("log")
        axes.set_xticks(x, [count(rows) for rows in x])
        axes.xaxis.set_minor_locator(ticker.NullLocator())
        axes.set(xlabel="training texts", ylabel=words.label)
        axes.grid(visible=True)
        if words.percent:
            axes.yaxis.set_major_formatter(lambda share, _: tick(share))

    rows = [{"training_texts": point["rows"], **point[metric]} for point in points]
    return Drawing(
        f"learning {metric}", f"{words.label} by training texts", (4.2, 2.7), draw, rows, {SYSTEM: SYSTEM}
    )


def _at(columns: Mapping[str, Sequence[float | None]], column: str, row: int) -> float | None:
    return columns[column][row] if column in columns else None
