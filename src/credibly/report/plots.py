"""The report's plots: matplotlib to inline SVG whose colours are CSS variables.

Every figure is drawn in placeholder colours, one a variable of the page's style sheet, so that one SVG
reads in light and in dark. Text stays text, ids carry the figure's name (several SVGs share a page),
and equal input gives equal bytes.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from credibly.report.extras import optional
from credibly.uncertainty.systems import bare_name

FAMILIES = ("single", "ensemble", "majority_vote", "direct", "soft_labels", "student", "other")
"""Families of systems, each with a colour, whatever calibrates them."""

# Placeholder colours, replaced by CSS variables when the SVG is written.
INK, SOFT, GRID = "#000001", "#000002", "#000003"
_FAMILY_COLOURS = {family: f"#0000{index:02x}" for index, family in enumerate(FAMILIES, start=16)}
_VARIABLES = {
    INK: "var(--ink)",
    SOFT: "var(--soft)",
    GRID: "var(--grid)",
    **{colour: f"var(--{family.replace('_', '-')})" for family, colour in _FAMILY_COLOURS.items()},
}

_STYLE = {
    "svg.hashsalt": "credibly",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9,
    "axes.edgecolor": GRID,
    "axes.labelcolor": SOFT,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": False,
    "text.color": INK,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": SOFT,
    "ytick.labelcolor": SOFT,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
}


def family(system: str) -> str:
    """Return the family whose colour a system has.

    >>> family("student+temperature"), family("members/42"), family("label_smoothing")
    ('student', 'ensemble', 'other')
    """
    name = bare_name(system).partition("/")[0]
    if name in ("members", "mean_logits"):
        return "ensemble"
    return name if name in FAMILIES else "other"


def colour(system: str) -> str:
    """Return the placeholder colour of a system's family."""
    return _FAMILY_COLOURS[family(system)]


def reliability_plot(systems: Mapping[str, Sequence[Mapping[str, float]]], classes: int) -> str:
    """Draw a family's reliability diagram: accuracy against confidence with intervals, and a histogram.

    The last system is drawn full, with the histogram of its confidences; one before it (the same
    without temperature) hollow.

    Args:
        systems: one or two systems of a family with their bins, as `curves.reliability` gives them.
        classes: C; the least confidence that a top label can have is 1 / C.
    """
    names = list(systems)

    def draw(figure: Any) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
        everything = [bin for bins in systems.values() for bin in bins]
        least = min([1 / classes, *(bin["confidence"] for bin in everything)])
        floor = max(0.0, min([least, *(bin["accuracy"] - 0.03 for bin in everything)]))
        upper.plot([least, 1], [least, 1], color=SOFT, linewidth=1, dashes=(3, 3), zorder=1)
        for name in names:
            _dots(upper, systems[name], colour(name), full=name == names[-1])
        upper.set(ylim=(floor - 0.02, 1.02), ylabel="accuracy")
        bins = systems[names[-1]]
        rows = sum(bin["count"] for bin in bins) or 1
        places, shares = [bin["confidence"] for bin in bins], [bin["count"] / rows for bin in bins]
        lower.bar(places, shares, width=0.035, color=colour(names[-1]), alpha=0.55)
        lower.set(xlim=(least - 0.02, 1.02), xlabel="confidence", ylabel="texts")
        for axes in (upper, lower):
            axes.grid(visible=True)
            _in_percent(axes)
        lower.yaxis.set_major_locator(optional("matplotlib.ticker").MaxNLocator(2))

    return svg(f"reliability-{names[-1]}", (3.3, 3.1), draw)


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


def risk_coverage_plot(curves: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Draw risk against coverage, a line a system; the line's key is the page's own legend."""

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for name, points in curves.items():
            x = [point["coverage"] for point in points]
            axes.plot(x, [point["risk"] for point in points], color=colour(name), linewidth=1.7, label=name)
        shaded = list(curves)[-1]
        axes.fill_between(
            [point["coverage"] for point in curves[shaded]],
            [point["low"] for point in curves[shaded]],
            [point["high"] for point in curves[shaded]],
            color=colour(shaded), alpha=0.14, linewidth=0,
        )  # fmt: skip
        # The first few texts alone have intervals up to 1; they must not flatten the rest.
        highest = max(
            point["risk"] for points in curves.values() for point in points if point["coverage"] > 0.04
        )
        axes.set(xlim=(0, 1.005), ylim=(0, highest * 1.18 or 0.01))
        axes.set(xlabel="texts answered, most certain first", ylabel="wrong answers")
        axes.grid(visible=True)
        _in_percent(axes)

    return svg("risk-coverage", (5.2, 3.2), draw)


def uncertainty_plot(
    kind: str, domains: Mapping[str, Mapping[str, Mapping[str, Any]]], short: bool = False
) -> str:
    """Draw one kind of uncertainty by domain: 5-95 %, 25-75 % and the median of each system's rows.

    Args:
        kind: total, aleatoric or epistemic.
        domains: {domain: {system: {kind: quantiles}}} as report.json holds them.
        short: whether the domains' names are left out of the axis.
    """

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for place, systems in enumerate(domains.values()):
            for index, (system, kinds) in enumerate(systems.items()):
                at = kinds[kind]
                if at["0.5"] is None:
                    continue
                y = place + (index - (len(systems) - 1) / 2) * 0.3
                axes.plot([at["0.05"], at["0.95"]], [y, y], color=colour(system), linewidth=1.3)
                axes.plot([at["0.25"], at["0.75"]], [y, y], color=colour(system), linewidth=5.5, alpha=0.6)
                axes.plot([at["0.5"]], [y], "o", color=colour(system), markersize=5.5)
        axes.set_yticks(range(len(domains)), ["" if short else cut(domain, 18) for domain in domains])
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.set(ylim=(len(domains) - 0.5, -0.5), xlabel=f"{kind}, nats")
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(optional("matplotlib.ticker").MaxNLocator(4))
        axes.grid(visible=True, axis="x")
        axes.spines["left"].set_visible(False)

    return svg(f"uncertainty-{kind}", (3.3, 0.75 + 0.45 * len(domains)), draw)


def history_plot(histories: Mapping[str, Mapping[str, Sequence[float | None]]], column: str) -> str:
    """Draw one column of the training histories against the step, a line a network."""

    def draw(figure: Any) -> None:
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
                color=colour(name), linewidth=1.0 if thin else 1.6, alpha=0.55 if thin else 1.0,
                marker="o" if len(points) < 3 else None,
            )  # fmt: skip
        across = "step" if any("step" in columns for columns in histories.values()) else "epoch"
        axes.set(xlabel=across, ylabel=column.replace("_", " "))
        axes.set_ylim(bottom=0)
        axes.grid(visible=True)

    return svg(f"history-{column}", (4.2, 2.7), draw)


def svg(name: str, inches: tuple[float, float], draw: Any) -> str:
    """Return a drawing as an inline SVG element that the page's style sheet colours.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    matplotlib, figures = optional("matplotlib"), optional("matplotlib.figure")
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # The browser's fonts are used, so that ours lacks a letter of a name does not matter.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = figures.Figure(figsize=inches, layout="constrained")
        figure.patch.set_alpha(0)
        draw(figure)
        for axes in figure.axes:
            axes.patch.set_alpha(0)
        target = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(target, format="svg", transparent=True, metadata=nothing)
    return inline(target.getvalue(), re.sub(r"[^a-z0-9]+", "-", name.lower()))


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


def cut(text: str, most: int) -> str:
    """Shorten a text to fit a place, and drop what no document may hold.

    >>> cut("a long name", 8)
    'a long …'
    """
    clean = "".join(letter for letter in text if letter.isprintable())
    return clean if len(clean) <= most else clean[: most - 1] + "…"


def _in_percent(axes: Any) -> None:
    """Label the axes in per cent."""
    ticker = optional("matplotlib.ticker")
    axes.xaxis.set_major_formatter(ticker.PercentFormatter(1.0, decimals=0))
    axes.yaxis.set_major_formatter(ticker.PercentFormatter(1.0, decimals=0))
