import numpy as np
import pytest
from scipy.special import logsumexp, psi

from credibly.uncertainty.numerics import (
    bounded_log_concentrations,
    digamma_over_log,
    dirichlet_expected_entropy,
    dirichlet_mutual_information,
    entropy,
    entropy_of_log_probs,
    log_mean_exp,
    log_of,
    log_softmax,
    probs_of,
    without_rounding,
)


def test_log_softmax_survives_huge_logits():
    result = log_softmax([[1e4, 0.0, -1e4], [-1e300, -1e300, -1e300]])
    assert result[0].tolist() == [0.0, -1e4, -2e4]
    assert np.allclose(result[1], -np.log(3))


def test_log_softmax_is_scipys():
    z = np.random.default_rng(0).normal(0, 30, (50, 4))
    assert np.allclose(log_softmax(z), z - logsumexp(z, axis=-1, keepdims=True), atol=1e-12)


def test_entropy_counts_zero_log_zero_as_zero():
    assert entropy([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [1 / 3, 1 / 3, 1 / 3]]) == pytest.approx(
        [0.0, np.log(2), np.log(3)]
    )
    assert entropy_of_log_probs([-np.inf, 0.0]) == 0.0


def test_probs_of_float32_rows_sum_to_one_in_double_precision():
    log_probs = log_softmax(np.random.default_rng(0).normal(0, 3, (100, 7))).astype(np.float32)
    assert np.abs(probs_of(log_probs).sum(-1) - 1).max() < 4e-16
    assert np.abs(np.exp(log_probs.astype(np.float64)).sum(-1) - 1).max() > 1e-9  # without it they do not


@pytest.mark.parametrize("shift", [0.0, -2000.0])
def test_log_mean_exp_is_the_log_of_the_mean(shift):
    values = np.random.default_rng(0).normal(0, 2, (5, 3, 4)) + shift
    weights = np.array([0.1, 0.2, 0.3, 0.4, 0.0])
    assert np.allclose(log_mean_exp(values), logsumexp(values, axis=0) - np.log(5), rtol=1e-13)
    assert np.allclose(
        log_mean_exp(values, weights), logsumexp(values, axis=0, b=weights[:, None, None]), rtol=1e-13
    )


def test_log_mean_exp_of_impossible_events_is_minus_infinity():
    assert log_mean_exp([[-np.inf, 0.0], [-np.inf, -np.inf]]).tolist() == [-np.inf, pytest.approx(-np.log(2))]


def test_log_of_floors_at_one_in_a_million_million():
    assert log_of([0.0, 1.0]).tolist() == [pytest.approx(np.log(1e-12)), 0.0]


def test_rounding_becomes_zero_and_the_ends_hold():
    assert without_rounding([-1e-16, 5e-15, 1e-6, 0.8], 2).tolist() == [
        0.0,
        0.0,
        1e-6,
        pytest.approx(np.log(2)),
    ]


def test_digamma_over_log_of_whole_numbers_is_the_harmonic_number():
    for x in (1, 2, 29, 30, 31, 32, 100, 1000):
        harmonic = np.sum(1 / np.arange(1, x + 1))
        assert digamma_over_log(x) == pytest.approx(harmonic - np.euler_gamma - np.log(x), abs=3e-15)


def test_digamma_over_log_joins_its_two_forms_smoothly():
    below, above = digamma_over_log(30.0), digamma_over_log(np.nextafter(30.0, 31.0))
    assert abs(below - above) < 1e-14


def test_mutual_information_of_large_concentrations_keeps_its_digits():
    for size in (1e6, 1e9, 1e12):
        alpha = size * np.array([0.2, 0.3, 0.5])
        assert dirichlet_mutual_information(alpha) == pytest.approx((3 - 1) / (2 * size), rel=1e-4)


def test_mutual_information_of_tiny_concentrations_is_the_entropy_of_the_mean():
    alpha = 1e-9 * np.array([0.2, 0.3, 0.5])
    assert dirichlet_mutual_information(alpha) == pytest.approx(entropy([0.2, 0.3, 0.5]), abs=1e-8)


def test_expected_entropy_is_the_textbook_form():
    alpha = np.random.default_rng(0).gamma(1.0, 5.0, (200, 4)) + 1e-3
    total = alpha.sum(-1, keepdims=True)
    textbook = -(alpha / total * (psi(alpha + 1) - psi(total + 1))).sum(-1)
    assert np.allclose(dirichlet_expected_entropy(alpha), textbook, atol=1e-13)


def test_bounding_log_concentrations_never_moves_the_mean():
    z = np.array([[100.0, 80.0], [-35.0, -36.0], [0.0, -50.0], [40.0, 40.0], [2.0, 1.0]])
    bounded = bounded_log_concentrations(z)
    assert np.abs(np.exp(log_softmax(bounded)) - np.exp(log_softmax(z))).max() < 1e-6
    assert bounded.min() >= -30
    assert bounded.max() <= 30
    assert bounded[4].tolist() == [2.0, 1.0]
