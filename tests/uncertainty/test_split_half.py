"""Halves of an ensemble tell how another ensemble's doubt would rank the same texts."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import spearmanr

from credibly.records import Predictions, unlabelled
from credibly.uncertainty.decompose import decompose
from credibly.uncertainty.scoring.resampling import Resampling
from credibly.uncertainty.scoring.split_half import HALVINGS, agreement_of_halves, lengthened

FEW = Resampling(resamples=40, seed=3)


def record(logits):
    """Return the record of logits, (M, N, C)."""
    texts = [f"text {row}" for row in range(logits.shape[1])]
    return Predictions.from_logits(logits, unlabelled(texts, ["a", "b", "c"][: logits.shape[2]]))


def members(count, N=1500, seed=0, spread=1.0, member_seed=0):
    """Return members whose logits lie about a centre of each text, further for some texts than for others."""
    texts = np.random.default_rng(seed)
    centre, width = 2 * texts.normal(size=(N, 3)), spread * texts.uniform(0.05, 1.0, size=(N, 1))
    return record(centre + width * np.random.default_rng(member_seed).normal(size=(count, N, 3)))


@pytest.mark.parametrize(("count", "spread"), [(6, 1.0), (9, 0.5), (10, 1.0), (20, 0.3)])
def test_it_is_what_fresh_members_come_to(count, spread):
    first, other = (members(count, spread=spread, member_seed=seed) for seed in (1, 2))
    found = agreement_of_halves(first, FEW)
    for kind, figure in found.items():
        fresh = spearmanr(getattr(decompose(first), kind), getattr(decompose(other), kind)).statistic
        assert figure.value == pytest.approx(fresh, abs=0.04)
        assert figure.low < figure.value < figure.high
    assert found["epistemic"].value < found["total"].value


def test_of_six_members_by_hand():
    logits = members(6, N=60).log_probs
    random, values = np.random.default_rng(FEW.seed), []
    for _ in range(HALVINGS):
        order = random.permutation(6)
        halves = [decompose(record(logits[chosen])).epistemic for chosen in (order[:3], order[3:])]
        values.append(spearmanr(*halves).statistic)
    half = np.mean(values)
    assert half > 0.1  # none at all would be told whatever the formula
    found = agreement_of_halves(record(logits), FEW)["epistemic"].value
    assert found == pytest.approx(2 * half / (1 + half))


def test_of_an_odd_number_of_members_one_is_left_out_of_each_parting():
    assert lengthened(np.array([0.5]), 7 / 3) == pytest.approx(7 / 3 * 0.5 / (1 + 4 / 3 * 0.5))
    found = agreement_of_halves(members(7), FEW)["total"].value
    halves = [decompose(record(members(7).log_probs[chosen])).total for chosen in ([0, 1, 2], [3, 4, 5])]
    assert found == pytest.approx(lengthened(spearmanr(*halves).statistic, 7 / 3), abs=0.02)


def test_members_that_agree_know_of_no_doubt_to_rank_by():
    same = record(np.repeat(np.random.default_rng(0).normal(size=(1, 50, 2)), 8, axis=0))
    found = agreement_of_halves(same, FEW)
    assert found["total"].value == pytest.approx(1)
    assert found["epistemic"].value is None


def test_members_that_share_nothing_come_to_nothing():
    noise = record(np.random.default_rng(1).normal(size=(6, 4000, 2)))
    assert agreement_of_halves(noise, FEW)["epistemic"].value < 0.1


def test_the_interval_is_that_of_texts_written_out():
    own, resampling = members(8, N=400), Resampling(resamples=300, seed=1)
    found = agreement_of_halves(own, resampling)["epistemic"]
    random, halves = np.random.default_rng(1), []
    for _ in range(HALVINGS):
        order = random.permutation(8)
        pair = [decompose(record(own.log_probs[chosen])).epistemic for chosen in (order[:4], order[4:])]
        halves.append(pair)
    draws = np.random.default_rng(2).integers(0, 400, size=(300, 400))
    values = [
        np.mean([spearmanr(*(half[rows] for half in pair)).statistic for pair in halves]) for rows in draws
    ]
    low, high = np.quantile(lengthened(np.array(values), 2.0), [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.2 * (high - low))


def test_copies_of_a_text_tell_nothing_new():
    own = members(8, N=200)
    four = replace(record(np.repeat(own.log_probs, 4, axis=1)), groups=np.repeat(np.arange(200), 4))
    few = Resampling(resamples=300, seed=1)
    once, copied = (agreement_of_halves(given, few)["epistemic"] for given in (own, four))
    assert copied.value == pytest.approx(once.value, abs=0.01)
    assert copied.high - copied.low == pytest.approx(once.high - once.low, rel=0.25)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_members_have_halves_too_small_to_tell(count):
    assert agreement_of_halves(members(count, N=20), FEW) == {}
