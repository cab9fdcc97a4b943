"""What is called better or worse: p-values of paired differences, corrected, and the signs in the tables."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import binomtest, norm

from credibly.records import Interval
from credibly.report import print_report, render_html
from credibly.report.figures.comparisons import COMPARED_METRICS, SAMPLED, Paired, comparisons
from credibly.report.figures.p_values import p_value, sign_test
from credibly.report.page.content import parts
from credibly.report.words.verdicts import SIGNS, adjusted_verdict, against_shipped
from credibly.uncertainty.scoring.intervals import score_sampled
from credibly.uncertainty.scoring.resampling import Resampling
from credibly.uncertainty.scoring.slices import holm
from credibly.uncertainty.systems import answers
from uncertainty.cases import answer_of, predictions_of, random_answer


def test_a_p_value_is_below_the_level_where_the_interval_excludes_zero() -> None:
    assert p_value(Interval(0.2, 0.0, 0.5), 0.95) == pytest.approx(0.05)
    assert p_value(Interval(-0.3, -0.4, 0.0), 0.9) == pytest.approx(0.1)
    half = norm.ppf(0.975)
    assert p_value(Interval(3.0, 3 - half, 3 + half), 0.95) == pytest.approx(2 * norm.sf(3))
    assert p_value(Interval(0.2, -0.1, 0.3), 0.95) > 0.05
    assert p_value(Interval(0.2, 0.1, 0.3), 0.95) < 0.05


def test_p_values_of_what_does_not_vary() -> None:
    assert p_value(Interval(0.0, 0.0, 0.0), 0.95) == 1
    assert p_value(Interval(0.1, 0.1, 0.1), 0.95) == 0
    assert p_value(Interval(0.0, -0.1, 0.1), 0.95) == 1
    assert p_value(Interval(None), 0.95) is None


def test_the_sign_test_is_exact() -> None:
    first, second = (random_answer(N=80, C=2, seed=seed) for seed in (0, 1))
    second = answer_of(second.probs[None], first.labels)
    right = [answer.predicted == answer.labels for answer in (first, second)]
    alone = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    expected = binomtest(alone[0], sum(alone)).pvalue
    assert sign_test([first], [second]) == pytest.approx(expected)
    assert sign_test([first], [first]) == 1
    assert sign_test([first, first], [second]) is None


def test_pairs_with_the_shipped_system_are_judged_together(binary: dict[str, Any]) -> None:
    shipped, found = binary["shipped"], binary["comparisons"]
    judged = {
        (pair, metric): figure
        for pair, by_metric in found.items()
        for metric, figure in by_metric.items()
        if "p" in figure
    }
    others = [name for name in binary["systems"] if name != shipped]
    assert {pair for pair, _ in judged} == {f"{shipped} - {name}" for name in others}
    assert len(judged) == len(others) * len(COMPARED_METRICS)
    adjusted = holm([figure["p"] for figure in judged.values()])
    assert [figure["adjusted_p"] for figure in judged.values()] == pytest.approx(adjusted)


def test_a_system_is_marked_by_its_adjusted_p_value_and_direction(binary: dict[str, Any]) -> None:
    marks, shipped = against_shipped(binary), binary["shipped"]
    assert marks[shipped] == {}
    seen = set()
    for name, by_metric in marks.items():
        for metric, mark in by_metric.items():
            figure = binary["comparisons"][f"{shipped} - {name}"][metric]
            better_if_shipped_is = "higher" if metric != "accuracy" else "lower"
            expected = "equal"
            if figure["adjusted_p"] < 0.05:
                higher = figure["value"] > 0
                expected = "better" if higher == (better_if_shipped_is == "higher") else "worse"
            assert mark == expected
            seen.add(mark)
    assert len(seen) >= 2


@pytest.mark.slow
def test_marks_stand_in_the_page_and_in_the_terminal_without_colour(binary: dict[str, Any]) -> None:
    table = parts(binary)["main_table"]
    columns = [column.label for column in table.columns]
    row = next(row for row in table.rows if row.name == "direct")
    assert row.cells[columns.index("NLL")].verdict == against_shipped(binary)["direct"]["nll"]
    assert row.cells[columns.index("Error AUROC")].verdict is None
    page = render_html(binary)
    used = {mark for marks in against_shipped(binary).values() for mark in marks.values()}
    for mark in used:
        assert f'class="against {mark}" role="img"' in page
    console = Console(width=100, file=io.StringIO(), no_color=True)
    print_report(binary, console)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    direct = next(line for line in said.splitlines() if line.split()[:1] == ["direct"])
    assert SIGNS[against_shipped(binary)["direct"]["nll"]] in direct
    assert "▲ truly better, = equal within doubt, ▼ truly worse" in " ".join(said.split())


@pytest.mark.slow
def test_a_report_made_before_there_were_p_values_still_shows(binary: dict[str, Any]) -> None:
    ends = ("value", "low", "high")
    old = {
        pair: {metric: {end: own[end] for end in ends} for metric, own in by_metric.items()}
        for pair, by_metric in binary["comparisons"].items()
    }
    report = {name: own for name, own in binary.items() if name != "choices"} | {"comparisons": old}
    assert not any(against_shipped(report).values())
    page = render_html(report)
    assert "truly better" not in page
    assert "student+temperature" in page


def test_no_mark_where_a_difference_is_undefined() -> None:
    assert adjusted_verdict("nll", Interval(None).as_json(), 0.05) is None


def like_systems(random: np.random.Generator, N: int = 300, count: int = 4) -> dict[str, Any]:
    """Systems of equal quality, each with its own noise."""
    z = random.normal(0.3, 1.5, N)
    labels = (random.random(N) < 1 / (1 + np.exp(-z))).astype(int)
    made = {}
    for number in range(count):
        p = 1 / (1 + np.exp(-(z + random.normal(0, 0.7, N))))
        made[f"s{number}"] = answers("ensemble", predictions_of(np.stack([1 - p, p], -1)[None], labels), {})
    return made


def judged(on_test: dict[str, Any], resampling: Resampling) -> list[float]:
    scored = {
        name: score_sampled(given, resampling, COMPARED_METRICS, SAMPLED) for name, given in on_test.items()
    }
    figures = {
        name: {metric: own.as_json() for metric, own in found.items()} for name, (found, _) in scored.items()
    }
    samples = {name: drawn for name, (_, drawn) in scored.items()}
    found = comparisons(Paired(on_test, figures, samples, resampling), next(iter(on_test)))
    return [own["adjusted_p"] for pair in found.values() for own in pair.values() if "adjusted_p" in own]


@pytest.mark.slow
def test_like_systems_are_seldom_called_unlike() -> None:
    """In at most 5 % of tables, and two standard errors of 120, any of 15 differences is marked."""
    random = np.random.default_rng(11)
    wrongly = [min(judged(like_systems(random), Resampling(200))) < 0.05 for _ in range(120)]
    assert np.mean(wrongly) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 120)
