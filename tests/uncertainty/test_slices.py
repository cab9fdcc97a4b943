"""Slices: calibration in the large by predicted class, group and length, corrected for their number."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from scipy.stats import binom

from credibly.errors import InputError
from credibly.records import UNKNOWN, Examples, Predictions
from credibly.uncertainty.scoring.slices import FEWEST_ROWS, chance_of_as_far, holm, slices
from credibly.uncertainty.systems import answers


def answer_of(positive, labels):
    """The answer of one system that gives the second class these probabilities, (N,)."""
    ids = tuple(map(str, range(len(labels))))
    examples = Examples(ids=ids, texts=ids, class_names=("no", "yes"), labels=np.asarray(labels))
    record = Predictions.from_probs(np.stack([1 - positive, positive], axis=1), examples)
    (answer,) = answers("ensemble", record, {})
    return answer


def drawn(N, seed, honest=True, least=0.05, surest=0.95):
    """Probabilities, and labels that follow them, or a squared odds where the system is not honest."""
    random = np.random.default_rng(seed)
    p = random.uniform(least, surest, N)
    true = p if honest else 1 / (1 + np.sqrt((1 - p) / p))
    return p, (random.random(N) < true).astype(int)


def test_a_slice_counted_by_hand():
    """40 rows at 0.8 with 28 right, where 32 are expected."""
    labels = np.array([1] * 28 + [0] * 12)
    (found,) = slices(answer_of(np.full(40, 0.8), labels))
    assert (found.kind, found.name, found.rows) == ("predicted class", "yes", 40)
    assert found.confidence == pytest.approx(0.8, abs=1e-6)
    assert found.accuracy == pytest.approx(0.7)
    assert found.gap.value == pytest.approx(0.1, abs=1e-6)
    assert found.gap.low < 0.1 < found.gap.high
    assert found.p == found.adjusted_p == pytest.approx(2 * binom.cdf(28, 40, 0.8), rel=0.03)


@pytest.mark.parametrize("level", [0.7, 0.9, 0.99, 0.999])
def test_the_p_value_is_that_of_the_exact_distribution(level):
    """Of a sum of draws with unequal probabilities, by convolution."""
    random = np.random.default_rng(0)
    confidence = np.clip(random.normal(level, (1 - level) / 3, 6000 if level > 0.98 else 60), 0.5, 1)
    if level > 0.995:
        confidence = np.tile(confidence, 2)
    exact = np.ones(1)
    for p in confidence:
        exact = np.convolve(exact, [1 - p, p])
    below, above = np.cumsum(exact), np.cumsum(exact[::-1])[::-1]
    for right in range(len(exact)):
        expected = min(1.0, 2 * min(below[right], above[right]))
        if expected > 0.001:
            # Rather too large than too small.
            assert 0.9 * expected - 0.001 < chance_of_as_far(confidence, right) < 1.25 * expected + 0.001


@pytest.mark.parametrize("seed", range(5))
def test_copies_of_rows_that_are_one_group_tell_no_more_than_one_of_them(seed):
    p, labels = drawn(400, seed)
    alone = slices(answer_of(p, labels), resamples=20)
    four, again = np.repeat(p, 4), np.repeat(labels, 4)
    copies = replace(answer_of(four, again), groups=np.repeat(np.arange(400), 4))
    for one, many in zip(alone, slices(copies, resamples=20), strict=True):
        assert many.p == pytest.approx(one.p, abs=0.06)
    unknown = slices(answer_of(four, again), resamples=20)
    assert min(own.p for own in unknown) < min(own.p for own in alone)


def test_groups_and_lengths_are_slices_and_small_ones_are_left_out():
    p, labels = drawn(200, 0)
    groups = ["large"] * 150 + ["middle"] * 30 + ["small"] * 20
    found = slices(answer_of(p, labels), groups, list(range(200)), resamples=20)
    named = {(own.kind, own.name): own for own in found}
    assert [name for kind, name in named if kind == "group"] == ["large", "middle"]
    assert [own.rows for own in found if own.kind == "length"] == [50] * 4
    assert sum(own.rows for own in found if own.kind == "predicted class") == 200
    assert min(own.rows for own in found) >= FEWEST_ROWS
    p_of_large = np.maximum(p, 1 - p)[:150]
    assert named["group", "large"].confidence == pytest.approx(p_of_large.mean(), abs=1e-6)


def test_rows_of_unknown_label_are_left_out():
    p, labels = drawn(100, 1)
    hidden = np.where(np.arange(200) < 100, np.concatenate([labels, labels]), UNKNOWN)
    known = slices(answer_of(p, labels), resamples=20)
    assert slices(answer_of(np.concatenate([p, p]), hidden), resamples=20) == known


@pytest.mark.slow
@pytest.mark.parametrize("surest", [0.95, 0.99, 0.999])
def test_honest_probabilities_raise_no_more_false_alarms_than_promised(surest):
    """Of 400 data sets with ten slices at most 5 %, and two standard errors, have an alarm."""
    alarms = 0
    for seed in range(400):
        p, labels = drawn(400, seed, least=0.05 if surest == 0.95 else 2 * surest - 1, surest=surest)
        groups = [f"g{row % 4}" for row in range(400)]
        found = slices(answer_of(p, labels), groups, np.random.default_rng(seed).permutation(400), 2)
        assert surest > 0.95 or len(found) == 10
        alarms += any(own.adjusted_p < 0.05 for own in found)
    assert alarms / 400 <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 400)


def test_a_slice_that_is_too_sure_is_found():
    (p, labels), (q, others) = drawn(1500, 0), drawn(500, 1, honest=False)
    groups = ["honest"] * 1500 + ["boastful"] * 500
    answer = answer_of(np.concatenate([p, q]), np.concatenate([labels, others]))
    found = {own.name: own for own in slices(answer, groups)}
    assert found["boastful"].adjusted_p < 0.001
    assert found["boastful"].gap.low > 0
    assert found["honest"].adjusted_p > 0.05


@given(some.lists(some.floats(0, 1), min_size=1, max_size=12))
def test_adjusted_p_values_keep_their_order_and_are_no_smaller(p):
    adjusted = holm(p)
    assert all(own <= raised <= 1 for own, raised in zip(p, adjusted, strict=True))
    assert min(adjusted) == pytest.approx(min(1.0, len(p) * min(p)))
    ranked = [adjusted[place] for place in np.argsort(p, kind="stable")]
    assert ranked == sorted(ranked)


def test_groups_must_be_one_a_row():
    p, labels = drawn(40, 0)
    with pytest.raises(InputError, match="expected 40 groups, one a row, got 3"):
        slices(answer_of(p, labels), ["a", "b", "c"])
