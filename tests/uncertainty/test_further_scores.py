"""Smooth ECE, other bins, Brier's parts, points of the risk-coverage curve: by hand, and what must hold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from credibly.uncertainty.scoring import risk
from credibly.uncertainty.scoring.estimates import CORRECTED
from credibly.uncertainty.scoring.influence import risk_coverage_influence
from credibly.uncertainty.scoring.intervals import paired_difference, resampled, score
from credibly.uncertainty.scoring.risk import coverage_estimate, excess_influence
from credibly.uncertainty.scoring.scores import METRICS, values
from uncertainty import naive
from uncertainty.cases import answer_of, random_answer


def binary(confidence, right):
    """An answer of two classes with these confidences, of which these are right."""
    confidence = np.asarray(confidence, dtype=float)
    return answer_of(np.stack([confidence, 1 - confidence], -1)[None], np.where(right, 0, 1))


def figure(name, answer):
    return METRICS[name](answer)


# Smooth ECE


@pytest.mark.parametrize("confidence", [0.55, 0.8, 1.0])
def test_one_confidence_for_all_has_the_smooth_error_of_its_gap(confidence):
    answer = binary(np.full(40, confidence), np.arange(40) < 18)
    assert figure("smooth_ece", answer) == pytest.approx(confidence - 0.45, abs=1e-6)


def test_opposite_gaps_cancel_side_by_side_and_stay_far_apart():
    first = np.arange(400) < 200
    right = np.where(first, np.arange(400) % 4 < 2, True)  # of each half: 50 %, all
    beside = figure("smooth_ece", binary(np.where(first, 0.74, 0.76), right))
    apart = figure("smooth_ece", binary(np.where(first, 0.9, 0.6), right))
    assert beside < 0.06
    assert apart > 0.15
    assert figure("ece", binary(np.where(first, 0.72, 0.78), right)) > 0.2


@given(st.integers(0, 10_000), st.integers(30, 120))
def test_smooth_error_lies_between_the_overall_gap_and_the_gaps_of_all_rows(seed, N):
    answer = random_answer(N=N, C=2, seed=seed)
    right = answer.predicted == answer.labels
    gaps = right - answer.confidence
    found = figure("smooth_ece", answer)
    assert abs(gaps.mean()) - 1e-6 <= found <= np.abs(gaps).mean() + 1e-6


def test_smooth_error_is_that_of_the_sum_over_mirrored_gaussians():
    answer = random_answer(N=300, C=2, seed=4)
    expected = naive.smooth_ece(answer.confidence, answer.predicted == answer.labels)
    assert figure("smooth_ece", answer) == pytest.approx(expected, abs=1e-4)


# Brier's parts


@given(st.integers(0, 10_000), st.integers(2, 5))
def test_briers_parts_add_up_exactly(seed, C):
    found = values(random_answer(N=60, C=C, seed=seed, unknown=0.1))
    parts = found["brier_reliability"] - found["brier_resolution"] + found["brier_uncertainty"]
    assert found["brier"] == pytest.approx(parts + found["brier_within_bins"], abs=1e-12)


def test_briers_parts_by_hand():
    # Said 0.9 for class 0 twice, right once; said 0.3 twice (class 1 is predicted), right once.
    said, labels = np.array([0.9, 0.9, 0.3, 0.3]), [0, 1, 0, 1]
    found = values(answer_of(np.stack([said, 1 - said], -1)[None], labels))
    assert found["brier_reliability"] == pytest.approx(2 * (0.4**2 + 0.2**2) / 2, abs=1e-6)
    assert found["brier_resolution"] == pytest.approx(0, abs=1e-12)
    assert found["brier_uncertainty"] == 0.5
    assert found["brier_within_bins"] == pytest.approx(0, abs=1e-7)


# Other bins


def test_bins_of_equal_mass_hold_as_many_rows_each():
    confidence = np.linspace(0.501, 0.999, 30)
    right = np.arange(30) % 3 > 0
    pairs = (right - confidence).reshape(15, 2).sum(axis=1)
    assert figure("ece_equal_mass", binary(confidence, right)) == pytest.approx(
        np.abs(pairs).sum() / 30, abs=1e-6
    )


def test_of_two_classes_the_class_wise_error_is_that_of_one():
    answer = random_answer(N=200, C=2)
    one = naive.binned_gaps(answer.probs[:, 0], answer.labels == 0)
    assert figure("ece_classwise", answer) == pytest.approx(one, abs=1e-9)


# The risk-coverage curve


def test_risk_and_coverage_by_hand():
    confidence = [0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.58, 0.55]
    answer = binary(confidence, [1, 1, 1, 1, 1, 1, 1, 0, 1, 0])
    found = values(answer)
    assert found["risk_at_80"] == pytest.approx(1 / 8)
    assert found["risk_at_90"] == pytest.approx(1 / 9)
    assert found["coverage_at_1"] == found["coverage_at_5"] == pytest.approx(0.7)
    best = [0] * 8 + [1 / 9, 2 / 10]
    own = [0] * 7 + [1 / 8, 1 / 9, 2 / 10]
    assert found["eaurc"] == pytest.approx((sum(own) - sum(best)) / 10)


def test_a_tie_is_answered_in_every_order_alike_and_parted_by_no_threshold():
    answer = binary([0.9, 0.7, 0.7, 0.7, 0.6], [1, 1, 1, 0, 1])
    found = values(answer)
    assert found["risk_at_80"] == pytest.approx(1 / 4)
    assert found["coverage_at_5"] == pytest.approx(0.2)
    assert figure("coverage_at_5", binary([0.9, 0.8], [0, 1])) == 0


@pytest.mark.parametrize("coarse", [False, True])
def test_the_best_order_has_no_excess(coarse):
    answer = random_answer(N=200, coarse=coarse)
    right = answer.predicted == answer.labels
    assert figure("eaurc", binary(np.where(right, 0.9, 0.6), right)) == pytest.approx(0, abs=1e-12)
    assert figure("eaurc", answer) > 0


def test_influences_on_the_excess_are_its_changes(monkeypatch):
    answer = random_answer(N=400, C=2, seed=3)
    found, step = excess_influence(answer), 1e-4
    place = np.unique(-answer.confidence, return_inverse=True)[1]
    wrong = answer.predicted != answer.labels
    _, area = risk_coverage_influence(place, wrong)
    N, right = float(len(wrong)), float((~wrong).sum())
    for row in (0, 1, 2, 3):
        more = risk.best_area(np.array(N + step), np.array(right + step * ~wrong[row]))
        less = risk.best_area(np.array(N - step), np.array(right - step * ~wrong[row]))
        assert found[row] == pytest.approx(area[row] - float(more - less) / (2 * step), abs=1e-8)
    assert found.sum() == pytest.approx(0, abs=2e-3)


def test_the_ends_of_a_coverage_are_where_binomial_tests_turn():
    answer = random_answer(N=300, C=2, seed=5)
    value, low, high = coverage_estimate(0.05)(answer, 0.9)
    order = np.argsort(-answer.confidence)
    errors = np.cumsum((answer.predicted != answer.labels)[order])
    taken = np.arange(1, 301)
    lower = binom.cdf(errors, taken, 0.05) <= 0.05
    higher = binom.sf(errors - 1, taken, 0.05) <= 0.05
    assert value == pytest.approx(max(taken[errors <= 0.05 * taken], default=0) / 300)
    assert low == pytest.approx(max(taken[lower], default=0) / 300)
    assert high == pytest.approx(max(taken[~higher], default=0) / 300)
    assert low <= value <= high


def test_of_very_many_rows_the_curve_is_drawn_through_fewer_places(monkeypatch):
    answer = random_answer(N=3000, C=2)
    exact = values(answer)
    monkeypatch.setattr(risk, "LINEAR_FROM", 1000)
    monkeypatch.setattr(risk, "PLACES", 500)
    coarse = values(answer)
    for name in ("risk_at_80", "risk_at_90", "coverage_at_5"):
        assert coarse[name] == pytest.approx(exact[name], abs=4e-3)


# Intervals by formula


@pytest.mark.parametrize("name", list(CORRECTED))
def test_an_interval_by_formula_widens_with_the_confidence_and_needs_no_resamples(name):
    answer = random_answer(N=300, C=3, seed=2)
    narrow, wide = (score([answer], 2, confidence, metrics=[name])[name] for confidence in (0.8, 0.99))
    assert wide.low <= narrow.low <= narrow.high <= wide.high
    assert wide.high - wide.low > narrow.high - narrow.low
    assert narrow.value == values(answer, [name])[name]
    assert wide == score([answer], 50, 0.99, seed=7, metrics=[name])[name]


@pytest.mark.parametrize("name", ["smooth_ece", "brier_reliability", "ece_classwise", "ece_equal_mass"])
def test_differences_of_such_figures_hold_zero_for_like_systems(name):
    first, second = (random_answer(N=400, C=2, seed=6, M=M) for M in (3, 3))
    assert paired_difference([first], [second], name, resamples=50).low == 0
    other = binary(np.clip(first.confidence + 0.3, 0, 0.999), first.predicted == first.labels)
    mended = binary(first.confidence, first.predicted == first.labels)
    assert paired_difference([other], [mended], name, 50).low > 0


@pytest.mark.parametrize("name", ["ece_equal_mass", "smooth_ece", "risk_at_80", "brier_resolution"])
def test_figures_of_rows_taken_otherwise_are_those_of_the_rows_written_out(name):
    answer = random_answer(N=90, C=3, unknown=0.2)
    found = resampled([answer], name, resamples=4)
    assert np.isfinite(found).all()
    assert len(set(found.tolist())) == 4


def test_a_model_that_is_never_wrong_may_be_calibrated_by_smooth_errors_too():
    p = np.full(300, 0.998)
    answer = answer_of(np.stack([1 - p, p], -1)[None], np.ones(300, int))
    found = score([answer], 20, metrics=["smooth_ece"])["smooth_ece"]
    assert found.value == pytest.approx(0.002, abs=1e-4)
    assert found.low == 0
    assert 0.01 < found.high < 0.02  # up to 1.2 % of mistakes show none among 300 rows


def test_resolution_is_never_more_than_the_labels_own_uncertainty():
    truth = np.tile([0, 1], 150)
    p = np.where(truth, 0.998, 0.002)
    found = score([answer_of(np.stack([1 - p, p], -1)[None], truth)], 20)
    for figure in (found["brier_resolution"], found["brier_uncertainty"]):
        assert figure.value == pytest.approx(0.5)
        assert figure.low <= figure.value <= figure.high <= 0.5
    # Shares of exactly one half are luck: so are those of 300 draws, to 0.012 in 95 of 100.
    assert 0.48 < found["brier_uncertainty"].low < 0.495


def test_the_best_order_of_a_sample_is_not_proven_to_be_that_of_all_rows():
    p = np.linspace(0.6, 0.9, 100)
    found = score([answer_of(np.stack([1 - p, p], -1)[None], np.ones(100, int))], 20)
    assert (found["eaurc"].value, found["eaurc"].low) == (0, 0)
    assert found["eaurc"].high == pytest.approx(found["aurc"].high) == pytest.approx(0.037, abs=1e-3)
