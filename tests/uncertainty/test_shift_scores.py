"""Scores of the unknown and the reference that they are fitted on; which rows stick out, and why."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from credibly.errors import InputError, RecordError, RunFolderError
from credibly.uncertainty.calibration.calibrate import Temperature
from credibly.uncertainty.decompose import decompose
from credibly.uncertainty.systems import answers
from credibly.uncertainty.unknown import shift
from credibly.uncertainty.unknown.distances import Embedded, TwoDepths
from credibly.uncertainty.unknown.outliers import beyond, reasons, share_as_strange
from credibly.uncertainty.unknown.shift import (
    ANSWER_SCORES,
    EMBEDDING_SCORES,
    FIXED,
    LAST_SCORES,
    Reference,
    answer_scores,
)
from uncertainty.cases import answer_of, dirichlet_of, random_predictions


def texts(N, D=4, seed=0):
    random = np.random.default_rng(seed)
    return Embedded(random.normal(size=(N, D)), random.normal(size=(N, D + 1)))


def reference(N=40, D=4, **changed):
    given = {
        "train": texts(N, D),
        "labels": np.arange(N) % 2,
        "calibration": texts(20, D, seed=1),
        "class_names": ("no", "yes é"),
        "backbone": "minilm",
    }
    return Reference(**{**given, **changed})


def test_answers_are_scored_by_hand():
    found = answer_scores(answer_of([[[0.8, 0.2], [0.5, 0.5]], [[0.6, 0.4], [0.5, 0.5]]], [0, 1]))
    assert list(found) == ["max_probability", "total", "epistemic"]
    np.testing.assert_allclose(found["max_probability"], [0.3, 0.5], atol=1e-6)
    np.testing.assert_allclose(found["total"], [-0.7 * np.log(0.7) - 0.3 * np.log(0.3), np.log(2)], atol=1e-6)
    assert found["epistemic"][0] > 0
    assert found["epistemic"][1] == 0


def test_a_dirichlets_energy_is_that_of_its_logits():
    """-ln(sum of alpha) = -logsumexp(z), at the temperature and offset with which the system answers."""
    record = dirichlet_of([[4.0, 1.0], [0.5, 0.5]])
    bare = answers("student", record, {})[0]
    np.testing.assert_allclose(answer_scores(bare)["energy"], [-np.log(5), 0], atol=1e-6)
    tempered = answers("student+temperature", record, {"student+temperature": Temperature(2.0, 1.0)})[0]
    expected = -np.log(np.e * (np.sqrt([4.0, 0.5]) + np.sqrt([1.0, 0.5])))
    np.testing.assert_allclose(answer_scores(tempered)["energy"], expected, atol=1e-6)
    np.testing.assert_allclose(answer_scores(bare)["epistemic"], decompose(record).epistemic)


def test_the_scores_that_are_known_have_words_and_one_is_fixed():
    from credibly.report.words.metrics import SCORE_WORDS

    assert list(SCORE_WORDS) == [*ANSWER_SCORES, *EMBEDDING_SCORES]
    assert FIXED in EMBEDDING_SCORES


def test_members_have_no_energy():
    assert "energy" not in answer_scores(answers("ensemble", random_predictions(N=5), {})[0])


def test_a_reference_is_read_as_it_was_written(tmp_path):
    written = reference()
    file = tmp_path / "reference.safetensors"
    file.write_bytes(written.as_bytes())
    read = Reference.read(file)
    for side in ("train", "calibration"):
        for depth in ("last", "middle"):
            one, other = (getattr(getattr(own, side), depth) for own in (read, written))
            np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(read.labels, written.labels)
    assert (read.class_names, read.backbone) == (written.class_names, written.backbone)
    assert read.as_bytes() == written.as_bytes()
    others = texts(3, seed=2)
    found = read.scores(others)
    for name, kind in LAST_SCORES.items():
        expected = kind.fit(written.train.last, written.labels).score(others.last)
        np.testing.assert_array_equal(found[name], expected)
    np.testing.assert_array_equal(found["two_depths"], TwoDepths.fit(written.train).score(others))
    assert tuple(found) == EMBEDDING_SCORES
    with pytest.raises(ValueError, match="read-only"):
        read.train.last[0] = 0


def test_scores_do_not_depend_on_how_many_texts_are_scored_together(monkeypatch):
    others = texts(9, seed=2)
    whole = reference().scores(others)
    monkeypatch.setattr(shift, "BLOCK", 4)
    for name, scores in reference().scores(others).items():
        np.testing.assert_allclose(scores, whole[name], rtol=1e-6)
    with pytest.raises(InputError, match="embeddings of one text or more"):
        reference().scores(others.take(slice(0)))


def test_a_damaged_reference_is_told(tmp_path):
    file = tmp_path / "reference.safetensors"
    file.write_bytes(reference().as_bytes()[:-40])
    with pytest.raises(RunFolderError, match="damaged or holds no reference"):
        Reference.read(file)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"train": Embedded(np.full((40, 4), np.nan), np.ones((40, 5)))}, "finite embeddings of train"),
        ({"calibration": texts(0)}, r"embeddings of calibration, \(N, D\), got shape \(0, 4\)"),
        ({"calibration": texts(3, 5)}, r"one width of train and calibration, got \(4, 5\) and \(5, 6\)"),
        ({"labels": np.zeros(3, dtype=int)}, r"expected labels of shape \(40,\)"),
        ({"labels": np.full(40, 2)}, "expected labels from -1 to 1"),
    ],
)
def test_what_makes_no_reference_is_told(changed, told):
    with pytest.raises(RecordError, match=told):
        reference(**changed)


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=40), st.lists(st.integers(0, 9), min_size=1, max_size=9)
)
def test_the_share_as_strange_is_counted(inside, outside):
    found = share_as_strange(np.array(inside, float), np.array(outside, float))
    expected = [(1 + sum(known >= own for known in inside)) / (1 + len(inside)) for own in outside]
    assert found.tolist() == expected


def test_rows_of_the_known_kind_lie_beyond_a_level_as_seldom_as_it_says():
    """On average over calibration sets; and only so many levels as there are rows for."""
    random = np.random.default_rng(0)
    shares = [
        [found.share.value for found in beyond(random.normal(size=120), random.normal(size=50))]
        for _ in range(400)
    ]
    # ceil(121 * 0.95) and ceil(121 * 0.99) of 121: 6 and 1 in 121 lie beyond.
    np.testing.assert_allclose(np.mean(shares, axis=0), [6 / 121, 1 / 121], atol=0.005)
    assert [found.level for found in beyond(np.arange(50.0), np.arange(3.0))] == [0.95]
    assert beyond(np.arange(10.0), np.arange(3.0)) == []


def test_reasons_are_those_of_the_scores_that_are_rare():
    inside = {"far": np.arange(99.0), "torn": np.arange(99.0)}
    outside = {"far": np.array([50.0, 95.0, 200.0]), "torn": np.array([98.0, 0.0, 99.0])}
    assert reasons(inside, outside) == [["torn"], ["far"], ["far", "torn"]]
