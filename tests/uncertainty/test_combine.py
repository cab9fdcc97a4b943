import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import gmean

from credibly.errors import InputError
from credibly.uncertainty.combine import RULES, combine
from uncertainty.cases import dirichlet_of, predictions_of, random_predictions

TABLE = [[[0.9, 0.1], [0.4, 0.6]], [[0.5, 0.5], [0.2, 0.8]], [[0.1, 0.9], [0.3, 0.7]]]


def test_mean_of_probabilities_by_hand():
    assert combine(predictions_of(TABLE)) == pytest.approx(np.array([[0.5, 0.5], [0.3, 0.7]]), abs=1e-7)


def test_mean_of_logits_is_the_normalised_geometric_mean():
    predictions = random_predictions(M=4, C=5)
    geometric = gmean(np.exp(predictions.log_probs.astype(np.float64)), axis=0)
    expected = geometric / geometric.sum(-1, keepdims=True)
    assert np.allclose(combine(predictions, "mean_logits"), expected, atol=1e-12)


def test_majority_vote_by_hand():
    # Row 0: votes 0, 1, and one half each of the member to which both are alike. Row 1: all for 1.
    assert combine(predictions_of(TABLE), "majority_vote") == pytest.approx(
        np.array([[2.5, 2.5], [1, 4]]) / 5
    )


def test_a_member_divides_its_vote_among_its_likeliest_classes():
    torn = predictions_of([[[0.4, 0.4, 0.2]], [[0.1, 0.1, 0.8]]])
    assert combine(torn, "majority_vote")[0] == pytest.approx(np.array([1.5, 1.5, 2.0]) / 5)


def test_a_tied_vote_goes_to_the_lowest_index():
    tied = predictions_of([[[0.1, 0.2, 0.7]], [[0.1, 0.8, 0.1]]])
    shares = combine(tied, "majority_vote")
    assert shares[0].tolist() == pytest.approx([0.2, 0.4, 0.4])
    assert shares.argmax(-1).tolist() == [1]


def test_many_equal_votes_tie_exactly():
    votes = np.tile([[[0.6, 0.4]], [[0.4, 0.6]]], (35, 1, 1))
    shares = combine(predictions_of(votes), "majority_vote")
    assert shares[0, 0] == shares[0, 1]


def test_votes_keep_the_nll_finite():
    assert combine(predictions_of(TABLE), "majority_vote").min() == pytest.approx(1 / 5)


def test_weights_by_hand():
    predictions = predictions_of(TABLE)
    weights = [2.0, 1.0, 1.0]
    assert combine(predictions, weights=weights)[0] == pytest.approx([0.6, 0.4], abs=1e-7)
    assert combine(predictions, "majority_vote", weights)[0] == pytest.approx(
        [(1.5 + 0.375 + 1) / 5, (0.375 + 0.75 + 1) / 5]
    )


@pytest.mark.parametrize("rule", RULES)
def test_equal_weights_change_nothing(rule):
    predictions = random_predictions()
    assert np.allclose(combine(predictions, rule), combine(predictions, rule, np.full(3, 7.0)), atol=1e-15)


@pytest.mark.parametrize("rule", RULES)
def test_all_weight_on_one_member_is_that_member(rule):
    predictions = random_predictions()
    chosen = combine(predictions, rule, [0, 1, 0])
    assert (chosen.argmax(-1) == predictions.log_probs[1].argmax(-1)).all()
    if rule != "majority_vote":
        assert np.allclose(chosen, np.exp(predictions.log_probs[1]), atol=1e-6)


@pytest.mark.parametrize("rule", ["mean_probs", "mean_logits"])
def test_a_dirichlet_predicts_its_mean(rule):
    assert combine(dirichlet_of([[1.0, 3.0], [2.0, 2.0]]), rule) == pytest.approx(
        np.array([[0.25, 0.75], [0.5, 0.5]]), abs=1e-7
    )


def test_a_dirichlet_has_one_vote():
    assert combine(dirichlet_of([[1.0, 3.0]]), "majority_vote") == pytest.approx(np.array([[1 / 3, 2 / 3]]))


def test_an_unknown_rule_is_answered_with_the_nearest():
    with pytest.raises(
        InputError, match=r"unknown rule 'mean_prob' \(did you mean 'mean_probs'\?\).*majority_vote"
    ):
        combine(predictions_of(TABLE), "mean_prob")


@pytest.mark.parametrize("weights", [[1.0, 1.0], [1.0, -1.0, 1.0], [0.0, 0.0, 0.0], [np.nan, 1.0, 1.0]])
def test_weights_that_do_not_fit_are_refused(weights):
    with pytest.raises(InputError, match="expected"):
        combine(predictions_of(TABLE), weights=weights)


@given(st.integers(0, 10**6), st.sampled_from(RULES), st.integers(1, 6), st.integers(2, 5))
def test_rows_sum_to_one_and_members_and_classes_may_be_permuted(seed, rule, M, C):
    predictions = random_predictions(N=8, M=M, C=C, seed=seed)
    probs = combine(predictions, rule)
    assert np.abs(probs.sum(-1) - 1).max() < 1e-14
    random = np.random.default_rng(seed)
    members, classes = random.permutation(M), random.permutation(C)
    moved = predictions_of(np.exp(predictions.log_probs[members][..., classes].astype(np.float64)))
    assert np.allclose(combine(moved, rule), probs[:, classes], atol=1e-6)
