"""The table of how well each score of the unknown tells the texts of other domains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from credibly.report.figures.types import Report
from credibly.report.tables.cells import Column, Row, Table, plain_cell
from credibly.report.words.metrics import SCORE_WORDS

METRIC_OF = {"auroc": "ood_auroc", "fpr95": "accuracy"}
"""As which metric each figure is written."""


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


def _row(name: str, domains: Mapping[str, Any], fixed: bool) -> Row:
    figures = [(metric, found[name][key]) for found in domains.values() for key, metric in METRIC_OF.items()]
    cells = [plain_cell(metric, own) for metric, own in figures]
    label = SCORE_WORDS.get(name, (name, ""))[0]
    return Row(f"{label}, fixed beforehand" if fixed else label, "", False, tuple(cells))
