import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from credibly.errors import InputError
from credibly.records import Predictions
from credibly.uncertainty.calibration.affine import DirichletCalibration, VectorScaling
from credibly.uncertainty.calibration.affine_fit import STRENGTHS
from credibly.uncertainty.calibration.calibrate import Temperature
from credibly.uncertainty.calibration.calibration_rows import folds_of
from credibly.uncertainty.calibration.calibrators import (
    BY_CLASS,
    KINDS,
    MAPS,
    InTurn,
    OnMean,
    calibrator_from_json,
    cross_fitted,
    fit_calibrator,
)
from credibly.uncertainty.calibration.isotonic import IsotonicCalibration
from credibly.uncertainty.combine import averaged, combine
from credibly.uncertainty.decompose import decompose
from uncertainty.cases import dirichlet_of, examples, predictions_of, random_predictions

NAMES = ("class-0", "class-1", "class-2")


def nll(predictions, labels=None):
    labels = predictions.labels if labels is None else labels
    known = labels >= 0
    return log_loss(labels[known], combine(predictions)[known], labels=range(predictions.shape[2]))


def drawn(weights, intercepts, N=20000, seed=0):
    """Predictions of which softmax(W x + b) is the truth: labels are drawn from it."""
    random = np.random.default_rng(seed)
    C = len(intercepts)
    x = log_softmax(random.normal(0, 2, (N, C)), -1)
    truth = softmax(x @ np.asarray(weights).T + intercepts, -1)
    labels = (truth.cumsum(-1) < random.random((N, 1))).sum(-1).clip(max=C - 1)
    return Predictions.from_logits(x, examples(N, C, labels)), truth


def swapped(predictions, classes):
    """The same predictions with the classes, their names and the labels in another order."""
    back = np.argsort(classes)
    return Predictions(
        log_probs=predictions.log_probs[:, :, classes],
        ids=predictions.ids,
        class_names=tuple(predictions.class_names[index] for index in classes),
        labels=np.where(predictions.labels < 0, -1, back[predictions.labels]),
    )


def fit_least(form, x, labels, strength):
    """SciPy's generic minimiser with numeric gradients, of the same penalised loss written plainly."""
    N, C = x.shape

    def unpacked(values):
        if form == "dirichlet":
            return values[: C * C].reshape(C, C), values[C * C :]
        return np.diag(values[:C]), values[C:]

    def loss(values):
        weights, intercepts = unpacked(values)
        log_probs = log_softmax(x @ weights.T + intercepts, -1)
        slopes = np.diag(weights)
        spread = ((slopes - slopes.mean()) ** 2).sum() if form == "vector" else 0.0
        off_diagonal = (weights**2).sum() - (slopes**2).sum()
        penalty = spread + off_diagonal + (intercepts**2).sum()
        return (-log_probs[np.arange(N), labels].sum() + strength * penalty) / N

    start = np.concatenate([np.eye(C).ravel() if form == "dirichlet" else np.ones(C), np.zeros(C)])
    return loss, minimize(loss, start, method="BFGS", options={"gtol": 1e-6})


def test_vector_scaling_by_hand():
    # Probabilities (1/4, 3/4) with slopes (2, 1) and b = (ln 4, 0): 4/16 against 12/16; the same again.
    before = predictions_of([[[0.25, 0.75], [0.5, 0.5]]])
    after = VectorScaling(before.class_names, (2.0, 1.0), (np.log(4), 0.0)).apply(before)
    assert combine(after) == pytest.approx(np.array([[0.25, 0.75], [2 / 3, 1 / 3]]), abs=1e-6)


def test_a_dirichlet_map_by_hand():
    # W swaps the two classes, and b doubles the odds of the first.
    before = predictions_of([[[0.2, 0.8]]])
    calibrator = DirichletCalibration(before.class_names, ((0.0, 1.0), (1.0, 0.0)), (np.log(2), 0.0))
    assert combine(calibrator.apply(before)) == pytest.approx(np.array([[1.6 / 1.8, 0.2 / 1.8]]), abs=1e-6)


def test_isotonic_by_hand():
    # Of class 1 said 0.1 to 0.9: labels 0, 1, 0, 1, 1. The two in the middle pool to 1/2; ends 1/7, 6/7.
    said = np.array([0.1, 0.3, 0.5, 0.7, 0.9])
    before = predictions_of(np.stack([1 - said, said], -1)[None], [0, 1, 0, 1, 1])
    fitted = IsotonicCalibration.fit(before)
    after = combine(fitted.apply(before))[:, 1]
    assert after == pytest.approx([1 / 7, 0.5, 0.5, 6 / 7, 6 / 7], abs=1e-6)
    assert combine(fitted.apply(predictions_of([[[0.8, 0.2]]])))[0, 1] == pytest.approx((1 / 7 + 0.5) / 2)


@pytest.mark.parametrize("strength", [0.3, 10.0])
@pytest.mark.parametrize("kind", ["vector", "dirichlet"])
def test_the_optimum_is_that_of_a_generic_minimiser(kind, strength):
    predictions = random_predictions(N=120, M=1)
    fitted = BY_CLASS[kind].fit(predictions, strength=strength)
    loss, best = fit_least(kind, predictions.log_probs[0].astype(float), predictions.labels, strength)
    numbers = fitted.slopes if kind == "vector" else np.ravel(fitted.weights)
    assert np.concatenate([numbers, fitted.intercepts]) == pytest.approx(best.x, abs=2e-3)
    assert loss(np.concatenate([numbers, fitted.intercepts])) <= best.fun + 1e-9


def test_without_a_penalty_a_dirichlet_map_is_multinomial_regression():
    predictions = random_predictions(N=150, M=1)
    x = predictions.log_probs[0].astype(float)
    regression = LogisticRegression(C=np.inf, tol=1e-8, max_iter=10000).fit(x, predictions.labels)
    fitted = DirichletCalibration.fit(predictions, strength=0.0)
    assert combine(fitted.apply(predictions)) == pytest.approx(regression.predict_proba(x), abs=1e-3)


def test_without_a_penalty_vector_scaling_of_two_classes_is_logistic_regression():
    predictions = random_predictions(N=150, M=1, C=2)
    features = predictions.log_probs[0].astype(float) * [-1, 1]
    regression = LogisticRegression(C=np.inf, tol=1e-8, max_iter=10000).fit(features, predictions.labels)
    fitted = VectorScaling.fit(predictions, strength=0.0)
    assert combine(fitted.apply(predictions)) == pytest.approx(regression.predict_proba(features), abs=1e-3)


@pytest.mark.parametrize("coarse", [False, True])
def test_isotonic_is_scikit_learns_for_each_class(coarse):
    predictions = random_predictions(N=300, M=1, coarse=coarse)
    fresh = random_predictions(N=100, M=1, seed=1)
    # Single precision writes the same probability of two rows with different last digits.
    said, asked = (combine(each).round(6 if coarse else 15) for each in (predictions, fresh))
    columns = []
    for index in range(3):
        regression = IsotonicRegression(y_min=1 / 302, y_max=301 / 302, out_of_bounds="clip")
        regression.fit(said[:, index], predictions.labels == index)
        columns.append(regression.predict(asked[:, index]))
    expected = np.stack(columns, -1)
    fitted = IsotonicCalibration.fit(predictions)
    assert combine(fitted.apply(fresh)) == pytest.approx(expected / expected.sum(-1, keepdims=True), abs=1e-5)


@pytest.mark.parametrize("on", ["mean", "members"])
@pytest.mark.parametrize("kind", KINDS)
def test_no_map_raises_the_nll_of_the_rows_it_was_fitted_on(kind, on):
    for seed in range(4):
        predictions = random_predictions(N=25, M=3, seed=seed, unknown=0.1)
        fitted = fit_calibrator(predictions, kind, on)
        assert nll(fitted.apply(predictions)) <= nll(predictions) + 1e-6


@pytest.mark.parametrize("seed", range(5))
def test_a_larger_family_fits_no_worse(seed):
    predictions = random_predictions(N=60, M=1, seed=seed)
    temperature = Temperature.fit(predictions)
    vector = VectorScaling.fit(predictions, strength=0.0)
    dirichlet = DirichletCalibration.fit(predictions, strength=0.0)
    order = [nll(each.apply(predictions)) for each in (dirichlet, vector, temperature)]
    assert order[0] < order[1] < order[2] < nll(predictions)


def test_a_strong_penalty_leaves_vector_scaling_a_temperature():
    predictions = random_predictions(N=200, M=1)
    fitted = VectorScaling.fit(predictions, strength=1e9)
    assert fitted.slopes == pytest.approx([1 / Temperature.fit(predictions).temperature] * 3, rel=1e-3)
    assert fitted.intercepts == pytest.approx([0.0] * 3, abs=1e-4)


def test_the_penalty_of_a_dirichlet_map_spares_the_diagonal():
    predictions, _ = drawn(np.diag([0.5, 1.0, 2.0]), np.zeros(3))
    fitted = np.array(DirichletCalibration.fit(predictions, strength=1e7).weights)
    assert np.abs(fitted - np.diag(np.diagonal(fitted))).max() < 0.01
    assert np.ptp(np.diagonal(fitted)) > 0.5


@pytest.mark.parametrize("on", ["mean", "members"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_rows_members_and_classes_does_not_matter(kind, on):
    predictions = random_predictions(N=90, M=3, raters=False, unknown=0.1)
    random = np.random.default_rng(1)
    rows, members, classes = (random.permutation(size) for size in (90, 3, 3))
    moved = swapped(predictions.take(rows), classes)
    moved = Predictions(moved.log_probs[members], moved.ids, moved.class_names, moved.labels)
    before = combine(fit_calibrator(predictions, kind, on).apply(predictions))
    after = combine(fit_calibrator(moved, kind, on).apply(moved))
    assert after == pytest.approx(before[rows][:, classes], abs=2e-4)


@pytest.mark.slow
@settings(max_examples=15)
@given(st.sampled_from(list(MAPS)), st.integers(0, 10**6), st.booleans(), st.integers(2, 4))
def test_saturated_probabilities_stay_finite_and_normalised(kind, seed, right, C):
    random = np.random.default_rng(seed)
    labels = np.arange(6 * C) % C
    said = labels if right else random.permutation(labels)
    probs = np.stack([np.eye(C)[said], random.dirichlet(np.full(C, 0.01), 6 * C)])
    predictions = predictions_of(probs, labels)
    for on in ("mean", "members"):
        after = fit_calibrator(predictions, kind, on).apply(predictions)
        assert np.exp(after.log_probs).sum(-1) == pytest.approx(1.0, abs=1e-5)
        assert nll(after) <= nll(predictions) + 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("strength", [None, 0.0])
def test_vector_scaling_recovers_the_map_that_made_the_data(strength):
    slopes, intercepts = np.array([0.4, 0.6, 0.8]), np.array([0.5, -0.3, -0.2])
    predictions, truth = drawn(np.diag(slopes), intercepts)
    fitted = VectorScaling.fit(predictions, strength=strength)
    assert fitted.slopes == pytest.approx(slopes, abs=0.06)
    assert combine(fitted.apply(predictions)) == pytest.approx(truth, abs=0.03)


@pytest.mark.slow
def test_a_dirichlet_map_recovers_the_map_that_made_the_data():
    weights = np.array([[0.6, 0.2, 0.0], [0.0, 0.5, -0.2], [0.1, 0.0, 0.8]])
    predictions, truth = drawn(weights, np.array([0.3, 0.0, -0.3]))
    fitted = DirichletCalibration.fit(predictions)
    assert np.abs(combine(fitted.apply(predictions)) - truth).mean() < 0.01
    assert nll(fitted.apply(predictions)) < nll(VectorScaling.fit(predictions).apply(predictions)) - 0.005


def test_isotonic_recovers_a_bent_curve():
    random = np.random.default_rng(0)
    said = random.random(40000)
    labels = (random.random(40000) < said**3).astype(int)
    predictions = predictions_of(np.stack([1 - said, said], -1)[None], labels)
    after = combine(IsotonicCalibration.fit(predictions).apply(predictions))[:, 1]
    assert np.abs(after - said**3).mean() < 0.01


def test_fewer_rows_draw_a_stronger_prior_where_the_truth_is_a_temperature():
    predictions, _ = drawn(0.5 * np.eye(3), np.zeros(3), N=100)
    assert DirichletCalibration.fit(predictions).strength >= 10
    assert {DirichletCalibration.fit(predictions, seed=seed).strength for seed in range(3)} <= set(STRENGTHS)


def test_a_map_of_members_is_scored_on_their_mean():
    # Opposite errors: each member alone wants to be softer, their mean to be sharper.
    random = np.random.default_rng(0)
    labels = np.arange(200) % 2
    z = np.where(labels, 0.7, -0.7) + random.normal(0, 2.5, 200) * np.array([[1], [-1]])
    logits = np.stack([np.zeros_like(z), z], -1)
    predictions = Predictions.from_logits(logits, examples(200, 2, labels))
    shared = VectorScaling.fit(predictions, strength=0.0)
    x = predictions.log_probs.astype(float)

    def loss(values):
        probs = softmax(x * values[:2] + [0.0, values[2]], -1).mean(0)
        return -np.log(probs[np.arange(200), labels]).mean()

    best = minimize(loss, [1.0, 1.0, 0.0], method="Nelder-Mead", options={"maxiter": 4000}).fun
    assert nll(shared.apply(predictions)) == pytest.approx(best, abs=1e-4)
    apart = VectorScaling.fit(predictions.member(0), strength=0.0)
    assert nll(shared.apply(predictions)) < nll(apart.apply(predictions)) - 0.01


def test_members_stay_members_and_the_mean_becomes_one():
    predictions = random_predictions(M=4)
    for kind in KINDS:
        shared = fit_calibrator(predictions, kind, on="members").apply(predictions)
        assert shared.shape == predictions.shape
        assert decompose(shared).epistemic.max() > 0
        averaged_first = fit_calibrator(predictions, kind, on="mean").apply(predictions)
        assert averaged_first.shape == (1, *predictions.shape[1:])
        assert (averaged_first.labels == predictions.labels).all()


@pytest.mark.parametrize("rule", ["mean_logits", "majority_vote"])
def test_any_rule_can_be_calibrated_on_its_combination(rule):
    predictions = random_predictions(M=4)
    fitted = fit_calibrator(predictions, "vector", rule=rule)
    assert nll(fitted.apply(predictions)) < nll(averaged(predictions, rule))
    with pytest.raises(InputError, match="use on='mean'"):
        fit_calibrator(predictions, "vector", "members", rule)


@pytest.mark.parametrize("kind", list(MAPS))
def test_a_dirichlet_keeps_its_total_concentration(kind):
    random = np.random.default_rng(0)
    before = dirichlet_of(random.gamma(1.0, 4.0, (60, 3)) + 0.01, np.arange(60) % 3)
    after = fit_calibrator(before, kind, on="members").apply(before)
    assert after.concentrations.sum(-1) == pytest.approx(before.concentrations.sum(-1), rel=1e-5)
    assert combine(after) == pytest.approx(np.exp(after.log_probs[0]), abs=1e-5)
    assert fit_calibrator(before, kind, on="mean").apply(before).concentrations is None


@pytest.mark.parametrize("kind", list(MAPS))
def test_raters_shares_that_are_one_hot_fit_as_labels_do(kind):
    labels = np.arange(60) % 3
    probs = np.exp(random_predictions(N=60, M=1).log_probs)
    hard = predictions_of(probs, labels)
    soft = predictions_of(probs, label_probs=np.eye(3)[labels])
    fitted = fit_calibrator(soft, kind, targets="label_probs")
    assert fitted == fit_calibrator(hard, kind)


def test_rows_of_unknown_label_do_not_count():
    predictions = random_predictions(N=100, unknown=0.3)
    known = predictions.take(predictions.labels >= 0)
    for kind in MAPS:
        assert fit_calibrator(predictions, kind) == fit_calibrator(known, kind)


@pytest.mark.parametrize("kind", list(BY_CLASS))
def test_a_class_without_rows_is_refused_by_name(kind):
    predictions = predictions_of(np.full((1, 11, 3), 1 / 3), [0, 1] * 5 + [2])
    with pytest.raises(InputError, match=r"2 calibration rows or more of every class.*'class-2' \(1\).*add"):
        fit_calibrator(predictions, kind)
    with pytest.raises(InputError, match=r"3 calibration rows or more of every class"):
        cross_fitted(predictions, kind)
    assert fit_calibrator(predictions, "temperature") == OnMean(Temperature())


@pytest.mark.parametrize("on", ["mean", "members"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_calibrator_is_read_back_by_its_kind(kind, on):
    calibrator = fit_calibrator(random_predictions(N=50), kind, on)
    assert calibrator_from_json(json.loads(json.dumps(calibrator.as_json()))) == calibrator


def test_calibrators_in_turn_are_applied_in_their_order_and_read_back():
    predictions = random_predictions(N=50, raters=False)
    vector = VectorScaling(predictions.class_names, (0.5, 1.0, 2.0), (1.0, 0.0, -1.0))
    both = InTurn((vector, Temperature(2.0)))
    expected = Temperature(2.0).apply(vector.apply(predictions))
    assert np.array_equal(both.apply(predictions).log_probs, expected.log_probs)
    other = InTurn((Temperature(2.0), vector)).apply(predictions)
    assert not np.allclose(other.log_probs, expected.log_probs)
    assert calibrator_from_json(json.loads(json.dumps(both.as_json()))) == both


@pytest.mark.parametrize(
    "content",
    [
        {"kind": "vectors"},
        {"kind": "vector", "slopes": [1.0, 1.0]},
        {"kind": "vector", "class_names": ["a", "b"], "slopes": [1.0, "x"], "intercepts": [0.0, 0.0]},
        {"kind": "vector", "class_names": ["a", "b"], "slopes": [1.0], "intercepts": [0.0, 0.0]},
        {"kind": "vector", "class_names": ["a", "a"], "slopes": [1.0, 1.0], "intercepts": [0.0, 0.0]},
        {"kind": "dirichlet", "class_names": ["a", "b"], "weights": [1.0], "intercepts": [0.0, 0.0]},
        {"kind": "isotonic", "class_names": ["a", "b"], "curves": [[[0.0, 1.0], [1.0, 0.0]]] * 2},
        {"kind": "isotonic", "class_names": ["a", "b"], "curves": [[[], []]] * 2},
        {"kind": "isotonic", "class_names": ["a", "b"], "curves": 3},
        {"kind": "on_mean", "rule": "mean_probs"},
        {"kind": "on_mean", "rule": "mean", "calibrator": {"temperature": 1.0, "offset": 0.0}},
        {"kind": "in_turn"},
        {"kind": "in_turn", "calibrators": {"temperature": 1.0, "offset": 0.0}},
        {"kind": "in_turn", "calibrators": [{"kind": "vectors"}]},
        {"kind": "in_turn", "calibrators": [], "rule": "mean_probs"},
        [1.0],
    ],
)
def test_json_of_another_shape_is_refused(content):
    with pytest.raises(InputError, match=r"expected|unknown"):
        calibrator_from_json(content)


@pytest.mark.parametrize("kind", list(BY_CLASS))
def test_a_map_is_not_applied_to_other_classes(kind):
    predictions = random_predictions(N=50, raters=False)
    fitted = fit_calibrator(predictions, kind)
    with pytest.raises(InputError, match="in this order; got class-1, class-0, class-2"):
        fitted.apply(swapped(predictions, [1, 0, 2]))


def test_unknown_names_and_strengths_are_refused():
    predictions = random_predictions(N=50)
    with pytest.raises(InputError, match="did you mean 'vector'"):
        fit_calibrator(predictions, "vektor")
    with pytest.raises(InputError, match="'mean' or 'members', got 'all'"):
        fit_calibrator(predictions, "vector", on="all")
    with pytest.raises(InputError, match="strength >= 0, got -1"):
        VectorScaling.fit(predictions, strength=-1.0)
    with pytest.raises(InputError, match="two folds or more"):
        cross_fitted(predictions, "vector", folds=1)
    with pytest.raises(InputError, match="26 folds of 50 such rows"):
        cross_fitted(predictions, "vector", folds=26)


@pytest.mark.slow
@pytest.mark.parametrize("on", ["mean", "members"])
def test_cross_fitted_rows_are_mapped_by_the_other_folds_alone(on):
    predictions = random_predictions(N=80, unknown=0.1)
    fold_of = folds_of(predictions, 4, seed=3)
    record = cross_fitted(predictions, "dirichlet", folds=4, seed=3, on=on)
    for fold in range(4):
        inside = predictions.take(fold_of == fold)
        fitted = fit_calibrator(predictions.take(fold_of != fold), "dirichlet", on)
        assert (record.take(fold_of == fold).log_probs == fitted.apply(inside).log_probs).all()
    assert record.ids == predictions.ids
    assert (record.labels == predictions.labels).all()


def test_a_rows_own_label_does_not_move_its_cross_fitted_probabilities():
    probs = np.exp(random_predictions(N=60, M=1).log_probs)
    labels = np.arange(60) % 3
    before = cross_fitted(predictions_of(probs, labels), "isotonic", seed=1)
    fold_of = folds_of(predictions_of(probs, labels), 5, seed=1)
    # Two labels exchanged within one fold leave the folds as they are only if ids are dealt out alike.
    for first in np.flatnonzero(fold_of == 0):
        second = next(row for row in np.flatnonzero(fold_of == 0) if labels[row] != labels[first])
        changed = labels.copy()
        changed[[first, second]] = changed[[second, first]]
        moved = predictions_of(probs, changed)
        if (folds_of(moved, 5, seed=1) == fold_of).all():
            after = cross_fitted(moved, "isotonic", seed=1)
            assert (after.log_probs[0, first] == before.log_probs[0, first]).all()
            return
    pytest.fail("no exchange left the folds as they were")


def test_cross_fitting_keeps_a_dirichlets_concentrations_with_their_rows():
    random = np.random.default_rng(0)
    before = dirichlet_of(random.gamma(1.0, 4.0, (60, 3)) + 0.01, np.arange(60) % 3)
    after = cross_fitted(before, "vector", on="members")
    assert after.concentrations.sum(-1) == pytest.approx(before.concentrations.sum(-1), rel=1e-5)


@given(st.integers(0, 10**6), st.integers(2, 6), st.integers(12, 90))
def test_folds_hold_like_shares_of_every_class(seed, folds, N):
    predictions = random_predictions(N=N, M=1, seed=seed, unknown=0.2, raters=False)
    if (predictions.labels >= 0).sum() < 2 * folds:
        return
    fold_of = folds_of(predictions, folds, seed=seed)
    for label in np.unique(predictions.labels):
        counts = np.bincount(fold_of[predictions.labels == label], minlength=folds)
        assert np.ptp(counts) <= 1
    assert (folds_of(predictions, folds, seed=seed + 1) != fold_of).any()


def test_rows_that_belong_together_are_in_one_fold():
    groups = np.random.default_rng(0).permutation(np.repeat(np.arange(60), 3))
    predictions = replace(random_predictions(N=180, M=1), groups=groups)
    fold_of = folds_of(predictions, 4)
    in_group = [set(fold_of[groups == group].tolist()) for group in range(60)]
    assert all(len(found) == 1 for found in in_group)
    assert np.bincount(fold_of).tolist() == [45] * 4
    # Too few to be drawn as one: the group is then but a slice.
    few = replace(predictions, groups=groups % 5)
    assert (folds_of(few, 4) == folds_of(replace(predictions, groups=None), 4)).all()
