"""Texts to label next: the most uncertain, or uncertain ones that are unlike each other."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from credibly.errors import InputError
from credibly.uncertainty.selection import diverse, most


def pool(N, C=3, D=4, seed=0):
    generator = np.random.default_rng(seed)
    return generator.dirichlet(np.ones(C), N), generator.normal(size=(N, D))


def gradients(probs, embeddings):
    """Return the last layer's gradients, (N, C * D), written out."""
    places = embeddings - embeddings.mean(axis=0)
    places /= np.linalg.norm(places, axis=1, keepdims=True)
    errors = probs - np.eye(probs.shape[1])[probs.argmax(axis=1)]
    return np.einsum("nc,nd->ncd", errors, places).reshape(len(probs), -1)


def drawn_with_written_gradients(probs, embeddings, count, seed):
    """k-means++ as its paper has it, on the gradients themselves."""
    points, draws = gradients(probs, embeddings), np.random.default_rng(seed)
    chosen = [int((points**2).sum(axis=1).argmax())]
    while len(chosen) < count:
        distances = ((points[:, None] - points[chosen]) ** 2).sum(axis=-1).min(axis=1)
        chosen.append(int(draws.choice(len(points), p=distances / distances.sum())))
    return chosen


def test_the_highest_scores_come_first_and_of_equals_the_first():
    assert most([0.2, 0.9, 0.1, 0.9, 0.5], 4).tolist() == [1, 3, 4, 0]
    assert most([0.2, 0.9], 5).tolist() == [1, 0]
    assert most([], 5).tolist() == []


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=30, unique=True), st.integers(1, 30), st.randoms())
def test_the_order_of_the_rows_does_not_change_which_are_highest(scores, count, random):
    shuffled = random.sample(scores, len(scores))
    first, second = most(scores, count), most(shuffled, count)
    assert [scores[row] for row in first] == [shuffled[row] for row in second]


@given(st.integers(1, 30), st.integers(1, 40), st.integers(0, 5))
def test_no_row_is_chosen_twice_and_none_is_lacking(N, count, seed):
    chosen = diverse(*pool(N, seed=seed), count, seed)
    assert len(chosen) == len(set(chosen.tolist())) == min(N, count)
    assert set(chosen.tolist()) <= set(range(N))


@pytest.mark.parametrize("seed", range(5))
def test_draws_are_those_of_k_means_on_the_gradients_written_out(seed):
    probs, embeddings = pool(40, seed=seed)
    expected = drawn_with_written_gradients(probs, embeddings, 12, seed)
    assert diverse(probs, embeddings, 12, seed).tolist() == expected


def test_the_same_seed_draws_the_same_rows_and_others_draw_others():
    probs, embeddings = pool(60)
    first = diverse(probs, embeddings, 10, seed=3).tolist()
    assert diverse(probs, embeddings, 10, seed=3).tolist() == first
    assert any(diverse(probs, embeddings, 10, seed=seed).tolist() != first for seed in range(4, 8))


def test_certain_texts_are_left_out_as_long_as_there_are_others():
    probs = np.array([[0.5, 0.5]] * 4 + [[1.0, 0.0]] * 50)
    embeddings = np.random.default_rng(0).normal(size=(54, 8))
    embeddings[:4] = 9 * np.eye(8)[:4]
    # A certain text has no gradient, but lies as far from the others as they are long: one of it is taken.
    chosen = diverse(probs, embeddings, 5)
    assert (chosen < 4).sum() == 4


def test_groups_of_like_texts_are_all_seen_where_the_most_uncertain_are_of_one():
    """Three groups at right angles; the first is a little more uncertain than the others."""
    groups = np.repeat([0, 1, 2], 30)
    embeddings = 5 * np.eye(3)[groups] + 0.01 * np.random.default_rng(0).normal(size=(90, 3))
    confidence = np.where(groups == 0, 0.51, 0.55)
    probs = np.stack([confidence, 1 - confidence], axis=1)
    entropy = -(probs * np.log(probs)).sum(axis=1)
    assert set(groups[most(entropy, 3)]) == {0}
    for seed in range(10):
        assert set(groups[diverse(probs, embeddings, 3, seed)]) == {0, 1, 2}


def test_what_embeddings_have_in_common_does_not_matter():
    probs, embeddings = pool(30)
    moved = 3 * embeddings + 1000
    assert diverse(probs, moved, 8, 1).tolist() == diverse(probs, embeddings, 8, 1).tolist()


def test_equal_texts_are_taken_in_their_order_once_nothing_differs():
    assert diverse(np.full((4, 2), 0.5), np.ones((4, 3)), 3).tolist() == [0, 1, 2]


def test_what_cannot_be_is_refused():
    probs, embeddings = pool(5)
    for wrong in ([0.1, np.nan], [np.inf, 1.0]):
        with pytest.raises(InputError, match="finite"):
            most(wrong, 1)
    with pytest.raises(InputError, match="1 text or more"):
        most([0.1], 0)
    with pytest.raises(InputError, match="1 text or more"):
        diverse(probs, embeddings, 0)
    with pytest.raises(InputError, match="an embedding a row"):
        diverse(probs, embeddings[:4], 2)
    with pytest.raises(InputError, match="finite"):
        diverse(probs, np.full_like(embeddings, np.nan), 2)
