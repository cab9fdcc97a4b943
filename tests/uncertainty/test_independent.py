"""Of rows that belong together one counts: which, and that promises then hold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from credibly.uncertainty.promises.conformal import PredictionSets
from credibly.uncertainty.promises.independent import one_of_each
from credibly.uncertainty.promises.selective import Abstention


@given(st.lists(st.integers(0, 5), min_size=1, max_size=20), st.randoms(use_true_random=False))
def test_one_row_of_every_group_stays_whatever_the_order_of_the_rows(groups, random):
    ids = [f"row-{place}" for place in range(len(groups))]
    stays = one_of_each(np.array(groups), ids)
    assert sorted(np.array(groups)[stays]) == sorted(set(groups))
    order = random.sample(range(len(ids)), len(ids))
    moved = one_of_each(np.array(groups)[order], [ids[place] for place in order])
    assert moved.tolist() == stays[order].tolist()


def test_which_row_stays_is_drawn():
    groups, ids = np.repeat(np.arange(4000), 3), [str(row) for row in range(12_000)]
    places = np.flatnonzero(one_of_each(groups, ids)) % 3
    # A third each, within four standard errors of 0.0075.
    np.testing.assert_allclose(np.bincount(places) / 4000, 1 / 3, atol=0.03)
    assert (np.flatnonzero(one_of_each(groups, ids, seed=1)) % 3 != places).mean() == pytest.approx(
        2 / 3, abs=0.03
    )


def test_without_groups_all_rows_stay():
    assert one_of_each(None, ["a", "b"]).tolist() == [True, True]


def drawn(random, groups, size):
    """Rows of groups whose texts share much of what makes them uncertain, and whether they are wrong."""
    group_of = np.repeat(np.arange(groups), size)
    common = random.normal(size=groups)[group_of] + 0.3 * random.normal(size=groups * size)
    # The risk is 10 % at any threshold, and a group is mostly wrong as one.
    luck = np.where(
        random.random(groups * size) < 0.8, random.random(groups)[group_of], random.random(len(common))
    )
    return common, luck < 0.1, group_of, [str(row) for row in range(groups * size)]


@pytest.mark.slow
def test_a_risk_is_promised_by_one_row_of_each_group_and_not_by_all():
    random = np.random.default_rng(0)
    broken = {"all": 0, "one": 0}
    for _ in range(400):
        scores, wrong, groups, ids = drawn(random, 150, 10)
        stays = one_of_each(groups, ids)
        for name, rows in (("all", np.ones(len(ids), dtype=bool)), ("one", stays)):
            # The true risk of whatever is answered is 10 %, above the 9 % that are promised.
            broken[name] += Abstention.at_risk(scores[rows], wrong[rows], 0.09).threshold is not None
    # At most 5 % of 400, and two standard errors.
    assert broken["one"] <= 20 + 2 * np.sqrt(400 * 0.05 * 0.95)
    assert broken["all"] > 60


def test_sets_of_one_row_of_each_group_hold_the_label_as_often_as_promised():
    random = np.random.default_rng(1)
    covered = []
    for _ in range(400):
        # Rows of a group are alike; the last group stands for the texts to come.
        sure = np.repeat(random.random(41), 5)
        labels = (random.random(41 * 5) < sure).astype(int)
        probs, groups = np.stack([1 - sure, sure], axis=1), np.repeat(np.arange(41), 5)
        known = groups < 40
        stays = one_of_each(groups[known], [str(row) for row in range(200)])
        sets = PredictionSets.fit(probs[known][stays], labels[known][stays], 0.8)
        new = np.flatnonzero(~known)[:1]
        covered.append(sets.sets(probs[new])[0, labels[new[0]]])
    # 80 % or more, less three standard errors of 2 points.
    assert np.mean(covered) >= 0.74
