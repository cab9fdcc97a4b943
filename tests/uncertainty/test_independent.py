"""Of rows that belong together one counts: which, and that promises then hold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from credibly.uncertainty.promises.conformal import PredictionSets
from credibly.uncertainty.promises.independent import one_of_each
from credibly.uncertainty.promises.selective import Abstention


@given(st.lists(st.integers(0, 5), min_size=1, max_size=20), st.integers(0, 5))
def test_one_row_of_every_group_stays(groups, seed):
    stays = one_of_each(np.array(groups), len(groups), seed)
    assert sorted(np.array(groups)[stays]) == sorted(set(groups))


def test_which_row_stays_is_drawn():
    groups = np.repeat(np.arange(4000), 3)
    places, others = (np.flatnonzero(one_of_each(groups, 12_000, seed)) % 3 for seed in (0, 1))
    # A third each, within four standard errors of 0.0075.
    np.testing.assert_allclose(np.bincount(places) / 4000, 1 / 3, atol=0.03)
    assert (places != others).mean() == pytest.approx(2 / 3, abs=0.03)


def test_without_groups_all_rows_stay():
    assert one_of_each(None, 2).tolist() == [True, True]


def drawn(random, groups, size):
    """Rows of groups whose texts share much of what makes them uncertain, and whether they are wrong."""
    group_of = np.repeat(np.arange(groups), size)
    common = random.normal(size=groups)[group_of] + 0.3 * random.normal(size=groups * size)
    # The risk is 10 % at any threshold, and a group is mostly wrong as one.
    luck = np.where(
        random.random(groups * size) < 0.8, random.random(groups)[group_of], random.random(len(common))
    )
    return common, luck < 0.1, group_of


@pytest.mark.slow
def test_a_risk_is_promised_by_one_row_of_each_group_and_not_by_all():
    random = np.random.default_rng(0)
    broken = {"all": 0, "one": 0}
    for _ in range(400):
        scores, wrong, groups = drawn(random, 150, 10)
        for name, rows in (("all", slice(None)), ("one", one_of_each(groups, len(groups)))):
            # The true risk of whatever is answered is 10 %, above the 9 % that are promised.
            broken[name] += Abstention.at_risk(scores[rows], wrong[rows], 0.09).threshold is not None
    # At most 5 % of 400, and two standard errors.
    assert broken["one"] <= 20 + 2 * np.sqrt(400 * 0.05 * 0.95)
    assert broken["all"] > 60


def test_sets_of_one_row_of_each_group_hold_the_label_as_often_as_promised_and_those_of_all_do_not():
    random = np.random.default_rng(1)
    covered = {"all": [], "one": []}
    for _ in range(2000):
        # Rows of a group are copies; a thirteenth group stands for the texts to come.
        sure = random.random(13)
        labels = (random.random(13) < sure).astype(int)
        probs, groups = np.stack([1 - sure, sure], axis=1), np.repeat(np.arange(12), 20)
        for name, rows in (("all", slice(None)), ("one", one_of_each(groups, 240))):
            known = groups[rows]
            sets = PredictionSets.fit(probs[known], labels[known], 0.9)
            covered[name].append(sets.sets(probs[12:])[0, labels[12]])
    # A standard error of 2,000 draws is 0.6 points: 12 of 13 would be held, and of copies 11 of 13.
    assert np.mean(covered["one"]) >= 0.9
    assert np.mean(covered["all"]) < 0.88
