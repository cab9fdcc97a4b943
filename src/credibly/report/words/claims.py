"""What a finding is, and how a difference is put into words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from credibly.report.figures.types import Figure, Report
from credibly.report.words.metrics import words_of
from credibly.report.words.numbers import difference
from credibly.report.words.verdicts import Verdict, verdict

Mark = Literal["good", "equal", "bad", "noted"]

MARKS: Mapping[Verdict, Mark] = {"better": "good", "equal": "equal", "worse": "bad"}
MARK_SIGNS: Mapping[Mark, str] = {"good": "✓", "equal": "=", "bad": "✗", "noted": "i"}
MARK_WORDS: Mapping[Mark, str] = {
    "good": "borne out",
    "equal": "a tie",
    "bad": "a weakness",
    "noted": "noted",
}


@dataclass(frozen=True)
class Finding:
    """A claim with the figures that bear it out.

    Args:
        mark: good news, bad news, a tie, or a plain fact.
        claim: one sentence.
        evidence: the sentences after it, with figures and intervals.
        topic: what it is about, where a reader may want it elsewhere.
    """

    mark: Mark
    claim: str
    evidence: str
    topic: Literal["", "shift"] = ""

    @property
    def sentence(self) -> str:
        """Claim and evidence."""
        return f"{self.claim} {self.evidence}".strip()


def change(metric: str, figure: Figure | None) -> str:
    """Write a difference as a clause: lower by, higher by, or equal within the interval.

    >>> change("nll", {"value": -0.02, "low": -0.03, "high": -0.01})
    'NLL is lower by 0.020 [0.010, 0.030]'
    >>> change("accuracy", {"value": 0.002, "low": -0.01, "high": 0.012})
    'accuracy is equal within the interval (+0.2 points [-1.0, 1.2])'
    """
    label = _label(metric)
    if figure is None or figure["low"] is None:
        return f"{label} cannot be compared"
    if figure["low"] <= 0 <= figure["high"]:
        return f"{label} is equal within the interval ({difference(metric, figure)})"
    if figure["low"] > 0:
        return f"{label} is higher by {difference(metric, figure).removeprefix('+')}"
    positive = {"value": -figure["value"], "low": -figure["high"], "high": -figure["low"]}
    return f"{label} is lower by {difference(metric, positive).removeprefix('+')}"


def changes_of(compared: Mapping[str, Figure], of_nll: str = "") -> str:
    """Write how NLL and accuracy differ."""
    return f"{change('nll', compared['nll'])}{of_nll}; {change('accuracy', compared['accuracy'])}."


def _label(metric: str) -> str:
    label = words_of(metric).label
    return {"ECE, debiased": "debiased ECE"}.get(label, label if label.isupper() else label.lower())


def compare(report: Report, first: str, second: str) -> Mapping[str, Figure] | None:
    """Return the differences of two systems by metric; None where they were not compared."""
    found: Mapping[str, Figure] | None = report["comparisons"].get(f"{first} - {second}")
    return found


def judged(
    report: Report, first: str, second: str, claims: Mapping[Verdict, str], *further: str
) -> Finding | None:
    """Return what the NLL says of one system against another; None where they were not compared.

    Args:
        report: as `build_report` makes it.
        first: a system's name.
        second: another's.
        claims: what to say where the first is better, equal or worse.
        further: sentences behind the figures.
    """
    compared = compare(report, first, second)
    outcome = verdict("nll", compared["nll"]) if compared else None
    if compared is None or outcome is None:
        return None
    evidence = " ".join([f"{first} against {second}: {changes_of(compared)}", *filter(None, further)])
    return Finding(MARKS[outcome], claims[outcome], evidence)


def in_hundredths(figure: Figure) -> str:
    """Write a figure with its interval to two decimals."""
    return f"{figure['value']:.2f} [{figure['low']:.2f}, {figure['high']:.2f}]"
