from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from credibly.errors import InputError
from credibly.uncertainty.scoring.consistency import perfect_ece, perfect_errors, spiegelhalter
from credibly.uncertainty.scoring.scores import METRICS
from uncertainty.cases import answer_of, copied, random_answer


def binary(confidence, truth, seed):
    """An answer of class 0 with these confidences, right with these probabilities."""
    labels = (np.random.default_rng(seed).random(len(confidence)) > truth).astype(int)
    return answer_of(np.stack([confidence, 1 - confidence], -1)[None], labels)


def confidences(N, seed=0):
    return 0.5 + 0.499 * np.random.default_rng(seed).random(N)


def test_one_bin_of_coin_flips_by_hand():
    # 100 rows at 0.5: the ECE is |heads / 100 - 1/2|, with mean and percentile of the binomial.
    heads = np.arange(101)
    weights, errors = stats.binom.pmf(heads, 100, 0.5), np.abs(heads / 100 - 0.5)
    drawn = perfect_errors(np.full(100, 0.5), draws=20000)
    assert drawn.mean() == pytest.approx((weights * errors).sum(), rel=0.02)
    assert (drawn >= 0.1).mean() == pytest.approx(weights[errors >= 0.1 - 1e-12].sum(), abs=0.006)


@pytest.mark.slow
def test_draws_are_plain_eces_of_perfect_models():
    confidence = confidences(400)
    test = perfect_ece(binary(confidence, confidence, 0), draws=2000)
    eces = [METRICS["ece"](binary(confidence, confidence, seed)) for seed in range(400)]
    assert np.mean(eces) == pytest.approx(test.ece_perfect_mean, rel=0.05)
    assert np.quantile(eces, 0.95) == pytest.approx(test.ece_perfect_p95, rel=0.06)


def test_p_values_of_perfect_models_are_uniform():
    found = []
    for seed in range(250):
        confidence = confidences(200, seed)
        test = perfect_ece(binary(confidence, confidence, seed + 1000), draws=199)
        found.append((test.consistency_p, test.spiegelhalter_p))
    for p_values in zip(*found, strict=True):
        assert stats.kstest(p_values, "uniform").pvalue > 0.01


@pytest.mark.slow
def test_copies_of_a_perfect_model_are_rejected_no_more_often_than_chance():
    found, alone = [], []
    for seed in range(200):
        confidence = confidences(150, seed + 3000)
        answer = copied(binary(confidence, confidence, seed + 103000), 4)
        for p_values, taken in ((found, answer), (alone, replace(answer, groups=None))):
            test = perfect_ece(taken, draws=199)
            p_values.append((test.consistency_p, test.spiegelhalter_p))
    for p_values in zip(*found, strict=True):
        assert stats.kstest(p_values, "uniform").pvalue > 0.01
    # As if every copy told something new, four times as many rows would reject what holds.
    assert (np.array(alone) < 0.05).mean(axis=0).min() > 0.2


def test_copies_say_what_one_of_each_says():
    confidence = confidences(300)
    once = binary(confidence, confidence - 0.04, 3)
    one, four = perfect_ece(once), perfect_ece(copied(once, 4))
    assert four.ece_perfect_mean == pytest.approx(one.ece_perfect_mean, rel=0.03)
    assert four.ece_perfect_p95 == pytest.approx(one.ece_perfect_p95, rel=0.05)
    assert four.consistency_p == pytest.approx(one.consistency_p, abs=0.03)
    # The standard error is measured here, and follows from the probabilities there.
    assert four.spiegelhalter_p == pytest.approx(one.spiegelhalter_p, abs=0.02)


def test_groups_whose_rows_do_not_depend_are_tested_as_rows():
    confidence = confidences(4000, 5)
    for gap in (0.0, 0.05):
        alone = binary(confidence, confidence - gap, 7)
        grouped = replace(alone, groups=np.arange(4000) // 100)
        one, other = perfect_ece(alone), perfect_ece(grouped)
        assert other.ece_perfect_mean == pytest.approx(one.ece_perfect_mean, rel=0.35)
        assert (one.consistency_p < 0.01) is (other.consistency_p < 0.01) is (gap > 0)


def test_an_overconfident_model_is_rejected():
    confidence = confidences(2000)
    test = perfect_ece(binary(confidence, confidence - 0.1, 0))
    assert test.consistency_p == pytest.approx(1 / 1001)
    assert test.spiegelhalter_p < 1e-6


def test_spiegelhalter_by_hand():
    p, y = np.array([0.9, 0.8, 0.6, 0.7]), np.array([True, False, True, True])
    expected_brier, brier = (p * (1 - p)).sum(), ((y - p) ** 2).sum()
    variance = ((1 - 2 * p) ** 2 * p * (1 - p)).sum()
    z = (brier - expected_brier) / np.sqrt(variance)
    assert spiegelhalter(p, y) == pytest.approx(2 * stats.norm.sf(abs(z)))


def test_spiegelhalter_is_undefined_where_every_row_is_even_or_certain():
    assert spiegelhalter(np.array([0.5, 1.0]), np.array([True, True])) is None


def test_unlabelled_rows_have_no_tests():
    assert set(perfect_ece(random_answer(unknown=1.0)).as_json().values()) == {None}


def test_rows_of_unknown_label_are_left_out():
    answer = random_answer(unknown=0.4, N=300)
    known = answer.labels >= 0
    expected = perfect_errors(answer.confidence[known]).mean()
    assert perfect_ece(answer).ece_perfect_mean == pytest.approx(expected)


def test_the_seed_decides_the_draws():
    answer = random_answer()
    assert perfect_ece(answer, seed=1) == perfect_ece(answer, seed=1)
    assert perfect_ece(answer, seed=1) != perfect_ece(answer, seed=2)


def test_no_draws_are_refused():
    with pytest.raises(InputError, match="one draw or more, got 0"):
        perfect_ece(random_answer(), draws=0)
