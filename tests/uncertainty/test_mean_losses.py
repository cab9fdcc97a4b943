"""Mean losses where few answers are wrong: by hand, and how often their intervals hold the truth."""

from dataclasses import replace

import numpy as np
import pytest

from credibly.records import Interval
from credibly.uncertainty.scoring.intervals import paired_difference, score
from credibly.uncertainty.scoring.mean_losses import LOSSES, unseen_variance, with_unseen_mistakes
from uncertainty.cases import answer_of, random_answer

NEVER = np.full(100, 0.002)
"""Resamples of rows that are all right at 0.998."""


def sure(p, right):
    """Rows answered by the second class with probability p; the label is the first where one is wrong."""
    probs = np.stack([1 - p * np.ones(len(right)), p * np.ones(len(right))], -1)
    return answer_of(probs[None], right.astype(int))


@pytest.mark.parametrize("metric", LOSSES)
def test_losses_by_label_are_the_metrics_own(metric):
    answer = random_answer(N=60, C=3)
    own = LOSSES[metric](answer.probs)[np.arange(60), answer.labels].mean()
    assert own == pytest.approx(score([answer], 2, metrics=[metric])[metric].value)


def test_without_mistakes_the_probabilities_say_how_far_the_loss_may_move():
    # p = 0.998: the NLL is 0.002 or 6.21, whose variance is p (1 - p) ln(p / (1 - p))^2.
    deviation = np.sqrt(0.998 * 0.002 / 300) * np.log(0.998 / 0.002)
    found = score([sure(0.998, np.ones(300, bool))], 50, metrics=["nll", "brier"])
    assert found["nll"].low == 0
    assert found["nll"].high == pytest.approx(-np.log(0.998) + 1.96 * deviation, rel=1e-4)
    brier = np.sqrt(0.998 * 0.002 / 300) * 2 * (0.998**2 - 0.002**2)
    assert found["brier"].high == pytest.approx(2 * 0.002**2 + 1.96 * brier, rel=1e-4)


def test_the_surer_of_two_that_are_never_wrong_is_not_truly_better():
    right = np.ones(300, bool)
    first, second = sure(0.9999, right), sure(0.998, right)
    found = paired_difference([first], [second], "nll", 50)
    assert found.value < 0
    loss = np.log([[0.002 / 0.0001, 0.998 / 0.9999]])  # of a row, by its label
    share = np.array([[(0.002 + 0.0001) / 2, (0.998 + 0.9999) / 2]])
    variance = (share * loss**2).sum() - (share * loss).sum() ** 2
    assert found.high - found.value == pytest.approx(1.96 * np.sqrt(variance / 300), rel=1e-3)
    assert found.low < 0 < found.high
    same = paired_difference([first], [first], "nll", 50)
    assert (same.low, same.value, same.high) == (0, 0, 0)


def test_resamples_that_vary_more_than_the_probabilities_say_stay_as_they_are():
    answer = sure(0.998, np.arange(300) > 20)  # far too sure
    samples = 0.4 + 0.1 * np.array([-1.0, 1.0])
    figure = Interval(0.4, 0.3, 0.5, 0.01)
    assert with_unseen_mistakes(figure, samples, "nll", [[answer]], 0.95) == figure


def test_groups_that_are_right_together_may_be_wrong_together():
    answer = sure(0.998, np.ones(300, bool))
    alone, together = (
        with_unseen_mistakes(Interval(0.002, 0.002, 0.002), NEVER, "nll", [[own]], 0.95)
        for own in (answer, replace(answer, groups=np.repeat(np.arange(75), 4)))
    )
    assert together.high - 0.002 == pytest.approx(2 * (alone.high - 0.002))


def test_rows_of_unknown_label_tell_nothing():
    known = sure(0.998, np.ones(100, bool))
    more = sure(0.998, np.ones(300, bool))
    more = replace(more, labels=np.where(np.arange(300) < 100, more.labels, -1))
    one, other = (score([own], 50, metrics=["nll"])["nll"] for own in (known, more))
    assert one.high == pytest.approx(other.high)


@pytest.mark.slow
@pytest.mark.parametrize("N", [100, 300, 1000])
@pytest.mark.parametrize("metric", ["nll", "brier"])
def test_losses_of_very_sure_models_cover(metric, N):
    """At 0.998 where 0.997 are right; percentiles cover 25 to 90 times in 100."""
    random, held = np.random.default_rng(8), []
    by_label = LOSSES[metric](np.array([[0.002, 0.998]]))[0]
    truth = 0.003 * by_label[0] + 0.997 * by_label[1]
    for _ in range(400):
        found = score([sure(0.998, random.random(N) < 0.997)], 100, metrics=[metric])[metric]
        held.append(found.low <= truth <= found.high)
    assert np.mean(held) >= 0.92 - 2 * np.sqrt(0.92 * 0.08 / 400), np.mean(held)


@pytest.mark.slow
def test_a_temperature_that_was_fitted_on_no_mistakes_seldom_wins():
    """A system at 0.9999 whose true NLL is the worse one; by percentiles it won 39 times in 100."""
    random, won = np.random.default_rng(9), []
    for _ in range(300):
        right = random.random(300) < 0.997
        found = paired_difference([sure(0.9999, right)], [sure(0.998, right)], "nll", 100)
        won.append(found.high < 0)
    assert np.mean(won) <= 0.05


def test_what_was_seen_counts_by_the_mistakes_that_it_rests_on():
    # Two mistakes of 100: (2 b + v) / 3 is by (v - b) / 3 more than b; of 98 mistakes as well.
    loss, share = np.tile([[6.0, 0.1]], (100, 1)), np.tile([[0.05, 0.95]], (100, 1))
    v = (0.05 * 36 + 0.95 * 0.01 - (0.05 * 6 + 0.95 * 0.1) ** 2) / 100
    for wrong in (np.arange(100) < 2, np.arange(100) >= 2):
        assert unseen_variance(loss, share, wrong, seen=v / 4) == pytest.approx(v * 3 / 4 / 3)
        assert unseen_variance(loss, share, wrong, seen=v / 4, together=5.0) == pytest.approx(v * 19 / 4 / 3)
        assert unseen_variance(loss, share, wrong, seen=2 * v) == 0
