"""How well each score of the unknown tells the texts of other domains: its figures, and their table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from credibly.report.comparisons import Answers
from credibly.report.views import Cell, Column, Row, Table
from credibly.report.wording import SCORE_WORDS, bracket, number, with_interval
from credibly.uncertainty.scoring.resampling import Resampling
from credibly.uncertainty.unknown.separation import separations
from credibly.uncertainty.unknown.shift import FIXED, Scores, answer_scores

Report = Mapping[str, Any]

METRIC_OF = {"auroc": "ood_auroc", "fpr95": "accuracy"}
"""As which metric each figure is written."""


def unknown(
    shipped: str,
    on_test: Answers,
    shifted: Mapping[str, Answers],
    strangeness: Mapping[str, Scores],
    resampling: Resampling,
) -> dict[str, Any]:
    """Return how well each score tells each shift set's texts from the test texts.

    Args:
        shipped: the system whose answers are scored.
        on_test: the systems' answers on the test texts.
        shifted: those on each shift set.
        strangeness: scores of embeddings, for ``test`` and each shift set, where they are known.
        resampling: of the intervals.

    Returns:
        `score`, the one that was fixed beforehand, None where it is not known; and `shift`: figures by
        set and score.
    """
    inside = {**answer_scores(on_test[shipped][0]), **strangeness.get("test", {})}
    found = {
        split: separations(
            inside, {**answer_scores(given[shipped][0]), **strangeness.get(split, {})}, **asdict(resampling)
        )
        for split, given in shifted.items()
        if shipped in given
    }
    return {
        "score": FIXED if FIXED in inside else None,
        "shift": {
            split: {name: own.as_json() for name, own in scores.items()} for split, scores in found.items()
        },
    }


def unknown_table(report: Report) -> Table | None:
    """Return scores x domains; None where there are no other domains."""
    content = report.get("unknown", {"shift": {}})
    domains = content["shift"]
    if not domains:
        return None
    chance = "the chance that a text of it scores above a test text; higher is better, 0.5 tells nothing"
    passing = "share of its texts that pass as known where 95 % of the test texts do; lower is better"
    columns = [
        column
        for domain in domains
        for column in (
            Column(domain, "AUROC", "", chance),
            Column(domain, "% unnoticed", "", passing),
        )
    ]
    rows = [_row(name, domains, name == content["score"]) for name in next(iter(domains.values()))]
    return Table(tuple(columns), tuple(rows))


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


def _row(name: str, domains: Mapping[str, Any], fixed: bool) -> Row:
    figures = [(metric, found[name][key]) for found in domains.values() for key, metric in METRIC_OF.items()]
    cells = [Cell(number(metric, own["value"], False), bracket(metric, own)) for metric, own in figures]
    label = SCORE_WORDS.get(name, (name, ""))[0]
    return Row(f"{label}, fixed beforehand" if fixed else label, "", False, tuple(cells))
