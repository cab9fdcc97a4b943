from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, betabinom, binomtest, kstest

from credibly.errors import InputError
from credibly.uncertainty.exact import (
    chance_of_so_few,
    conformal_quantile,
    conformal_rank,
    coverage_range,
    exact_interval,
    rows_without_error,
    smallest_calibration,
)


@pytest.mark.parametrize(("count", "rows"), [(0, 1), (1, 1), (0, 30), (30, 30), (7, 30), (499, 500)])
def test_the_exact_interval_is_clopper_and_pearsons(count, rows):
    expected = binomtest(count, rows).proportion_ci(0.9, method="exact")
    found = exact_interval(count, rows, 0.9)
    assert (found.value, found.low, found.high) == pytest.approx((count / rows, expected.low, expected.high))


def test_a_share_of_no_rows_is_undefined():
    assert exact_interval(0, 0).value is None
    assert exact_interval(0, 0).low is None


def test_the_p_value_is_the_binomial_tests():
    errors, rows = np.array([0, 1, 5, 12, 30]), np.array([1, 59, 100, 240, 30])
    expected = [binomtest(k, n, 0.05, alternative="less").pvalue for k, n in zip(errors, rows, strict=True)]
    assert chance_of_so_few(errors, rows, 0.05) == pytest.approx(expected)
    assert chance_of_so_few(0, 0, 0.05) == 1


@given(st.floats(0.001, 0.9), st.floats(0.001, 0.5))
def test_rows_without_error_are_the_fewest_that_show_it(risk, delta):
    least = rows_without_error(risk, delta)
    assert chance_of_so_few(0, least, risk) <= delta
    assert least == 1 or chance_of_so_few(0, least - 1, risk) > delta * (1 - 1e-9)


@given(st.integers(1, 300), st.integers(1, 99))
def test_the_rank_is_the_exact_ceiling(rows, percent):
    rank = conformal_rank(rows, percent / 100)
    assert Fraction(rank - 1) < Fraction(percent, 100) * (rows + 1) <= rank


@given(st.integers(1, 999))
def test_the_smallest_calibration_set_is_the_fewest_rows_that_can_promise(permille):
    coverage = permille / 1000
    least = smallest_calibration(coverage)
    assert conformal_rank(least, coverage) <= least
    assert least == 1 or conformal_rank(least - 1, coverage) > least - 1


def test_the_quantile_by_hand():
    scores = np.array([0.5, 0.1, 0.4, 0.2, 0.3, 0.6, 0.7, 0.8, 0.9])
    # Of ten places, nine rows and one to come: 0.5 takes the fifth row, 0.9 the last.
    assert [conformal_quantile(scores, c) for c in (0.5, 0.51, 0.89, 0.9)] == [0.5, 0.6, 0.9, 0.9]


def test_too_few_rows_are_told_how_many_would_do():
    with pytest.raises(
        InputError, match=r"expected 19 calibration rows.*0\.95, got 9; 9 rows .* at most 0\.9$"
    ):
        conformal_quantile(np.arange(9.0), 0.95)
    with pytest.raises(InputError, match="expected 1 calibration rows"):
        conformal_quantile(np.zeros(0), 0.5)
    for coverage in (0.0, 1.0, -0.1, np.nan):
        with pytest.raises(InputError, match="coverage above 0 and below 1"):
            conformal_quantile(np.arange(99.0), coverage)


def test_the_coverage_of_one_calibration_set_is_a_draw_from_the_beta():
    random = np.random.default_rng(0)
    # Scores uniform on [0, 1]: the coverage of a threshold is the threshold.
    thresholds = [conformal_quantile(random.random(50), 0.9) for _ in range(2000)]
    assert kstest(thresholds, beta(46, 5).cdf).pvalue > 0.01
    expected = coverage_range(50, 0.9)
    inside = np.mean([expected.low <= threshold <= expected.high for threshold in thresholds])
    assert inside == pytest.approx(0.95, abs=0.015)
    assert expected.value == pytest.approx(np.mean(thresholds), abs=0.004)


def test_the_range_on_test_rows_is_wider_and_holds_what_shows():
    random = np.random.default_rng(0)
    shown = [(random.random(80) <= conformal_quantile(random.random(50), 0.9)).mean() for _ in range(2000)]
    expected, endless = coverage_range(50, 0.9, 80), coverage_range(50, 0.9)
    inside = np.mean([expected.low <= share <= expected.high for share in shown])
    assert 0.945 <= inside <= 0.985
    assert expected.low < endless.low < endless.high < expected.high


@pytest.mark.parametrize(("rows", "coverage", "test_rows"), [(9, 0.9, 1), (50, 0.9, 80), (1000, 0.95, 20000)])
def test_the_range_on_test_rows_is_the_beta_binomials(rows, coverage, test_rows):
    rank = int(np.ceil((rows + 1) * coverage - 1e-9))
    low, high = betabinom.ppf([0.05, 0.95], test_rows, rank, rows + 1 - rank) / test_rows
    found = coverage_range(rows, coverage, test_rows, confidence=0.9)
    assert (found.low, found.high) == (low, high)
