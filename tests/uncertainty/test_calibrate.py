import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.metrics import log_loss, roc_auc_score

from credibly.errors import InputError
from credibly.records import Predictions
from credibly.uncertainty.calibration.calibrate import (
    HIGHEST_OFFSET,
    LOWEST_OFFSET,
    Temperature,
    fit_offset,
    tempered_mean,
)
from credibly.uncertainty.combine import combine
from credibly.uncertainty.decompose import decompose
from uncertainty.cases import dirichlet_of, examples, predictions_of, random_predictions


def drawn(N=20000, M=1, C=3, seed=0):
    """Logits whose softmax at T = 1 is the truth: labels are drawn from it."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2, (N, C))
    labels = (softmax(logits, -1).cumsum(-1) < random.random((N, 1))).sum(-1)
    return logits, labels


def nll(predictions, rule="mean_probs"):
    known = predictions.labels >= 0
    return log_loss(
        predictions.labels[known], combine(predictions, rule)[known], labels=range(predictions.shape[2])
    )


@pytest.mark.parametrize("truth", [0.5, 1.0, 2.5])
def test_fit_recovers_the_temperature_that_was_applied(truth):
    logits, labels = drawn()
    fitted = Temperature.fit(Predictions.from_logits(logits * truth, examples(*logits.shape, labels)))
    assert fitted.temperature == pytest.approx(truth, rel=0.03)
    assert fitted.offset == 0


@pytest.mark.parametrize("rule", ["mean_probs", "mean_logits"])
def test_fit_finds_the_least_nll_of_the_combination(rule):
    predictions = random_predictions(N=300, M=5, C=4, unknown=0.2)
    fitted = Temperature.fit(predictions, rule)
    grid = np.exp(np.linspace(np.log(0.05), np.log(20), 301))
    best = min(nll(Temperature(t).apply(predictions), rule) for t in grid)
    found = nll(fitted.apply(predictions), rule)
    assert found <= best + 1e-6
    assert found < nll(predictions, rule)


def test_the_mean_is_scored_after_tempering_not_each_member_alone():
    # Members that err in opposite ways: alone each wants a high T, their mean is right with T below 1.
    probs = np.array([[[0.6, 0.4]] * 10, [[0.99, 0.01]] * 10])
    predictions = predictions_of(probs, np.zeros(10, dtype=int))
    assert Temperature.fit(predictions).temperature == pytest.approx(0.05, abs=0.01)


def test_no_temperature_helps_a_vote():
    assert Temperature.fit(random_predictions(), "majority_vote") == Temperature()


def test_a_model_that_says_nothing_keeps_temperature_one():
    assert Temperature.fit(predictions_of(np.full((1, 10, 2), 0.5), np.arange(10) % 2)) == Temperature()


def test_fit_never_raises_the_nll():
    for seed in range(20):
        predictions = random_predictions(N=12, M=3, C=3, seed=seed)
        assert nll(Temperature.fit(predictions).apply(predictions)) <= nll(predictions) + 1e-9


def test_rows_of_unknown_label_do_not_count():
    predictions = random_predictions(N=200, unknown=0.3)
    known = predictions.take(predictions.labels >= 0)
    assert Temperature.fit(predictions).temperature == pytest.approx(
        Temperature.fit(known).temperature, rel=1e-6
    )


def test_fit_on_raters_shares_is_least_in_their_cross_entropy():
    predictions = random_predictions(N=300)
    fitted = Temperature.fit(predictions, targets="label_probs")

    def loss(temperature):
        return (
            -(predictions.label_probs * np.log(combine(Temperature(temperature).apply(predictions))))
            .sum(-1)
            .mean()
        )

    assert loss(fitted.temperature) <= min(loss(t) for t in np.geomspace(0.05, 20, 801)) + 1e-7
    assert fitted.temperature != pytest.approx(Temperature.fit(predictions).temperature, rel=0.05)


def test_too_few_targets_are_refused():
    labels = np.array([0, -1, -1])
    with pytest.raises(InputError, match=r"two rows or more with labels.*got 1 of 3"):
        Temperature.fit(predictions_of(np.full((1, 3, 2), 0.5), labels))
    with pytest.raises(InputError, match=r"two rows or more with label_probs.*got 0 of 3"):
        Temperature.fit(predictions_of(np.full((1, 3, 2), 0.5), labels), targets="label_probs")
    with pytest.raises(InputError, match="'labels' or 'label_probs', got 'both'"):
        Temperature.fit(random_predictions(), targets="both")
    with pytest.raises(InputError, match="unknown rule 'mean'"):
        Temperature.fit(random_predictions(), "mean")


@pytest.mark.parametrize("arguments", [(0.0,), (-1.0,), (np.nan,), (np.inf,), (1.0, np.nan)])
def test_a_temperature_is_positive_and_finite(arguments):
    with pytest.raises(InputError, match="positive temperature"):
        Temperature(*arguments)


@given(st.floats(0.3, 8), st.integers(0, 10**6))
def test_temperature_leaves_a_single_models_decisions_and_auroc_unmoved(temperature, seed):
    predictions = random_predictions(N=100, M=1, C=2, seed=seed)
    tempered = Temperature(temperature).apply(predictions)
    before, after = combine(predictions), combine(tempered)
    assert (before.argmax(-1) == after.argmax(-1)).all()
    labels = predictions.labels
    assert roc_auc_score(labels, after[:, 1]) == pytest.approx(roc_auc_score(labels, before[:, 1]), abs=1e-12)


def test_tempered_members_are_softmaxes_of_their_logits():
    logits = np.random.default_rng(0).normal(0, 3, (4, 50, 3))
    predictions = Predictions.from_logits(logits, examples(50, 3))
    tempered = Temperature(2.0, offset=1.5).apply(predictions)
    assert np.allclose(np.exp(tempered.log_probs), softmax(logits / 2, -1), atol=1e-6)
    assert decompose(tempered).epistemic.max() > 0


def test_temperature_one_is_the_same_record():
    predictions = random_predictions()
    assert Temperature().apply(predictions) is predictions


def test_concentrations_become_exp_of_z_over_t_plus_c():
    alpha = np.array([[1.0, 4.0, 9.0], [0.5, 2.0, 1.0]])
    after = Temperature(2.0, 0.7).apply(dirichlet_of(alpha, [2, 1]))
    assert after.concentrations == pytest.approx(np.sqrt(alpha) * np.exp(0.7), rel=1e-6)
    assert np.exp(after.log_probs[0]) == pytest.approx(
        np.sqrt(alpha) / np.sqrt(alpha).sum(-1, keepdims=True), rel=1e-6
    )


def test_the_offset_moves_how_sure_a_dirichlet_is_and_never_its_mean():
    before = dirichlet_of([[1.0, 4.0, 9.0]])
    after = Temperature(1.0, 2.0).apply(before)
    assert np.allclose(combine(after), combine(before), atol=1e-7)
    assert decompose(after).epistemic[0] < decompose(before).epistemic[0]


@pytest.mark.parametrize(
    "calibrator", [Temperature(0.05), Temperature(20.0), Temperature(0.05, 20), Temperature(1, -20)]
)
def test_extreme_maps_still_make_valid_records(calibrator):
    before = dirichlet_of([[1e9, 1e3, 1.0], [1e-6, 1e-3, 1e-9], [2.0, 2.0, 2.0]])
    after = calibrator.apply(before)
    expected = softmax(np.log(before.concentrations.astype(float)) / calibrator.temperature, -1)
    assert np.allclose(combine(after), expected, atol=1e-5)


@pytest.mark.parametrize("target", [1e-4, 0.02, 0.3])
@pytest.mark.parametrize("temperature", [0.7, 1.0, 3.0])
def test_the_offset_gives_the_mean_mutual_information_asked_for(target, temperature):
    predictions = dirichlet_of(np.random.default_rng(0).gamma(1.0, 4.0, (300, 3)) + 0.01)
    offset = fit_offset(predictions, temperature, target)
    folded = Temperature(temperature, offset).apply(predictions)
    assert decompose(folded).epistemic.mean() == pytest.approx(target, rel=1e-4)


def test_targets_out_of_reach_give_the_ends():
    predictions = dirichlet_of([[1.0, 2.0], [3.0, 1.0]])
    assert fit_offset(predictions, 1.0, 0.0) == HIGHEST_OFFSET
    assert fit_offset(predictions, 1.0, 5.0) == LOWEST_OFFSET


def test_an_offset_needs_concentrations_and_a_sensible_target():
    with pytest.raises(InputError, match="concentrations"):
        fit_offset(random_predictions(), 1.0, 0.1)
    for target in (-0.1, np.nan):
        with pytest.raises(InputError, match="mutual information >= 0"):
            fit_offset(dirichlet_of([[1.0, 2.0]]), 1.0, target)
    with pytest.raises(InputError, match="positive temperature"):
        fit_offset(dirichlet_of([[1.0, 2.0]]), 0.0, 0.1)


def test_json_goes_there_and_back():
    calibrator = Temperature(1.7, -0.25)
    assert Temperature.from_json(json.loads(json.dumps(calibrator.as_json()))) == calibrator


@pytest.mark.parametrize("content", [{"T": 1.0}, {"temperature": "hot"}, [1.0], {"temperature": None}])
def test_json_of_another_shape_is_refused(content):
    with pytest.raises(InputError, match=r"expected \{'temperature': T, 'offset': c\}"):
        Temperature.from_json(content)


@pytest.mark.parametrize("temperature", [0.05, 0.3, 1.0, 2.5, 20.0])
def test_the_quick_mean_of_tempered_members_is_that_of_the_record(temperature):
    predictions = random_predictions(M=4, N=60, C=5)
    quick = tempered_mean(predictions.log_probs.astype(np.float64), temperature)
    np.testing.assert_allclose(quick, combine(Temperature(temperature).apply(predictions)), atol=1e-6)
