"""A temperature by each row's entropy, against hand work, brute force and data that it made."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import approx_fprime, minimize
from scipy.special import log_softmax, softmax
from scipy.stats import entropy

from credibly.errors import InputError
from credibly.records import Predictions
from credibly.uncertainty.calibration import entropy_temperature
from credibly.uncertainty.calibration.calibrate import Temperature
from credibly.uncertainty.calibration.calibrators import calibrator_from_json
from credibly.uncertainty.calibration.entropy_temperature import EntropyTemperature, log_shares
from credibly.uncertainty.combine import combine
from uncertainty.cases import examples, predictions_of, random_predictions

WIDE = (-30.0, 0.0)
"""A range of entropies that holds all rows."""


def bent(intercept, slope, N=4000, C=2, M=1, seed=0):
    """Predictions of which the map with these numbers is the truth."""
    random = np.random.default_rng(seed)
    x = log_softmax(random.normal(0, 2, (M, N, C)), -1)
    share = entropy(softmax(x, -1), axis=-1) / np.log(C)
    truth = softmax(x / np.log1p(np.exp(intercept + slope * np.log(share)))[..., None], -1).mean(0)
    labels = (truth.cumsum(-1) < random.random((N, 1))).sum(-1).clip(max=C - 1)
    return Predictions.from_logits(x, examples(N, C, labels)), truth


def test_by_hand():
    # The entropy of (1/4, 3/4) is 0.811278 of ln 2, and odds of 3 become 3 ** (1 / T).
    before = predictions_of([[[0.25, 0.75]]])
    after = EntropyTemperature(1.0, 2.0, *WIDE).apply(before)
    share = -(0.25 * np.log2(0.25) + 0.75 * np.log2(0.75))
    assert share == pytest.approx(0.811278, abs=1e-6)
    T = np.log(1 + np.e * share**2)
    odds = 3 ** (1 / T)
    assert combine(after)[0, 1] == pytest.approx(odds / (1 + odds), abs=1e-6)


def test_without_a_slope_it_is_a_temperature():
    predictions = random_predictions(N=50, M=3)
    flat = EntropyTemperature(float(np.log(np.expm1(1.7))), 0.0, *WIDE)
    expected = Temperature(1.7).apply(predictions).log_probs
    assert flat.apply(predictions).log_probs == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("C", "M"), [(2, 1), (2, 3), (4, 1), (4, 3)])
def test_it_recovers_the_map_that_made_the_data(C, M):
    predictions, truth = bent(2.5, 1.5, N=20000, C=C, M=M)
    fitted = EntropyTemperature.fit(predictions)
    gap = np.abs(combine(fitted.apply(predictions)) - truth).mean()
    assert gap < 0.01
    assert gap < np.abs(combine(Temperature.fit(predictions).apply(predictions)) - truth).mean() / 4


@pytest.mark.parametrize("seed", range(4))
def test_no_other_pair_of_numbers_is_better_by_nll_and_prior(seed):
    predictions = random_predictions(N=80, M=2, seed=seed, raters=False)
    labels = predictions.labels
    fitted = EntropyTemperature.fit(predictions)

    def loss(values):
        probs = combine(EntropyTemperature(*values, fitted.lowest, fitted.highest).apply(predictions))
        return -np.log(probs[np.arange(80), labels]).mean() + values[1] ** 2 / (2 * 80)

    starts = [(b, w) for b in (-2.0, 0.0, 2.0) for w in (-1.0, 0.0, 1.0)]
    best = min(minimize(loss, start, method="Nelder-Mead").fun for start in starts)
    assert loss((fitted.intercept, fitted.slope)) == pytest.approx(best, abs=1e-4)


@given(st.integers(0, 10**6), st.integers(2, 5), st.floats(-5, 5), st.floats(-3, 3), st.floats(-9, 0))
def test_every_members_label_stays_and_rows_stay_normalised(seed, C, intercept, slope, lowest):
    random = np.random.default_rng(seed)
    probs = random.dirichlet(np.full(C, 0.05 if seed % 2 else 1.0), (2, 20))
    predictions = predictions_of(probs, np.arange(20) % C)
    after = EntropyTemperature(intercept, slope, lowest, 0.0).apply(predictions)
    assert np.exp(after.log_probs).sum(-1) == pytest.approx(1.0, abs=1e-5)
    largest = np.take_along_axis(after.log_probs, predictions.log_probs.argmax(-1)[..., None], -1)[..., 0]
    assert (largest >= after.log_probs.max(-1) - 1e-6).all()


def test_beyond_the_entropies_that_were_seen_the_temperature_stays():
    fitted = EntropyTemperature.fit(bent(2.0, 1.0)[0])
    ends = fitted.temperatures(np.array([fitted.lowest, fitted.highest]))
    assert np.array_equal(fitted.temperatures(np.array([fitted.lowest - 5, fitted.highest + 5])), ends)
    assert ends[0] < ends[1]
    # A row as sure as a float can say is as sure as the surest that was seen, and no surer.
    assert log_shares(np.log(np.array([[1.0, 1e-30]]))) == pytest.approx(np.log(1e-12))
    assert fitted.temperatures(np.array([-27.0])) == ends[0]


def test_the_range_leaves_out_one_in_a_hundred_at_either_end():
    predictions, _ = bent(1.0, 0.5, N=1000)
    fitted = EntropyTemperature.fit(predictions)
    shares = log_shares(predictions.log_probs.astype(float))
    assert (shares < fitted.lowest).sum() == (shares > fitted.highest).sum() == 10


@pytest.mark.parametrize(
    "content",
    [
        {"intercept": 1.0, "slope": 0.0, "lowest": -1.0},
        {"intercept": 1.0, "slope": float("nan"), "lowest": -1.0, "highest": 0.0},
        {"intercept": 1.0, "slope": 0.0, "lowest": 0.0, "highest": -1.0},
        {"intercept": "x", "slope": 0.0, "lowest": -1.0, "highest": 0.0},
        {"intercept": 1.0, "slope": 0.0, "lowest": -1.0, "highest": 0.0, "strength": 0.0},
    ],
)
def test_json_of_another_shape_is_refused(content):
    with pytest.raises(InputError, match="expected"):
        calibrator_from_json({"kind": "entropy_temperature", **content})


@pytest.mark.parametrize("at", [(1.0, 0.3), (2.5, -0.7), (0.2, 1.4)])
def test_the_gradient_is_that_of_the_loss(at):
    predictions = random_predictions(N=40, M=3, seed=1, raters=False)
    x = predictions.log_probs.astype(float)
    truth = np.eye(x.shape[-1])[predictions.labels]

    def loss(values):
        scaling = EntropyTemperature(*map(float, values), -2.0, -0.05)
        return entropy_temperature._loss(scaling, x, log_shares(x), truth)

    assert loss(at)[1] == pytest.approx(approx_fprime(at, lambda values: loss(values)[0], 1e-7), abs=1e-5)
