"""How well the score of the unknown that was fixed beforehand tells a domain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from credibly.report.figures.types import Report
from credibly.report.words.metrics import SCORE_WORDS
from credibly.report.words.numbers import with_interval


def fixed_figures(report: Report, domain: str) -> Mapping[str, Any] | None:
    """Return the figures of the score that was fixed beforehand on a shift set; None where unknown."""
    content = report.get("unknown", {"score": None})
    if content["score"] is None or domain not in content["shift"]:
        return None
    found: Mapping[str, Any] = content["shift"][domain][content["score"]]
    return found


def fixed_in_words(report: Report, domain: str) -> list[str]:
    """Say how well the score that was fixed beforehand tells a domain; nothing where it is not known."""
    figures = fixed_figures(report, domain)
    if figures is None or figures["auroc"]["value"] is None:
        return []
    label = SCORE_WORDS[report["unknown"]["score"]][0].lower()
    return [
        f"By {label} the AUROC is {with_interval('ood_auroc', figures['auroc'])}, and "
        f"{with_interval('accuracy', figures['fpr95'])} of them would pass as known."
    ]
