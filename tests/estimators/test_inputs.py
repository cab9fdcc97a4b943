"""The scikit-learn face: texts and labels in the forms that callers have them in."""

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import DataConversionWarning

from credibly.errors import InputError
from credibly.estimators.inputs import targets_of, text_columns
from estimators.cases import LABELS, NAMES, NEW, TEXTS, Frame, N

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "form",
    [
        tuple,
        np.array,
        pd.Series,
        lambda texts: np.array(texts, dtype=object)[:, None],
        lambda texts: pd.DataFrame({"text": texts}),
        lambda texts: Frame(body=texts),
        lambda texts: [[text] for text in texts],
    ],
)
def test_texts_in_any_form_give_equal_answers(ensemble, from_list, form):
    classifier = ensemble().fit(form(TEXTS), list(NAMES))
    assert np.array_equal(classifier.predict_proba(form(NEW)), from_list)
    assert np.array_equal(classifier.predict_proba(NEW), from_list)
    assert classifier.n_features_in_ == 1


def test_text_columns_of_a_frame_are_joined_in_their_order(ensemble):
    halves = [text.split(" ", 1) for text in TEXTS]
    frame = pd.DataFrame({"id": range(N), "end": [end for _, end in halves], "start": [s for s, _ in halves]})
    frame.loc[::7, "start"] = None
    joined = [end if number % 7 == 0 else f"{start}\n{end}" for number, (start, end) in enumerate(halves)]
    named = ensemble(text=["start", "end"]).fit(frame, NAMES)
    expected = ensemble().fit(joined, NAMES).predict_proba(joined)
    assert np.array_equal(named.predict_proba(frame), expected)
    assert np.array_equal(named.predict_proba(frame[["end", "start"]]), expected)
    assert np.array_equal(named.predict_proba(frame[["start", "end"]].to_numpy()), expected)
    assert named.n_features_in_ == 2
    assert named.feature_names_in_.tolist() == ["start", "end"]
    assert named.run_.run.recipe.data.text == ["start", "end"]
    one = ensemble(text="end").fit(frame, NAMES)
    assert one.feature_names_in_.tolist() == ["end"]
    with pytest.raises(InputError, match=r"expected texts in 2 columns, got list of shape \(12, 1\)"):
        named.predict(NEW)
    with pytest.raises(InputError, match=r"one column 'start' in the frame \(did you mean 'Start'\?\); its"):
        named.predict(frame.rename(columns={"start": "Start"}))


def test_columns_without_names_of_their_own(ensemble):
    frame = pd.DataFrame({0: TEXTS, 1: NAMES})
    classifier = ensemble(text=0).fit(frame, frame[1])
    assert np.array_equal(classifier.predict(frame), classifier.predict(TEXTS))
    assert not hasattr(classifier, "feature_names_in_")
    classifier.set_params(text=None).fit(pd.DataFrame({"text": TEXTS}), NAMES)
    assert classifier.feature_names_in_.tolist() == ["text"]
    assert not hasattr(classifier.fit(TEXTS, NAMES), "feature_names_in_")


@pytest.mark.parametrize(
    ("X", "y", "expected"),
    [
        ("one text", NAMES, r"got str of shape \(\); give \[text\]"),
        ([], [], "expected one text or more, got 0 rows"),
        ([1, 2, *TEXTS], [0, 1, *LABELS], r"X\[0\]: column 'text' holds a number 1, X\[1\]: .* a string"),
        (["", None, np.nan, *TEXTS], [0, 0, 0, *LABELS], r"X\[0\]: .* is empty, X\[1\].*X\[2\].* remove"),
        (["\ud83d", *TEXTS], [0, *LABELS], r"X\[0\]: .* half a character"),
        (np.array([TEXTS, TEXTS]).T, NAMES, r"1 column, got ndarray of shape \(60, 2\); name several"),
        (pd.DataFrame({"a": TEXTS, "b": TEXTS}), NAMES, r"one column, got 2 \(a, b\); name the text columns"),
        (pd.DataFrame([TEXTS, TEXTS]).T.set_axis(["a", "a"], axis=1), NAMES, "one column, got 2"),
        (TEXTS, NAMES[:-1], r"inconsistent numbers of samples: \[60, 59\]"),
        (TEXTS, None, "requires y to be passed"),
        (TEXTS, ["good"] * N, "one class: good"),
        (TEXTS, np.linspace(0, 1, N), "continuous"),
        (TEXTS, [None, *NAMES[1:]], "expected labels of one kind|Unknown label type"),
        (TEXTS, [np.nan, *LABELS[1:]], "NaN"),
        (TEXTS, ["1", "1.0"] * 30, "expected class names that differ"),
        (TEXTS, np.array([1, "1"] * 30, dtype=object), "Unknown label type"),
        (TEXTS, np.full((N, 3), 0.5), "rows that sum to one; 60 rows are off"),
        (TEXTS, np.zeros((N, 2, 2)), "Found array with dim 3"),
        (TEXTS[:4], [0, 0, 1, 1], "too few to cut calibration from"),
        (TEXTS[:5], [0, 0, 0, 0, 1], "expected 2 rows or more of every class"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_before_anything_is_trained(ensemble, monkeypatch, X, y, expected):
    monkeypatch.setattr("credibly.workflows.fitting.fit.begin", None)
    with pytest.raises(ValueError, match=expected):
        ensemble().fit(X, y)


@pytest.mark.parametrize("wrong", ["good film", [""], [None], [3], np.array([["a", "b"]])])
def test_what_cannot_be_answered_is_refused(fitted, wrong):
    for method in (fitted.predict, fitted.predict_proba, fitted.predict_uncertainty):
        with pytest.raises(InputError):
            method(wrong)


# What y may be


@pytest.mark.parametrize(
    ("kinds", "class_names"),
    [
        (np.array([7, -1, 30]), ("-1", "7", "30")),
        (np.array(["b", "a", "c"]), ("a", "b", "c")),
        (pd.Series(["b", "a", "c"]), ("a", "b", "c")),
        (pd.Series(["b", "a", "c"], dtype="category"), ("a", "b", "c")),
        (np.array([2.0, 0.0, 1.0]), ("0", "1", "2")),
        (np.array([True, False, False]), ("false", "true")),
    ],
)
def test_classes_are_of_the_kind_that_labels_are(ensemble, kinds, class_names):
    classifier = ensemble(epochs=1).fit(TEXTS, kinds[LABELS])
    assert classifier.classes_.tolist() == sorted(set(kinds))
    assert classifier.predict(NEW).dtype == classifier.classes_.dtype
    assert set(classifier.predict(NEW).tolist()) <= set(kinds)
    assert classifier.run_.predictor.class_names == class_names


def test_certain_probabilities_are_labels(ensemble, from_list):
    order = np.unique(NAMES).tolist()
    y = np.eye(3)[[order.index(name) for name in NAMES]]
    classifier = ensemble().fit(TEXTS, y)
    assert classifier.classes_.tolist() == [0, 1, 2]
    np.testing.assert_allclose(classifier.predict_proba(NEW), from_list, atol=1e-12)


def test_probabilities_are_learned_as_they_are(ensemble):
    y = np.random.RandomState(0).dirichlet(np.ones(3), N)
    y[0] = [0.4, 0.4, 0.2]
    student = ensemble(epochs=1).fit(TEXTS, y).distil()
    for split in ("train", "calibration"):
        stored = student.run_.run.load_predictions("members", split)
        rows = list(map(int, stored.ids))
        np.testing.assert_allclose(stored.label_probs, y[rows])
        expected = [-1 if row == 0 else y[row].argmax() for row in rows]
        assert stored.labels.tolist() == expected


def test_a_column_of_labels_is_taken_with_a_warning(ensemble, from_list):
    with pytest.warns(DataConversionWarning):
        classifier = ensemble().fit(TEXTS, NAMES[:, None])
    assert np.array_equal(classifier.predict_proba(NEW), from_list)


@pytest.mark.parametrize("kind", ["object", "string"])
def test_a_cell_that_is_missing_is_left_out_whatever_stands_for_it(kind):
    frame = pd.DataFrame({"title": ["a", None], "body": ["x", "y"]}).astype(kind)
    assert text_columns(frame, ["title", "body"]).texts() == ("a\nx", "y")


@pytest.mark.parametrize("missing", [float("nan"), np.nan, None, pd.NA])
@pytest.mark.parametrize("form", [list, tuple])
def test_a_label_that_is_missing_is_no_class(missing, form):
    with pytest.raises(ValueError, match=r"contains NaN|none missing|Unknown label"):
        targets_of(form(["a", missing, "b"]))
