"""A prompt's bias is found without labels, and known class shares are put in its place."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from credibly.errors import InputError
from credibly.records import Predictions, normalised_log_probs
from credibly.uncertainty import label_shift
from credibly.uncertainty.combine import combine
from credibly.uncertainty.label_shift import (
    BatchBias,
    batch_bias,
    checked_prior,
    content_free_bias,
    correct,
    estimated_shares,
    share_between,
    share_shift,
    with_shares,
    without_bias,
)


def record(log_probs):
    names = tuple(f"class {index}" for index in range(log_probs.shape[2]))
    return Predictions(normalised_log_probs(log_probs), tuple(map(str, range(log_probs.shape[1]))), names)


def said(labels, bias, separation=3.0, M=1, seed=0):
    """Return what biased prompts say of texts of these classes: Gaussian evidence, exact where unbiased."""
    generator = np.random.default_rng(seed)
    C = len(bias)
    # Log-likelihoods of a class under unit noise around `separation` on its own axis.
    noise = generator.normal(size=(M, len(labels), C))
    evidence = separation * (noise + separation * np.eye(C)[labels])
    return record(evidence + np.asarray(bias))


def accuracy(predictions, labels):
    return (combine(predictions).argmax(axis=1) == labels).mean()


BALANCED, SKEWED = np.arange(1000) % 2, (np.arange(1000) % 100 < 13).astype(int)
EVERY = st.integers(0, 10_000)


# The bias of a whole batch


def test_a_worked_batch():
    log_probs = np.log([[[0.9, 0.1], [0.6, 0.4]]])
    expected = (np.log([0.9, 0.1]) + np.log([0.6, 0.4])) / 2
    bias = BatchBias.of(log_probs).bias
    np.testing.assert_allclose(bias[0, 0] - bias[0, 1], expected[0] - expected[1])
    np.testing.assert_allclose(bias.sum(), 0, atol=1e-12)


@given(EVERY, st.lists(st.floats(-5, 5), min_size=3, max_size=3))
def test_whatever_constant_a_prompt_adds_is_taken_off(seed, constant):
    plain = np.random.default_rng(seed).normal(size=(2, 20, 3))
    first, second = (
        without_bias(own, BatchBias.of(own.log_probs).bias).log_probs
        for own in (record(plain), record(plain + np.array(constant)))
    )
    np.testing.assert_allclose(first, second, atol=1e-4)


@given(EVERY, st.integers(1, 19))
def test_a_stream_gives_the_bias_of_all_texts_at_once(seed, cut):
    log_probs = np.random.default_rng(seed).normal(size=(2, 20, 3))
    streamed = BatchBias(np.zeros((2, 3)), warm_up=15).seen(log_probs[:, :cut])
    assert streamed.ready == (cut >= 15)
    streamed = streamed.seen(log_probs[:, cut:])
    np.testing.assert_allclose(streamed.bias, BatchBias.of(log_probs).bias, atol=1e-12)


def test_before_the_warm_up_there_is_no_bias():
    young = BatchBias(np.zeros((1, 2)), warm_up=5).seen(np.zeros((1, 4, 2)))
    with pytest.raises(InputError, match="expected 5 texts or more to find the prompts' bias, got 4"):
        _ = young.bias
    assert young.seen(np.zeros((1, 1, 2))).bias.tolist() == [[0, 0]]


def test_a_biased_prompt_becomes_as_right_as_an_unbiased_one():
    biased, unbiased = said(BALANCED, (15.0, 0.0)), said(BALANCED, (0.0, 0.0))
    assert accuracy(biased, BALANCED) < 0.8
    mended = without_bias(biased, BatchBias.of(biased.log_probs).bias)
    assert accuracy(mended, BALANCED) > accuracy(unbiased, BALANCED) - 0.01


# Inputs that say nothing


# The bias of parts of a batch


def test_the_bias_of_each_stratum_is_that_of_its_texts_alone():
    log_probs = np.random.default_rng(0).normal(size=(2, 30, 3))
    strata = np.arange(30) % 4
    found = batch_bias(log_probs, strata)
    assert found.shape == (2, 4, 3)
    for place in range(4):
        np.testing.assert_allclose(found[:, place], BatchBias.of(log_probs[:, strata == place]).bias)
    np.testing.assert_allclose(
        batch_bias(log_probs, np.zeros(30, dtype=int))[:, 0], BatchBias.of(log_probs).bias
    )


def test_a_bias_that_differs_between_strata_is_taken_off_and_one_for_all_leaves_mistakes():
    strata = np.arange(1000) // 500
    prompts = said(BALANCED, [0.0, 0.0], separation=1.5)
    shifted = prompts.log_probs.astype(float) + np.where(strata[:, None] == 1, [0.0, 4.0], [2.0, 0.0])
    biased = record(shifted)
    by_stratum = correct(biased, batch_bias(biased.log_probs, strata)[:, strata], None).corrected
    for_all = correct(biased, BatchBias.of(biased.log_probs).bias, None).corrected
    assert accuracy(by_stratum, BALANCED) >= accuracy(prompts, BALANCED) - 0.01
    assert accuracy(for_all, BALANCED) < accuracy(by_stratum, BALANCED) - 0.1


def test_the_share_between_strata_goes_from_none_to_all():
    strata = np.arange(400) % 4
    apart = np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 2.0], [0.0, 5.0]])[strata][None]
    assert share_between(apart, strata) == pytest.approx(1)
    assert share_between(np.zeros((1, 400, 2)), strata) == 0
    noise = np.random.default_rng(0).normal(size=(2, 400, 2))
    assert share_between(noise, strata) < 0.03
    alone = noise[:1] - noise[:1].mean(axis=-1, keepdims=True)
    # One-way analysis of variance: the share is that of the sums of squares.
    z = alone[0, :, 1]
    means = np.array([z[strata == place].mean() for place in range(4)])
    by_hand = 100 * ((means - z.mean()) ** 2).sum() / ((z - z.mean()) ** 2).sum()
    assert share_between(noise[:1], strata) == pytest.approx(by_hand)


def test_content_free_inputs_show_the_bias_as_in_the_paper():
    """Zhao et al. divide by the mean probabilities and normalise."""
    empty = np.log([[[0.8, 0.2], [0.6, 0.4]]])
    found = without_bias(record(np.log([[[0.5, 0.5]]])), content_free_bias(empty))
    expected = np.array([0.5, 0.5]) / np.array([0.7, 0.3])
    np.testing.assert_allclose(np.exp(found.log_probs[0, 0]), expected / expected.sum(), atol=1e-6)


# Class shares


def shares_of(predictions):
    labels = combine(predictions).argmax(axis=1)
    return np.bincount(labels, minlength=predictions.shape[2]) / predictions.shape[1]


@pytest.mark.parametrize("confidence", [0.1, 1.0, 2.0])
@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.87, 0.13), (0.02, 0.98)])
def test_labels_come_in_the_shares_given_however_sure_the_members_are(shares, confidence):
    predictions = said(SKEWED, (2.0, 0.0), separation=2.0)
    scaled = record(confidence * predictions.log_probs)
    np.testing.assert_allclose(shares_of(with_shares(scaled, shares)), shares, atol=0.015)


@pytest.mark.parametrize("seed", range(5))
def test_of_three_classes_too(seed):
    generator = np.random.default_rng(seed)
    predictions, shares = record(generator.normal(size=(1, 500, 3))), generator.dirichlet([3, 3, 3])
    np.testing.assert_allclose(shares_of(with_shares(predictions, shares)), shares, atol=0.03)


def test_the_shift_of_two_classes_is_a_quantile():
    ratios = np.sort(np.random.default_rng(0).normal(size=101))
    shift = share_shift(np.stack([np.zeros(101), ratios], axis=1), [0.75, 0.25])
    assert ratios[72] < shift[0] - shift[1] < ratios[79]


def test_each_member_gives_the_classes_their_shares():
    predictions = said(SKEWED, (4.0, 0.0), M=3)
    found = with_shares(predictions, [0.87, 0.13])
    for member in range(3):
        np.testing.assert_allclose(shares_of(found.member(member)), [0.87, 0.13], atol=0.015)


@pytest.mark.parametrize("prior", [[0.5, 0.6], [0.0, 1.0], [1.2, -0.2], [1.0], [np.nan, 1.0]])
def test_shares_that_are_none_are_refused(prior):
    with pytest.raises(InputError, match="share above zero for each of the 2 classes"):
        checked_prior(prior, 2)


@pytest.mark.parametrize("confidence", [0.1, 1.0, 5.0])
@pytest.mark.parametrize(("labels", "rare"), [(SKEWED, 0.13), (BALANCED, 0.5), (1 - SKEWED, 0.87)])
def test_estimated_shares_are_those_of_the_texts(labels, rare, confidence):
    predictions = record(confidence * said(labels, (0.0, 0.0), separation=2.5, M=2).log_probs)
    corrected = without_bias(predictions, BatchBias.of(predictions.log_probs).bias)
    shares = estimated_shares(corrected)
    assert shares.sum() == pytest.approx(1)
    assert abs(shares[1] - rare) < 0.03


def test_estimated_shares_of_three_classes():
    labels = np.repeat([0, 1, 2], [700, 200, 100])
    predictions = said(labels, (0.0, 3.0, 0.0), separation=3.0)
    corrected = without_bias(predictions, BatchBias.of(predictions.log_probs).bias)
    np.testing.assert_allclose(estimated_shares(corrected), [0.7, 0.2, 0.1], atol=0.03)


def belonging_by_sums(scores, resting):
    """Return a step of the mixture text by text and class by class, as it is written down."""
    weights, N = resting.sum(axis=0), len(scores)
    means = np.array([
        sum(resting[n, c] * scores[n] for n in range(N)) / max(weights[c], 1e-8) for c in range(len(weights))
    ])  # fmt: skip
    apart = scores[:, None] - means
    covariance = np.einsum("nc,nci,ncj->ij", resting, apart, apart) / N
    covariance += 1e-6 * (np.trace(covariance) + 1e-8) * np.eye(len(covariance))
    distances = np.einsum("nci,ij,ncj->nc", apart, np.linalg.inv(covariance), apart)
    joint = weights / N * np.exp(-(distances - distances.min(axis=1, keepdims=True)) / 2)
    return joint / joint.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("C", [2, 3, 8])
@pytest.mark.parametrize("offset", [0.0, 50.0])
@pytest.mark.parametrize("separation", [0.0, 1.0, 4.0])
def test_a_step_of_the_mixture_is_what_it_is_written_down_as(C, offset, separation):
    generator = np.random.default_rng(C)
    labels = np.arange(60) % C
    scores = generator.normal(size=(60, C - 1)) + offset + separation * np.eye(C)[labels, 1:]
    spread = generator.dirichlet(np.ones(C), 60)
    rare = spread * np.array([1e-12, *[1.0] * (C - 1)])
    rare /= rare.sum(axis=1, keepdims=True)
    for resting in (spread, rare, np.eye(C)[labels], np.eye(C)[labels // 2 * 2]):
        found = label_shift._belonging(scores, resting)
        np.testing.assert_allclose(found, belonging_by_sums(scores, resting), atol=1e-9)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e3])
def test_texts_that_are_all_alike_within_their_class_have_shares_too(scale):
    """Votes are: nothing is left of the variance within the classes but what rounding leaves."""
    labels = np.repeat([0, 1, 2], [700, 200, 100])
    assert estimated_shares(record(scale * np.eye(3)[labels][None])).tolist() == pytest.approx(
        [0.7, 0.2, 0.1]
    )


def test_of_many_classes_nothing_is_larger_than_a_number_a_text_and_class():
    N, C = 2000, 60
    generator = np.random.default_rng(0)
    scores, resting = generator.normal(size=(N, C - 1)), generator.dirichlet(np.ones(C), N)
    tracemalloc.start()
    label_shift._belonging(scores, resting)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * 8 * N * C


# All corrections together


def test_skewed_texts_lose_accuracy_by_the_equal_shares_assumption_and_win_it_back():
    """13 % spam, as in a well-known collection: the assumption costs much, and the estimate tells it."""
    biased = said(SKEWED, (0.0, 8.0), separation=2.5, M=3)
    bias = BatchBias.of(biased.log_probs).bias
    plain, given, estimated = (correct(biased, bias, prior) for prior in (None, [0.87, 0.13], "estimate"))
    assert accuracy(plain.final, SKEWED) < 0.85
    # What tells the user: the estimate stands beside the assumption, far from it.
    assert abs(plain.estimated[1] - 0.13) < 0.03
    for mended in (given, estimated):
        assert list(mended.systems) == ["raw", "corrected", "prior_corrected"]
        assert accuracy(mended.final, SKEWED) > 0.95
        np.testing.assert_array_equal(mended.corrected.log_probs, plain.final.log_probs)


def test_balanced_texts_are_as_right_with_estimated_shares():
    biased = said(BALANCED, (0.0, 8.0), separation=2.5, M=3)
    found = correct(biased, BatchBias.of(biased.log_probs).bias, "estimate")
    assert accuracy(found.raw, BALANCED) < accuracy(found.corrected, BALANCED) - 0.05
    assert abs(accuracy(found.final, BALANCED) - accuracy(found.corrected, BALANCED)) < 0.02


def test_a_class_that_is_nobodys_likeliest_has_an_estimated_share_too():
    two = said(BALANCED, (0.0, 0.0), separation=6.0).log_probs
    third = np.full_like(two[..., :1], two.min() - 5)
    found = correct(record(np.concatenate([two, third], axis=-1)), np.zeros((1, 3)), "estimate")
    assert found.estimated[2] == 0
    assert found.prior.sum() == pytest.approx(1)
    assert found.prior[2] == pytest.approx(0.5 / len(BALANCED), rel=0.01)
    assert accuracy(found.final, BALANCED) > 0.95


def test_wrong_shares_are_refused():
    predictions = said(BALANCED, (0.0, 0.0))
    with pytest.raises(InputError, match="share above zero"):
        correct(predictions, np.zeros((1, 2)), [0.5, 0.6])
