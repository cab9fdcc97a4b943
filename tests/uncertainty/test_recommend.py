"""The recommended candidate is the cheapest that held-out losses do not show to be worse."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm, ttest_rel

from credibly.errors import InputError
from credibly.uncertainty.recommend import recommend
from credibly.uncertainty.scoring.slices import holm


def drawn(N=400, seed=0, **behind):
    """Losses that share most of what varies from row to row, each so far above the others on average."""
    random = np.random.default_rng(seed)
    shared = random.exponential(0.4, N)
    return {name: shared + more + random.normal(0, 0.05, N) for name, more in behind.items()}


def test_the_least_loss_wins_where_all_others_are_truly_worse():
    found = recommend(drawn(slow=0.0, quick=0.1, middle=0.2), {"slow": 9.0, "quick": 1.0, "middle": 2.0})
    assert (found.chosen, found.best, found.as_good) == ("slow", "slow", ("slow",))
    assert found.behind["slow"].adjusted_p is None
    assert found.behind["slow"].difference.value == 0
    assert found.behind["quick"].difference.low > 0.08


def test_the_cheapest_wins_of_those_within_doubt():
    losses = drawn(slow=0.0, quick=0.001, dear=0.0005, worse=0.3)
    found = recommend(losses, {"slow": 9.0, "quick": 1.0, "dear": 20.0, "worse": 0.1})
    assert found.chosen == "quick"
    assert found.as_good == ("quick", "slow", "dear")


def test_among_costs_that_hardly_differ_the_least_loss_decides():
    losses = drawn(quick=0.002, as_quick=0.0, slow=-0.001)
    assert recommend(losses, {"quick": 1.0, "as_quick": 1.05, "slow": 2.0}).chosen == "as_quick"
    assert recommend(losses, {"quick": 1.0, "as_quick": 1.2, "slow": 2.0}).chosen == "quick"


def test_one_of_unknown_cost_counts_as_the_dearest():
    losses = drawn(unknown=0.0, known=0.0)
    assert recommend(losses, {"unknown": None, "known": 1e9}).chosen == "known"
    assert recommend(losses, {"known": 1.0}).chosen == "known"


def test_p_values_are_those_of_paired_tests_with_holms_correction():
    losses = drawn(a=0.0, b=0.004, c=0.006, d=0.009)
    found = recommend(losses, {})
    others = [name for name in losses if name != found.best]
    tests = [ttest_rel(losses[name], losses[found.best]).statistic for name in others]
    expected = dict(zip(others, holm(list(2 * norm.sf(np.abs(tests)))), strict=True))
    for name, p in expected.items():
        assert found.behind[name].adjusted_p == pytest.approx(p)
        assert (name in found.as_good) == (p >= 0.05)
    # Alone, what is truly above is what its interval holds no zero of.
    for other, behind in ((name, recommend({"a": losses["a"], name: losses[name]}, {})) for name in "bcd"):
        worse = max(behind.behind.values(), key=lambda own: own.difference.value)
        assert (worse.adjusted_p < 0.05) == (worse.difference.low > 0), other


def test_intervals_are_those_of_a_mean():
    losses = {"a": np.array([0.0, 0.0, 0.0, 0.0]), "b": np.array([1.0, 0.0, 1.0, 0.0])}
    interval = recommend(losses, {}).behind["b"].difference
    reach = 1.959964 * np.std([1, 0, 1, 0], ddof=1) / 2
    assert (interval.value, interval.low, interval.high) == pytest.approx((0.5, 0.5 - reach, 0.5 + reach))


def test_rows_that_repeat_count_once_where_they_are_of_one_group():
    """Each row ten times over: as a group they say what the row alone says; as ten they are called proof."""
    losses = drawn(30, 3, better=0.0, worse=0.014)
    copies = {name: np.repeat(loss, 10) for name, loss in losses.items()}
    groups = np.repeat(np.arange(30), 10).astype(str).tolist()
    once, grouped, naive = recommend(losses, {}), recommend(copies, {}, groups=groups), recommend(copies, {})
    assert grouped.best == once.best == "better"
    assert grouped.behind["worse"].adjusted_p == pytest.approx(once.behind["worse"].adjusted_p)
    assert grouped.behind["worse"].difference.low == pytest.approx(once.behind["worse"].difference.low)
    assert ("worse" in once.as_good, "worse" in naive.as_good) == (True, False)


def test_the_error_of_groups_by_hand():
    """Groups a (1, 3) and b (0, 0), mean 1: sums off it 2 and -2, so the error is sqrt(2 * 8) / 4 = 1."""
    losses = {"best": np.zeros(4), "other": np.array([1.0, 3.0, 0.0, 0.0])}
    interval = recommend(losses, {}, groups=["a", "a", "b", "b"]).behind["other"].difference
    assert (interval.low, interval.high) == pytest.approx((1 - 1.959964, 1 + 1.959964))


@pytest.mark.parametrize("groups", [["a", "a", "a"], ["a", "b"]])
def test_groups_that_say_nothing_are_refused(groups):
    with pytest.raises(InputError, match="a group for each of the 3 rows, and two groups or more"):
        recommend({"a": np.ones(3), "b": np.zeros(3)}, {}, groups=groups)


def test_equal_losses_are_equally_good():
    loss = np.array([0.1, 0.7, 0.2])
    assert recommend({"slow": loss, "quick": loss.copy()}, {"slow": 2.0, "quick": 1.0}).chosen == "quick"


def test_as_good_a_candidate_is_seldom_called_worse():
    """The best of five equal ones is no better than the rest: how often is one of them called worse?"""
    called = [
        len(recommend(drawn(200, seed, **dict.fromkeys("abcde", 0.0)), {}).as_good) < 5 for seed in range(400)
    ]
    # The least of five draws is low by luck; Holm's correction keeps that to a few in a hundred comparisons.
    assert np.mean(called) < 0.2


@given(st.permutations("abcd"), st.integers(0, 20))
def test_the_order_of_candidates_changes_nothing(order, seed):
    losses = drawn(50, seed, a=0.0, b=0.01, c=0.02, d=0.2)
    costs = {"a": 4.0, "b": 3.0, "c": 2.0, "d": 1.0}
    found = recommend({name: losses[name] for name in order}, costs)
    assert found.chosen == recommend(losses, costs).chosen
    assert found.as_good == recommend(losses, costs).as_good


@pytest.mark.parametrize("losses", [
    {}, {"a": np.array([0.1])}, {"a": np.ones(3), "b": np.ones(4)}, {"a": np.array([0.1, np.inf])},
])  # fmt: skip
def test_losses_that_cannot_be_compared_are_refused(losses):
    with pytest.raises(InputError, match="finite losses of two rows or more"):
        recommend(losses, {})


def test_the_surer_of_two_that_are_never_wrong_is_not_called_better():
    """300 texts, no mistake: that 0.9999 beats 0.998 on each says nothing of what a mistake will cost."""
    by_label = {
        name: -np.log(np.tile([1 - p, p], (300, 1))) for name, p in (("surer", 0.9999), ("sure", 0.998))
    }
    losses = {name: own[:, 1] for name, own in by_label.items()}
    alone, allowed = (
        recommend(losses, {"sure": 0.1, "surer": 1.0}, by_label=own) for own in (None, by_label)
    )
    assert (alone.chosen, allowed.chosen) == ("surer", "sure")
    difference = allowed.behind["sure"].difference
    assert difference.low < 0 < difference.value < difference.high


def test_mistakes_that_are_seen_leave_errors_as_they_are():
    random = np.random.default_rng(0)
    p = {name: random.uniform(0.55, 0.95, 400) for name in ("one", "other")}
    right = random.random(400) < 0.6  # too sure: losses vary more than the probabilities say
    by_label = {name: -np.log(np.stack([1 - own, own], axis=1)) for name, own in p.items()}
    losses = {name: np.where(right, own[:, 1], own[:, 0]) for name, own in by_label.items()}
    found, plain = recommend(losses, {}, by_label=by_label), recommend(losses, {})
    for name, behind in plain.behind.items():
        assert found.behind[name].difference.high == pytest.approx(behind.difference.high, rel=0.01, abs=1e-9)
