"""The records: checked on construction, frozen, and exact in what they keep."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import log_softmax, softmax

from credibly.errors import RecordError
from credibly.records import (
    LOWEST_LOG_PROB,
    UNKNOWN,
    Examples,
    Interval,
    Predictions,
    concatenate,
    log_of_probs,
    normalised_log_probs,
    repeated,
)

CLASSES = ("no", "yes")


def examples(N=3, **changed):
    values = {
        "ids": tuple(f"row-{index}" for index in range(N)),
        "texts": tuple(f"text {index}" for index in range(N)),
        "class_names": CLASSES,
        "labels": np.arange(N) % 2,
    }
    return Examples(**{**values, **changed})


def record(log_probs, **changed):
    N, C = np.shape(log_probs)[-2:]
    values = {
        "log_probs": log_probs,
        "ids": tuple(map(str, range(N))),
        "class_names": tuple(f"class {c}" for c in range(C)),
    }
    return Predictions(**{**values, **changed})


def half(M=1, N=2, C=2):
    return np.full((M, N, C), np.log(1 / C), dtype=np.float32)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"ids": ("a", "b", "a")}, "these repeat: a"),
        ({"texts": ("one",)}, "3 ids came with 1 texts"),
        ({"groups": ("one",)}, "3 ids came with 1 groups"),
        ({"class_names": ("only",)}, "two classes or more, got 1"),
        ({"class_names": ("same", "same")}, "class names that differ"),
        ({"labels": np.array([0, 1])}, r"shape \(3,\), got \(2,\)"),
        ({"labels": np.array([0, 1, 2])}, "labels from -1 to 1, got 0 to 2"),
        ({"labels": np.array([-2, 1, 0])}, "got -2 to 1"),
        ({"labels": np.array([0.0, 1.0, 1.0])}, "integer labels, got float64"),
        ({"label_probs": np.full((3, 3), 1 / 3)}, r"shape \(3, 2\), got \(3, 3\)"),
        ({"label_probs": np.full((3, 2), np.nan)}, "finite probabilities"),
        ({"label_probs": np.full((3, 2), 0.4)}, "3 rows are off, by up to 0.2"),
        ({"label_probs": np.array([[1.5, -0.5]] * 3)}, r"in \[0, 1\], got values from -0.5 to 1.5$"),
        ({"label_probs": np.array([[4.0, -3.0]] * 3)}, "look like logits"),
    ],
)
def test_examples_that_do_not_fit_together_are_refused(changed, told):
    with pytest.raises(RecordError, match=told):
        examples(**changed)


@pytest.mark.parametrize(
    ("log_probs", "changed", "told"),
    [
        (half()[0], {}, r"shape \(M, 2, 2\), got \(2, 2\)"),
        (np.zeros((0, 2, 2)), {}, r"got \(0, 2, 2\)"),
        (half(), {"ids": ("a",)}, r"shape \(M, 1, 2\), got \(1, 2, 2\)"),
        (half(), {"class_names": ("a", "b", "c")}, r"shape \(M, 2, 3\)"),
        (half() * np.nan, {}, "finite log_probs"),
        (half() - 0.5, {}, "rows sum to 0.6065 up to 0.6065"),
        (half(), {"ids": ("a", "a")}, "unique ids"),
        (half(), {"concentrations": np.ones((2, 3))}, r"got M = 1, \(2, 3\)"),
        (half(2), {"concentrations": np.ones((2, 2))}, "got M = 2"),
        (half(), {"concentrations": np.array([[1.0, 0.0], [1.0, 1.0]])}, "positive concentrations"),
        (half(), {"concentrations": np.array([[1.0, 3.0], [1.0, 1.0]])}, "concentrations' mean"),
    ],
)
def test_arrays_that_make_no_record_are_refused(log_probs, changed, told):
    with pytest.raises(RecordError, match=told):
        record(log_probs, **changed)


def test_a_record_cannot_be_changed_through_the_arrays_it_was_made_of():
    log_probs, labels, shares = half(), np.array([0, 1]), np.full((2, 2), 0.5)
    predictions = record(log_probs, labels=labels, label_probs=shares)
    log_probs[:], labels[:], shares[:] = 0.0, 0, 0.0
    np.testing.assert_array_equal(predictions.log_probs, half())
    np.testing.assert_array_equal(predictions.labels, [0, 1])
    np.testing.assert_array_equal(predictions.label_probs, 0.5)
    for array in (predictions.log_probs, predictions.labels, predictions.label_probs):
        with pytest.raises(ValueError, match="read-only"):
            array[:] = 0


def test_dtypes_are_as_documented():
    predictions = record(
        half().astype(np.float64),
        labels=np.array([0, 1], dtype=np.int8),
        label_probs=np.full((2, 2), 0.5, dtype=np.float32),
    )
    assert predictions.log_probs.dtype == np.float32
    assert predictions.labels.dtype == np.int64
    assert predictions.label_probs.dtype == np.float64
    assert predictions.shape == (1, 2, 2)


def test_labels_left_out_are_unknown():
    assert record(half()).labels.tolist() == [UNKNOWN, UNKNOWN]


def test_targets_are_one_hot_or_the_label_probabilities():
    np.testing.assert_array_equal(examples().targets(), [[1, 0], [0, 1], [1, 0]])
    shares = np.array([[0.25, 0.75], [0.5, 0.5], [1.0, 0.0]])
    soft = examples(labels=np.array([1, -1, 0]), label_probs=shares)
    np.testing.assert_array_equal(soft.targets(), shares)
    assert soft.targets().dtype == examples().targets().dtype == np.float32
    assert soft.labelled.all()


def test_predictions_know_which_rows_belong_together():
    grouped = Predictions.from_probs(np.full((3, 2), 0.5), examples(groups=("b", "a", "b")))
    assert grouped.groups.tolist() == [0, 1, 0]
    assert grouped.take([2, 1]).groups.tolist() == [0, 1]
    assert Predictions.from_probs(np.full((3, 2), 0.5), examples()).groups is None
    for strange in (np.zeros(2, dtype=int), np.zeros(3)):
        with pytest.raises(RecordError, match=r"integer groups of shape \(3,\)"):
            replace(grouped, groups=strange)


def test_targets_of_rows_without_label_are_refused_by_id():
    unknown = examples(labels=np.array([0, -1, -1]))
    assert unknown.labelled.tolist() == [True, False, False]
    with pytest.raises(RecordError, match=r"2 have none \(ids row-1, row-2\)"):
        unknown.targets()


def test_label_probabilities_are_renormalised_exactly():
    shares = examples(label_probs=np.array([[0.9995, 0.0], [0.3, 0.7], [1.0, 1e-4]])).label_probs
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-15)
    assert shares[0].tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("chosen", "index"),
    [([2, 0], [2, 0]), (np.array([True, False, True]), [0, 2]), ([], []), (np.zeros(3, dtype=bool), [])],
)
def test_taking_rows_takes_every_part_alike(chosen, index):
    shares = np.array([[0.1, 0.9], [0.2, 0.8], [0.3, 0.7]])
    part = examples(label_probs=shares, groups=("a", "b", "c")).take(chosen)
    assert part.ids == tuple(f"row-{i}" for i in index)
    assert part.texts == tuple(f"text {i}" for i in index)
    assert part.groups == tuple("abc"[i] for i in index)
    assert part.labels.tolist() == [i % 2 for i in index]
    np.testing.assert_allclose(part.label_probs, shares[np.array(index, dtype=int)])


def test_taking_rows_and_members_of_predictions():
    logits = np.arange(12.0).reshape(2, 3, 2) ** 1.5
    whole = Predictions.from_logits(logits, examples(), source="test")
    part = whole.take([2, 0])
    np.testing.assert_array_equal(part.log_probs, whole.log_probs[:, [2, 0]])
    assert part.ids == ("row-2", "row-0")
    assert part.labels.tolist() == [0, 0]
    assert part.provenance == {"source": "test"}
    np.testing.assert_array_equal(whole.member(1).log_probs, whole.log_probs[1:2])
    z = np.log([[1.0, 3.0], [2.0, 2.0], [5.0, 1.0]])
    dirichlet = Predictions.from_log_concentrations(z, examples())
    np.testing.assert_allclose(dirichlet.take([1]).concentrations, [[2.0, 2.0]], rtol=1e-6)


@given(
    hnp.arrays(
        np.float64, st.tuples(st.integers(0, 4), st.integers(2, 5)), elements=st.floats(-1e4, 1e4, width=32)
    )
)
def test_normalised_log_probs_are_a_floored_log_softmax(logits):
    ours = normalised_log_probs(logits)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, np.maximum(log_softmax(logits, axis=-1), LOWEST_LOG_PROB), atol=2e-6)
    np.testing.assert_allclose(np.exp(ours.astype(np.float64)).sum(axis=-1), 1, atol=1e-6)


@given(st.lists(st.floats(0, 1, width=32), min_size=2, max_size=5).filter(lambda values: sum(values) > 1e-3))
def test_probabilities_come_back_out_of_a_record(values):
    probs = np.asarray(values) / np.sum(values)
    kept = Predictions.from_probs(
        [probs],
        Examples(("a",), ("x",), tuple(map(str, range(len(probs)))), np.array([UNKNOWN])),
    )
    np.testing.assert_allclose(np.exp(kept.log_probs[0, 0]), probs, atol=1e-6)


@pytest.mark.parametrize("probs", [[[0.5, 0.6]], [[np.nan, 1.0]], [[-0.1, 1.1]]])
def test_what_is_no_probability_is_refused(probs):
    with pytest.raises(RecordError, match="expected"):
        log_of_probs(probs)


@given(hnp.arrays(np.float64, (3, 3), elements=st.floats(-14, 28)))
def test_log_concentrations_make_a_dirichlet_whose_mean_is_the_softmax(z):
    predictions = Predictions.from_log_concentrations(z, examples(class_names=("a", "b", "c")))
    np.testing.assert_allclose(predictions.concentrations, np.exp(z), rtol=1e-5)
    np.testing.assert_allclose(np.exp(predictions.log_probs[0]), softmax(z, axis=-1), atol=1e-6)


@pytest.mark.parametrize("z", [[100.0, 95.0], [-100.0, -101.0], [-500.0, 500.0], [31.0, 30.5]])
def test_extreme_log_concentrations_keep_their_mean(z):
    predictions = Predictions.from_log_concentrations([z], examples(1))
    np.testing.assert_allclose(np.exp(predictions.log_probs[0, 0]), softmax(z), atol=1e-6)
    alpha = predictions.concentrations[0].astype(np.float64)
    np.testing.assert_allclose(alpha / alpha.sum(), softmax(z), atol=1e-6)


def test_concatenating_keeps_shares_and_groups_only_where_all_have_them():
    shares = np.full((3, 2), 0.5)
    first = examples(label_probs=shares, groups=("g", "g", "h"))
    second = examples(ids=("x", "y", "z"), label_probs=shares, groups=("i", "i", "i"))
    both = concatenate([first, second])
    assert both.ids == ("row-0", "row-1", "row-2", "x", "y", "z")
    assert both.groups == ("g", "g", "h", "i", "i", "i")
    np.testing.assert_array_equal(both.label_probs, np.full((6, 2), 0.5))
    mixed = concatenate([first, examples(ids=("x", "y", "z"))])
    assert mixed.label_probs is None
    assert mixed.groups is None
    assert mixed.labels.tolist() == [0, 1, 0, 0, 1, 0]
    with pytest.raises(RecordError, match="unique ids"):
        concatenate([first, first])
    with pytest.raises(RecordError, match="expected classes"):
        concatenate([first, examples(class_names=("yes", "no"))])


@pytest.mark.parametrize(
    "changed",
    [
        {"ids": ("row-0", "row-1", "row-3")},
        {"texts": ("text 0", "text 1", "Text 2")},
        {"class_names": ("no", "Yes")},
        {"labels": np.array([0, 1, 1])},
        {"label_probs": np.full((3, 2), 0.5)},
        # The same characters, otherwise cut into texts.
        {"texts": ("text 0\x00text 1", "text 2", "")},
        {"texts": ("text 0", "text 1\x00text 2", "")},
    ],
)
def test_a_fingerprint_changes_with_whatever_changes(changed):
    assert examples().fingerprint() == examples().fingerprint()
    assert examples(**changed).fingerprint() != examples().fingerprint()


def test_fingerprints_tell_apart_where_one_text_ends():
    first = examples(2, texts=("a\x00b", "c")).fingerprint()
    assert first != examples(2, texts=("a", "b\x00c")).fingerprint()


def test_intervals_hold_null_for_what_is_undefined():
    assert Interval(float("nan"), 0.1, float("inf")).as_json() == {"value": None, "low": 0.1, "high": None}
    assert Interval(np.float64(1), 0, 2, spread=0.5).as_json() == {
        "value": 1.0,
        "low": 0.0,
        "high": 2.0,
        "spread": 0.5,
    }
    with pytest.raises(RecordError, match="low <= high"):
        Interval(1.0, 2.0, 1.0)


@given(st.lists(st.sampled_from("abcd")))
def test_repeated_names_are_those_that_come_again(names):
    assert set(repeated(names)) == {name for name in names if names.count(name) > 1}
    assert len(repeated(names)) == len(set(repeated(names)))
