"""Distances to the training texts: worked by hand, by second implementations, and what must not matter."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.covariance import EmpiricalCovariance, LedoitWolf, ledoit_wolf_shrinkage
from sklearn.neighbors import NearestNeighbors

from credibly.errors import InputError
from credibly.uncertainty.unknown import distances
from credibly.uncertainty.unknown.distances import (
    Embedded,
    Mahalanobis,
    NearestNeighbours,
    RelativeMahalanobis,
    TwoDepths,
    shrunk_covariance,
)

SCORERS = (Mahalanobis, RelativeMahalanobis, NearestNeighbours)
CROSS = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, -2.0]])


def made(seed=0, N=80, D=5, C=3):
    """Training embeddings of C classes that differ in their means, their labels, and others to be scored."""
    random = np.random.default_rng(seed)
    labels = np.arange(N) % C
    shape = random.normal(size=(D, D))
    train = 3 * random.normal(size=(C, D))[labels] + random.normal(size=(N, D)) @ shape
    return train, labels, 2 * random.normal(size=(15, D))


def test_mahalanobis_worked_by_hand(monkeypatch):
    """Variances 1/2 and 2, no covariance: (1, 0) lies at 1 / (1/2), (0, 1) at 1 / 2 from the middle."""
    monkeypatch.setattr(distances, "shrunk_covariance", lambda rows: rows.T @ rows / len(rows))
    scorer = Mahalanobis.fit(CROSS, np.zeros(4, dtype=int))
    np.testing.assert_allclose(scorer.score(np.array([[1.0, 0], [0, 1], [0, 0]])), [2, 0.5, 0], atol=1e-9)
    # Two classes, (±1, 0) and (0, ±2), have the same middle, so that all stays as it is.
    both = Mahalanobis.fit(CROSS, np.array([0, 0, 1, 1]))
    np.testing.assert_allclose(both.score(np.array([[1.0, 0], [0, 1]])), [2, 0.5], atol=1e-9)


def test_mahalanobis_is_that_of_scikit_learn_around_the_nearest_class():
    train, labels, others = made()
    means = np.stack([train[labels == index].mean(axis=0) for index in range(3)])
    shrunk = LedoitWolf(assume_centered=True).fit(train - means[labels])
    away = np.stack([shrunk.mahalanobis(others - mean) for mean in means])
    np.testing.assert_allclose(Mahalanobis.fit(train, labels).score(others), away.min(axis=0), rtol=1e-6)
    whole = LedoitWolf(assume_centered=True).fit(train - train.mean(axis=0))
    relative = (away - whole.mahalanobis(others - train.mean(axis=0))).min(axis=0)
    np.testing.assert_allclose(RelativeMahalanobis.fit(train, labels).score(others), relative, rtol=1e-6)


@given(st.integers(2, 40), st.integers(1, 8), st.integers(0, 1000))
def test_the_covariance_is_shrunk_as_scikit_learn_shrinks_it(N, D, seed):
    random = np.random.default_rng(seed)
    rows = random.normal(size=(N, D)) * random.uniform(0.1, 3, D)
    empirical = EmpiricalCovariance(assume_centered=True).fit(rows).covariance_
    share = ledoit_wolf_shrinkage(rows, assume_centered=True) if D > 1 else 0.0
    expected = (1 - share) * empirical + share * np.trace(empirical) / D * np.eye(D)
    np.testing.assert_allclose(shrunk_covariance(rows), expected, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("k", [1, 10, 79])
def test_neighbours_are_those_of_scikit_learn(k):
    train, labels, others = made()
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (train, others)]
    expected = NearestNeighbors(n_neighbors=k).fit(unit[0]).kneighbors(unit[1])[0][:, -1]
    found = NearestNeighbours.fit(train, labels, k).score(others)
    np.testing.assert_allclose(found, expected, atol=2e-4)


@given(st.integers(0, 1000))
def test_mahalanobis_does_not_depend_on_the_units(seed):
    """With far more texts than dimensions, where hardly anything is shrunk, and exactly without shrinking."""
    random = np.random.default_rng(seed)
    train, labels, others = made(seed, N=60, D=3)
    turn, move = random.normal(size=(3, 3)) + 3 * np.eye(3), random.normal(size=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distances, "shrunk_covariance", lambda rows: rows.T @ rows / len(rows))
        for kind in (Mahalanobis, RelativeMahalanobis):
            before = kind.fit(train, labels).score(others)
            after = kind.fit(train @ turn + move, labels).score(others @ turn + move)
            np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-6)


@given(st.integers(0, 1000), st.floats(0.01, 100))
def test_neighbours_and_shrunk_distances_do_not_depend_on_a_rotation_nor_neighbours_on_lengths(seed, scale):
    train, labels, others = made(seed)
    rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(5, 5)))[0]
    for kind in SCORERS:
        before = kind.fit(train, labels).score(others)
        after = kind.fit(train @ rotation, labels).score(others @ rotation)
        np.testing.assert_allclose(after, before, rtol=1e-3, atol=2e-4)
    plain = NearestNeighbours.fit(train, labels)
    np.testing.assert_allclose(plain.score(scale * others), plain.score(others), atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "strange"),
    [
        (Mahalanobis, [30.0, 30, 0]),
        (NearestNeighbours, [-1.0, -1, 0]),
        # Between the classes, where all texts as one have their middle.
        (RelativeMahalanobis, [1.5, 1.5, 0]),
    ],
)
def test_what_is_far_is_strange(kind, strange):
    random = np.random.default_rng(0)
    labels = np.arange(300) % 2
    train = np.array([[3.0, 0, 0], [0, 3.0, 0]])[labels] + 0.3 * random.normal(size=(300, 3))
    scorer = kind.fit(train[:200], labels[:200])
    assert scorer.score(np.array([strange])).item() > scorer.score(train[200:]).max()


@pytest.mark.parametrize("kind", SCORERS)
def test_hardly_any_texts_and_texts_all_alike_still_give_a_score(kind):
    for train, labels in (
        (np.ones((1, 4)), np.array([0])),
        (np.ones((7, 4)), np.array([0, 1, 0, 1, 0, 1, -1])),
        (np.zeros((3, 4)), np.array([-1, -1, -1])),
        (np.eye(4)[:2], np.array([0, 1])),
    ):
        assert np.isfinite(kind.fit(train, labels).score(np.array([[1.0, 2, 3, 4], [0, 0, 0, 0]]))).all()


def test_texts_of_unknown_label_are_left_out_where_others_are_known():
    train, labels, others = made()
    with_strangers = np.vstack([train, 100 + others]), np.concatenate([labels, np.full(15, -1)])
    np.testing.assert_array_equal(
        Mahalanobis.fit(*with_strangers).score(others), Mahalanobis.fit(train, labels).score(others)
    )
    unlabelled = Mahalanobis.fit(train, np.full(80, -1))
    np.testing.assert_allclose(unlabelled.score(others), Mahalanobis.fit(train, np.zeros(80)).score(others))


@pytest.mark.parametrize("kind", SCORERS)
def test_wrong_embeddings_are_told(kind):
    train, labels, _ = made()
    with pytest.raises(InputError, match=r"embeddings of one text or more, \(N, D\), got shape \(0, 5\)"):
        kind.fit(train[:0], labels[:0])
    with pytest.raises(InputError, match="expected finite embeddings"):
        kind.fit(train, labels).score(np.full((2, 5), np.nan))
    with pytest.raises(InputError, match=r"got shape \(5,\)"):
        kind.fit(train, labels).score(train[0])


def test_two_depths_are_told_in_deviations_from_what_is_usual_and_added_up():
    train, labels, others = made(N=100)
    texts, new = (Embedded(rows, rows[:, ::-1] ** 3) for rows in (train, others))

    def parts(known, rows):
        unit = [side.middle / np.linalg.norm(side.middle, axis=1, keepdims=True) for side in (known, rows)]
        middle = Mahalanobis.fit(unit[0], np.zeros(len(known))).score(unit[1])
        return NearestNeighbours.fit(known.last, labels).score(rows.last), middle

    # A fifth of the training texts, seen from the others, shows what is usual.
    fifth = np.arange(0, 100, 5)
    usual = parts(texts.take(np.delete(np.arange(100), fifth)), texts.take(fifth))
    pairs = zip(parts(texts, new), usual, strict=True)
    expected = sum((part - own.mean()) / own.std() for part, own in pairs)
    np.testing.assert_allclose(TwoDepths.fit(texts).score(new), expected, atol=1e-6)


def test_either_depth_makes_a_text_strange():
    random = np.random.default_rng(0)
    rows = [random.normal(3, 1, (300, 5)) for _ in range(2)]
    scorer = TwoDepths.fit(Embedded(rows[0][:200], rows[1][:200]))
    known = Embedded(rows[0][200:], rows[1][200:])
    usual = scorer.score(known)
    assert usual.mean() == pytest.approx(0, abs=0.5)
    for strange in (Embedded(-known.last, known.middle), Embedded(known.last, -known.middle)):
        assert scorer.score(strange).min() > np.quantile(usual, 0.95)


def test_one_text_and_equal_texts_have_two_depths_too():
    for rows in (np.ones((1, 4)), np.ones((12, 4)), np.zeros((2, 4))):
        scorer = TwoDepths.fit(Embedded(rows, rows))
        assert np.isfinite(scorer.score(Embedded(np.eye(4), np.eye(4)))).all()


def test_depths_of_other_numbers_of_texts_are_told():
    with pytest.raises(InputError, match="expected both depths of each text, got 2 and 3"):
        Embedded(np.zeros((2, 4)), np.zeros((3, 4)))
