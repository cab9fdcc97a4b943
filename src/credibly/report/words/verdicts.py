"""Better, equal or worse: what a paired difference bears out, alone or among all of a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from credibly.report.figures.metrics import higher_is_better
from credibly.report.figures.types import Figure, Report

Verdict = Literal["better", "equal", "worse"]

SIGNS: Mapping[Verdict, str] = {"better": "▲", "equal": "=", "worse": "▼"}
"""What marks a figure against the reference's, in black and white too."""

WORDS: Mapping[Verdict, str] = {
    "better": "truly better",
    "equal": "equal within doubt",
    "worse": "truly worse",
}

KEY = ", ".join(f"{sign} {WORDS[kind]}" for kind, sign in SIGNS.items())
"""Every sign with its words."""

OPPOSITE: Mapping[Verdict, Verdict] = {"better": "worse", "equal": "equal", "worse": "better"}


def verdict(metric: str, figure: Figure | None) -> Verdict | None:
    """Say whether a difference (first - second) makes the first better, by its interval alone.

    >>> verdict("nll", {"value": -0.02, "low": -0.03, "high": -0.01})
    'better'
    >>> verdict("accuracy", {"value": -0.02, "low": -0.05, "high": 0.01})
    'equal'
    """
    if figure is None or figure["low"] is None or figure["high"] is None:
        return None
    if figure["low"] <= 0 <= figure["high"]:
        return "equal"
    return "better" if (figure["low"] > 0) == higher_is_better(metric) else "worse"


def against_shipped(report: Report) -> dict[str, dict[str, Verdict]]:
    """Say of every other system where it is better, equal or worse than the shipped one, by metric.

    By the p-values that are adjusted for all systems and metrics compared; nothing is said where a
    difference is undefined, or of a report that has none.
    """
    alpha, shipped = 1 - report["evaluation"]["confidence"], report["shipped"]
    return {
        name: {
            metric: OPPOSITE[outcome]
            for metric, figure in report["comparisons"].get(f"{shipped} - {name}", {}).items()
            if (outcome := adjusted_verdict(metric, figure, alpha))
        }
        for name in report["systems"]
    }


def adjusted_verdict(metric: str, figure: Figure, alpha: float) -> Verdict | None:
    """Say whether a difference (first - second) makes the first better, by its adjusted p-value.

    >>> adjusted_verdict("nll", {"value": -0.02, "adjusted_p": 0.01}, 0.05)
    'better'
    """
    if figure.get("adjusted_p") is None:
        return None
    if figure["adjusted_p"] >= alpha:
        return "equal"
    return "better" if (figure["value"] > 0) == higher_is_better(metric) else "worse"
