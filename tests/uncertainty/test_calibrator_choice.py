import json

import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from scipy.stats import entropy

from credibly.errors import InputError
from credibly.records import Predictions
from credibly.uncertainty.calibration.calibrate import Temperature
from credibly.uncertainty.calibration.calibration_rows import folds_of
from credibly.uncertainty.calibration.calibrator_choice import choose_calibrator, cross_fitted_choice
from credibly.uncertainty.calibration.calibrators import (
    BY_CLASS,
    KINDS,
    OnMean,
    calibrator_from_json,
    cross_fitted,
    fit_calibrator,
)
from credibly.uncertainty.combine import combine
from uncertainty.cases import examples, predictions_of, random_predictions

LINEAR = {
    "identity": (np.eye(3), np.zeros(3)),
    "temperature": (0.4 * np.eye(3), np.zeros(3)),
    "vector": (np.diag([0.3, 0.6, 1.2]), np.array([1.0, 0.0, -1.0])),
    "dirichlet": (np.array([[0.6, 0.5, 0.0], [0.0, 0.4, -0.5], [-0.5, 0.0, 0.8]]), np.zeros(3)),
}


def drawn(kind, N, seed):
    """Predictions that a map of this kind makes true."""
    random = np.random.default_rng(seed)
    if kind == "isotonic":
        said = random.random(N)
        truth = np.where(said < 0.5, 0.1, 0.6) + 0.3 * (said > 0.8)
        labels = (random.random(N) < truth).astype(int)
        return predictions_of(np.stack([1 - said, said], -1)[None], labels)
    x = log_softmax(random.normal(0, 1.5, (N, 3)), -1)
    if kind == "entropy_temperature":  # too sure where it hesitates, not sure enough where it does not
        share = entropy(softmax(x, -1), axis=-1) / np.log(3)
        truth = softmax(x / (0.5 + 2 * share)[:, None], -1)
    else:
        weights, intercepts = LINEAR[kind]
        truth = softmax(x @ weights.T + intercepts, -1)
    labels = (truth.cumsum(-1) < random.random((N, 1))).sum(-1).clip(max=2)
    return Predictions.from_logits(x, examples(N, 3, labels))


def losses_of(predictions):
    return -np.log(combine(predictions)[np.arange(len(predictions.ids)), predictions.labels])


@pytest.mark.slow
def test_probabilities_that_hold_are_left_alone():
    kept = [choose_calibrator(drawn("identity", 200, seed)).kind == "identity" for seed in range(5)]
    assert sum(kept) >= 4


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_family_that_made_the_data_is_taken(kind):
    assert choose_calibrator(drawn(kind, 2000, 0), folds=3).kind == kind


def test_figures_are_those_of_cross_fitting():
    predictions = random_predictions(N=60)
    choice = choose_calibrator(predictions, "members", folds=2, seed=2)
    plain = losses_of(predictions)
    assert [candidate.kind for candidate in choice.candidates] == list(KINDS)
    for candidate in choice.candidates:
        losses = losses_of(cross_fitted(predictions, candidate.kind, 2, 2, "members"))
        assert candidate.nll == pytest.approx(losses.mean(), abs=1e-9)
        assert candidate.standard_error == pytest.approx(losses.std(ddof=1) / np.sqrt(60), abs=1e-9)
        gains = plain - losses
        assert candidate.gain == pytest.approx(gains.mean(), abs=1e-9)
        assert candidate.gain_standard_error == pytest.approx(gains.std(ddof=1) / np.sqrt(60), abs=1e-9)
    assert sum(candidate.taken for candidate in choice.candidates) == 1
    assert choice.calibrator == fit_calibrator(predictions, choice.kind, "members")


@pytest.mark.slow
def test_a_choice_does_not_depend_on_the_order_of_rows():
    predictions = drawn("vector", 200, 0)
    moved = predictions.take(np.random.default_rng(0).permutation(200))
    before, after = choose_calibrator(predictions), choose_calibrator(moved)
    assert before.kind == after.kind
    assert [one.nll for one in before.candidates] == pytest.approx(
        [one.nll for one in after.candidates], abs=1e-4
    )


@pytest.mark.slow
def test_words_say_what_was_taken_and_why():
    lines = choose_calibrator(drawn("temperature", 500, 0)).describe().splitlines()
    by_kind = dict(zip(KINDS, lines, strict=True))
    assert "left out; against temperature: NLL higher by" in by_kind["identity"]
    assert ", taken; " in by_kind["temperature"]
    assert sum(", taken; " in line for line in lines) == 1
    kept = choose_calibrator(drawn("identity", 200, 1)).describe()
    assert "taken; nothing lowers its NLL beyond one standard error" in kept
    assert kept.count("left out; it does not help: NLL ") == len(KINDS) - 1


def test_what_cannot_be_fitted_for_want_of_a_class_is_left_out_and_said():
    predictions = random_predictions(N=80, raters=False)
    predictions = predictions.take(predictions.labels != 2)
    choice = choose_calibrator(predictions)
    for candidate in choice.candidates[-len(BY_CLASS) :]:
        assert candidate.nll is None
        assert "could not be fitted" in candidate.reason
        assert "'class-2' (0)" in candidate.reason
    assert choice.candidates[1].nll is not None
    assert "vector: left out; it could not be fitted" in choice.describe()


@pytest.mark.slow
def test_a_choice_goes_into_json_and_its_calibrator_back():
    choice = choose_calibrator(drawn("vector", 500, 0))
    content = json.loads(json.dumps(choice.as_json()))
    assert calibrator_from_json(content["calibrator"]) == choice.calibrator
    assert [candidate["kind"] for candidate in content["candidates"]] == list(KINDS)


def test_cross_fitting_the_choice_chooses_without_the_rows_it_maps():
    predictions = drawn("temperature", 150, 0)
    record = cross_fitted_choice(predictions, folds=2)
    fold_of = folds_of(predictions, 2)
    chosen = choose_calibrator(predictions.take(fold_of == 1), folds=2).calibrator
    inside = predictions.take(fold_of == 0)
    assert (record.take(fold_of == 0).log_probs == chosen.apply(inside).log_probs).all()
    assert losses_of(record).mean() < losses_of(predictions).mean()


def test_too_few_rows_and_unknown_names_are_refused_before_anything_is_fitted():
    with pytest.raises(InputError, match="5 folds of 9 such rows"):
        choose_calibrator(random_predictions(N=9))
    with pytest.raises(InputError, match="unknown rule 'mean'"):
        choose_calibrator(random_predictions(N=60), rule="mean")


def test_a_model_that_says_nothing_is_left_alone():
    choice = choose_calibrator(predictions_of(np.full((1, 40, 2), 0.5), np.arange(40) % 2))
    assert choice.calibrator == OnMean(Temperature())
