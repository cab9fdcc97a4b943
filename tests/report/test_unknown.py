"""Scores of the unknown in the report: every one of them, for every shift set, the fixed one marked."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from credibly.report import render_html
from credibly.report.figures.systems import answered
from credibly.report.tables.unknown import unknown_table
from credibly.report.terminal.report import _shift_lines
from credibly.uncertainty.unknown.shift import ANSWER_SCORES, EMBEDDING_SCORES, FIXED, answer_scores
from report.samples import built


@pytest.fixture(scope="module")
def strangeness(run: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Made-up scores of embeddings, those of tweets a little higher."""
    random = np.random.default_rng(0)
    return {
        split: {
            name: random.normal(split == "tweets", 1, len(run["stored"]["members"][split].ids))
            for name in EMBEDDING_SCORES
        }
        for split in ("test", *run["shift_splits"])
    }


@pytest.fixture(scope="module")
def embedded(run: dict[str, Any], strangeness: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return built({**run, "strangeness": strangeness})


def test_every_score_has_its_figures(
    run: dict[str, Any], embedded: dict[str, Any], strangeness: dict[str, dict[str, Any]]
) -> None:
    shipped = embedded["shipped"]
    test, tweets = (
        {
            **answer_scores(answered(run["stored"], split, run["calibrators"])[shipped][0]),
            **strangeness[split],
        }
        for split in ("test", "tweets")
    )
    found = embedded["unknown"]["shift"]["tweets"]
    assert list(found) == [*ANSWER_SCORES, *EMBEDDING_SCORES]
    outside = np.repeat([0, 1], [260, 150])
    for name, figures in found.items():
        expected = roc_auc_score(outside, np.concatenate([test[name], tweets[name]]))
        assert figures["auroc"]["value"] == pytest.approx(expected)
        # All but 5 % of the 260 test texts: 13 of them.
        passing = np.mean(tweets[name] <= np.sort(test[name])[-14])
        assert figures["fpr95"]["value"] == pytest.approx(passing)
        assert figures["auroc"]["low"] <= figures["auroc"]["value"] <= figures["auroc"]["high"]


def test_without_embeddings_the_answers_scores_stand_alone(binary: dict[str, Any]) -> None:
    assert binary["unknown"]["score"] is None
    assert list(binary["unknown"]["shift"]["tweets"]) == list(ANSWER_SCORES)
    table = unknown_table(binary)
    assert table is not None
    assert not any("fixed" in row.name for row in table.rows)


def test_the_table_marks_the_fixed_score_and_has_two_figures_a_domain(embedded: dict[str, Any]) -> None:
    table = unknown_table(embedded)
    assert table is not None
    assert [(column.label, column.unit) for column in table.columns] == [
        (domain, unit) for domain in ("tweets", "unknown") for unit in ("AUROC", "% unnoticed")
    ]
    (marked,) = (row for row in table.rows if "fixed beforehand" in row.name)
    assert not any(row.shipped for row in table.rows)
    figures = embedded["unknown"]["shift"]["tweets"][FIXED]
    assert marked.cells[0].main == f"{figures['auroc']['value']:.3f}"
    assert marked.cells[1].main == f"{100 * figures['fpr95']['value']:.1f}"
    assert all(len(row.cells) == 4 for row in table.rows)


@pytest.mark.slow
def test_the_page_and_the_terminal_and_the_findings_show_it(embedded: dict[str, Any]) -> None:
    auroc = embedded["unknown"]["shift"]["tweets"][FIXED]["auroc"]
    page = render_html(embedded)
    assert "What notices that a text is of another domain" in page
    assert f"{auroc['value']:.3f}" in page
    line = next(line for line in _shift_lines(embedded) if line[0] == "tweets")
    assert line[-1].startswith(f"{auroc['value']:.3f} [")
    said = next(finding for finding in embedded["findings"] if finding.startswith("On tweets"))
    assert f"the AUROC is {auroc['value']:.3f} [" in said
    assert "would pass as known" in said


@pytest.mark.slow
def test_a_report_of_an_earlier_version_has_no_such_table(binary: dict[str, Any]) -> None:
    old = copy.deepcopy(binary)
    del old["unknown"]
    assert unknown_table(old) is None
    assert "What notices" not in render_html(old)
    assert [line[0] for line in _shift_lines(old)] == ["tweets", "unknown"]
