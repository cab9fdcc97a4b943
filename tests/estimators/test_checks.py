"""scikit-learn's own checks of estimators. They feed numbers, which are put into words first."""

from unittest import SkipTest

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import SkipTestWarning
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import check_estimator, estimator_checks_generator

import standins
from credibly.estimators import EnsembleClassifier, StudentClassifier

SETTINGS = {
    "backbone.precision": "fp32",
    "members.hidden": [16],
    "distil.blocks": 1,
    "distil.optimiser.epochs": 8,
    "distil.optimiser.learning_rate": 0.01,
}
LEVELS = 10

OF_NUMBERS = {
    "check_estimators_empty_data_messages": "wants an array of no columns told in scikit-learn's words",
    "check_estimators_nan_inf": "texts have no infinity, and NaN is refused as an empty text",
    "check_fit2d_predict1d": "one dimension is what texts have",
    "check_sample_weight_equivalence_on_dense_data": "a row more moves the split and the draws of members",
    "check_array_api_input": "arrays of other libraries hold no texts",
}
"""Checks that cannot apply, and why. `test_inputs` holds what is refused instead."""

OF_DOUBLE_PRECISION = {
    "check_methods_subset_invariance": "wants 1e-7, and single precision sums in the batch's order",
    "check_methods_sample_order_invariance": "likewise",
}
"""Checks that hold to 1e-6, as `test_inputs` does, and to 1e-7 on some machines."""

LENGTHY = {
    "check_classifiers_train",
    "check_classifiers_classes",
    "check_classifier_data_not_an_array",
    "check_estimators_dtypes",
    "check_dtype_object",
    "check_pipeline_consistency",
    "check_supervised_y_2d",
    "check_fit_idempotent",
    "check_fit2d_predict1d",
}


def numbers(X):
    """Return real numbers, (N, D), or None where there are none."""
    cells = np.asarray(X)
    if cells.ndim != 2 or cells.dtype.kind == "c":
        return None
    try:
        return cells.astype(float)
    except (TypeError, ValueError):
        return None


def in_words(X):
    """Return numbers, (N, D), as N texts: a word for each column and level. All else stays as it is."""
    cells = numbers(X)
    if cells is None or not cells.size or not np.isfinite(cells).all():
        return X
    levels = np.clip(np.floor(2 * cells), -LEVELS // 2, LEVELS // 2 - 1).astype(int) + LEVELS // 2
    rows = levels + LEVELS * np.arange(cells.shape[1])
    # The sum makes texts differ: equal ones are never split between training and calibration.
    return [
        " ".join(standins.WORDS[word % len(standins.WORDS)] for word in row) + f" {abs(total):.4g}"
        for row, total in zip(rows, cells.sum(axis=1), strict=True)
    ]


class OnNumbers:
    """Puts numbers into words on their way in, and counts their columns, which become one text."""

    def fit(self, X, y=None, sample_weight=None):
        super().fit(in_words(X), y, sample_weight)
        self.n_features_in_ = numbers(X).shape[1]
        return self

    def _texts(self, X):
        cells, expected = numbers(X), self.n_features_in_
        if cells is not None and (given := cells.shape[1]) != expected:
            name = type(self).__name__
            raise ValueError(f"X has {given} features, but {name} is expecting {expected} features as input")
        return super()._texts(in_words(X))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.one_d_array = True, False
        return tags


class EnsembleOnNumbers(OnNumbers, EnsembleClassifier):
    pass


class StudentOnNumbers(OnNumbers, StudentClassifier):
    pass


ENSEMBLE = EnsembleOnNumbers(
    members=2, epochs=20, learning_rate=0.03, batch_size=16, calibration_share=0.25, random_state=0,
    settings=SETTINGS,
)  # fmt: skip
STUDENT = StudentOnNumbers(EnsembleClassifier(**ENSEMBLE.get_params()))


def checks(estimator):
    """Yield every check of scikit-learn's as a case, named as scikit-learn names it."""
    for _, check in estimator_checks_generator(estimator):
        name = check.func.__name__
        if name in OF_DOUBLE_PRECISION:
            continue
        marks = [pytest.mark.slow] if estimator is STUDENT or name in LENGTHY or check.keywords else []
        yield pytest.param(estimator, check, marks=marks, id=f"{type(estimator).__name__}-{name}")


def on(standin, estimator):
    """Return the estimator on a stand-in."""
    key = "ensemble__backbone" if estimator is STUDENT else "backbone"
    return clone(estimator).set_params(**{key: str(standin())})


CASES = [*checks(ENSEMBLE), *checks(STUDENT)]


@pytest.mark.parametrize(
    ("estimator", "check"), [case for case in CASES if case.values[1].func.__name__ not in OF_NUMBERS]
)
def test_a_check_of_scikit_learn_passes(standin, estimator, check):
    check(on(standin, estimator))


@pytest.mark.parametrize(
    ("estimator", "check"), [case for case in CASES if case.values[1].func.__name__ in OF_NUMBERS]
)
def test_a_check_that_cannot_apply_still_does_not(standin, estimator, check):
    with pytest.raises((AssertionError, SkipTest)):
        check(on(standin, estimator))


def test_the_checks_that_cannot_apply_are_among_those_there_are():
    names = [case.values[1].func.__name__ for case in CASES]
    assert len(names) > 100
    assert set(OF_NUMBERS) < set(names)


@pytest.mark.parametrize("estimator", [EnsembleClassifier(), StudentClassifier()])
def test_scikit_learn_itself_knows_that_texts_come_in(estimator):
    tags = get_tags(estimator)
    assert (tags.input_tags.string, tags.input_tags.two_d_array, tags.estimator_type) == (
        True,
        False,
        "classifier",
    )
    with pytest.warns(SkipTestWarning, match="Can't test estimator"):
        done = check_estimator(estimator)
    assert [result["status"] for result in done] == ["passed"]
