"""The points of the plots, against hand-worked cases and second implementations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from credibly.records import Examples, Predictions
from credibly.report.figures.curves import (
    distribution,
    history_columns,
    rejection,
    reliability,
    risk_coverage,
    wilson,
)
from credibly.uncertainty.scoring.intervals import score
from credibly.uncertainty.systems import Answer, answers
from report.samples import SIX, examples, predictions


def answered(confidences: list[float], right: list[bool]) -> Answer:
    """Answers of two classes with these top-label probabilities, right or wrong."""
    N = len(confidences)
    probs = np.array([[1 - confidence, confidence] for confidence in confidences])
    rows = Examples(tuple(map(str, range(N))), ("x",) * N, ("a", "b"), np.array(right, dtype=int))
    return answers("direct", Predictions.from_probs(probs, rows), {})[0]


@settings(max_examples=50, deadline=None)
@given(trials=st.integers(1, 400), share=st.floats(0, 1), confidence=st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_is_that_of_scipy(trials: int, share: float, confidence: float) -> None:
    successes = round(share * trials)
    low, high = wilson(np.array([successes], float), np.array([trials], float), confidence)
    expected = binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    assert (low[0], high[0]) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_reliability_counts_the_bins_by_hand() -> None:
    # Bins of width 1/15: 0.61 and 0.65 lie in the tenth (0.6 to 0.667), 0.95 in the last.
    bins = reliability([answered([0.61, 0.65, 0.95, 0.95], [True, False, True, True])], 0.95)
    assert [bin["count"] for bin in bins] == [2, 2]
    assert bins[0]["confidence"] == pytest.approx(0.63)
    assert [bin["accuracy"] for bin in bins] == [0.5, 1.0]
    low, high = wilson(np.array([1.0, 2.0]), np.array([2.0, 2.0]))
    assert [bin["low"] for bin in bins] == pytest.approx(low)
    assert [bin["high"] for bin in bins] == pytest.approx(high)


def test_the_bins_give_the_plain_ece() -> None:
    answer = answers("direct", predictions(examples(300, SIX), 1, 3), {})[0]
    bins = reliability([answer], 0.95)
    ece = sum(bin["count"] * abs(bin["confidence"] - bin["accuracy"]) for bin in bins) / 300
    assert ece == pytest.approx(score([answer], resamples=2, metrics=["ece"])["ece"].value)


def test_pooled_members_count_as_one_members_rows() -> None:
    rows = examples(200)
    members = answers("single", predictions(rows, 5, 0), {})
    bins = reliability(members, 0.95)
    assert sum(bin["count"] for bin in bins) == pytest.approx(200)
    assert reliability([members[0]] * 5, 0.95)[0] == pytest.approx(reliability([members[0]], 0.95)[0])


def test_risk_coverage_by_hand() -> None:
    points = risk_coverage([answered([0.9, 0.8, 0.7, 0.6], [True, False, True, False])], 0.95)
    assert [point["coverage"] for point in points] == [0.25, 0.5, 0.75, 1.0]
    assert [point["risk"] for point in points] == pytest.approx([0, 1 / 2, 1 / 3, 1 / 2])


def test_ties_take_the_expectation_over_their_orders() -> None:
    points = risk_coverage([answered([0.9, 0.8, 0.8], [True, False, True])], 0.95)
    assert [point["risk"] for point in points] == pytest.approx([0, 0.25, 1 / 3])


def test_the_mean_risk_over_all_coverages_is_the_aurc() -> None:
    members = answers("single", predictions(examples(90), 3, 4), {})
    points = risk_coverage(members, 0.95)
    assert len(points) == 90
    expected = score(members, resamples=2, metrics=["aurc"])["aurc"].value
    assert np.mean([point["risk"] for point in points]) == pytest.approx(expected)


def test_many_rows_make_a_hundred_points_that_end_at_everything() -> None:
    rows = examples(1234)
    answer = answers("direct", predictions(rows, 1, 0), {})[0]
    points = risk_coverage([answer], 0.95)
    assert len(points) == 100
    assert points[-1]["coverage"] == 1
    assert points[-1]["risk"] == pytest.approx(np.mean(answer.predicted != rows.labels))
    assert all(point["low"] <= point["risk"] <= point["high"] for point in points)


def test_rows_of_unknown_label_are_left_out() -> None:
    answer = answers("direct", predictions(examples(30, labelled=False), 1, 0), {})[0]
    assert (reliability([answer], 0.95), risk_coverage([answer], 0.95)) == ([], [])


def test_rejection_by_hand() -> None:
    answer = answered([0.9, 0.8, 0.7, 0.6], [True, False, True, False])
    points = rejection(answer, 0.95)["total"]
    assert [point["rejected"] for point in points] == [0, 0.25, 0.5, 0.75]
    assert [point["accuracy"] for point in points] == pytest.approx([1 / 2, 2 / 3, 1 / 2, 1])
    low, high = wilson(np.array([2.0]), np.array([3.0]))
    assert (points[1]["low"], points[1]["high"]) == pytest.approx((low[0], high[0]))


def test_rejecting_by_a_kind_keeps_the_rows_that_have_least_of_it() -> None:
    rows = examples(80, SIX)
    answer = answers("ensemble", predictions(rows, 4, 2), {})[0]
    for kind, points in rejection(answer, 0.95).items():
        order = np.argsort(getattr(answer.uncertainty, kind))
        right = (answer.predicted == rows.labels)[order]
        expected = [right[:kept].mean() for kept in range(80, 0, -1)]
        assert [point["accuracy"] for point in points] == pytest.approx(expected)


def test_rows_that_are_all_alike_are_not_rejected_one_before_the_other() -> None:
    lone = answers("direct", predictions(examples(30), 1, 0), {})[0]
    assert rejection(lone, 0.95)["epistemic"] == []
    unlabelled = answers("direct", predictions(examples(30, labelled=False), 1, 0), {})[0]
    assert not any(rejection(unlabelled, 0.95).values())


def test_a_distribution_is_its_quantiles() -> None:
    answer = answers("ensemble", predictions(examples(50), 4, 2), {})[0]
    found = distribution(answer)
    for kind in ("total", "aleatoric", "epistemic"):
        values = getattr(answer.uncertainty, kind)
        assert found[kind]["mean"] == pytest.approx(values.mean())
        assert [found[kind][share] for share in ("0.05", "0.5", "0.95")] == pytest.approx(
            np.quantile(values, [0.05, 0.5, 0.95])
        )


def test_an_empty_history_has_no_columns() -> None:
    assert history_columns([]) == {}
