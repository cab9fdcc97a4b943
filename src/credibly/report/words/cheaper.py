"""Findings on other ways back into one network: soft labels, one head a member, the mean of the weights."""

from __future__ import annotations

from collections.abc import Iterator

from credibly.report.figures.types import Report
from credibly.report.words.claims import Finding, changes_of, compare, in_hundredths, judged
from credibly.report.words.text import capital
from credibly.report.words.verdicts import Verdict
from credibly.uncertainty.systems import CALIBRATED

WAYS = {
    "soft_labels": "plain soft-label distillation",
    "hydra": "one head a member",
    "soup": "the mean of the members' weights",
    "greedy_soup": "the mean of chosen members' weights",
}
"""Systems that learn from the ensemble, or are made of it, with less."""
SOUPS = ("soup", "greedy_soup")


def cheaper_ways(report: Report) -> Iterator[Finding]:
    """Say how the student stands against other ways back into one network, and one member against soups."""
    against = [_against_the_student(report, name, words) for name, words in WAYS.items()]
    against += [_against_one_member(report, name, WAYS[name]) for name in SOUPS]
    yield from filter(None, against)


def _against_the_student(report: Report, name: str, words: str) -> Finding | None:
    pair = ("student+temperature", f"{name}+temperature")
    first, second = pair if all(one in report["systems"] for one in pair) else ("student", name)
    claims: dict[Verdict, str] = {
        "better": f"The student beats {words}.",
        "equal": f"{capital(words)} ties with the student.",
        "worse": f"{capital(words)} beats the student.",
    }
    return judged(report, first, second, claims, _doubt(report, name))


def _doubt(report: Report, name: str) -> str:
    """Return how a network's epistemic uncertainty goes with the ensemble's; empty where it has none."""
    figure = report.get("agreements", {}).get(name, {}).get("epistemic")
    if figure is None or figure["low"] is None:
        return ""
    return f"Rank correlation of its epistemic uncertainty with the ensemble's: {in_hundredths(figure)}."


def _against_one_member(report: Report, name: str, words: str) -> Finding | None:
    """Say whether members have a mean at all: started apart, they may not.

    A mean of logits that point apart is less sure than it may be, so that its temperature is told beside it.
    """
    claims: dict[Verdict, str] = {
        "better": f"Before any temperature {words} beats one member.",
        "equal": f"Before any temperature {words} equals one member within the interval.",
        "worse": f"Before any temperature {words} is worse than one member.",
    }
    calibrated = f"{name}{CALIBRATED}"
    after = compare(report, calibrated, "single")
    more = f"{calibrated} against single: {changes_of(after)}" if after else ""
    return judged(report, name, "single", claims, more)
