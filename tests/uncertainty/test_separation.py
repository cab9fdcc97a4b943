"""Telling the unknown from the known: AUROC and FPR at 95 %, by hand and by scikit-learn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import roc_auc_score, roc_curve

from credibly.errors import InputError
from credibly.records import Interval
from credibly.uncertainty.unknown.separation import noticeable_auroc, passing, separations


def fpr95_of_scikit_learn(inside, outside):
    """Known rows are the positives there, and the less strange the surer."""
    known = np.repeat([1, 0], [len(inside), len(outside)])
    fpr, tpr, _ = roc_curve(known, -np.concatenate([inside, outside]), drop_intermediate=False)
    return fpr[np.argmax(tpr >= 0.95 - 1e-12)]


def one(inside, outside, **options):
    return separations({"x": np.array(inside)}, {"x": np.array(outside)}, **options)["x"]


def test_worked_by_hand():
    """19 of 20 known rows lie at or below 19; of the unknown 5 and 19 do, 25 and 30 do not."""
    found = one(np.arange(1.0, 21), [5.0, 19.0, 25.0, 30.0], resamples=2)
    assert found.fpr95.value == 0.5
    # 5 beats four and a half known rows, 19 eighteen and a half, the others all 20.
    assert found.auroc.value == pytest.approx((4.5 + 18.5 + 20 + 20) / 80)
    assert one([1.0, 2.0], [3.0, 4.0], resamples=2).as_json()["fpr95"]["value"] == 0
    assert one([3.0, 4.0], [1.0, 2.0], resamples=2).fpr95.value == 1


@given(
    st.lists(st.integers(0, 9), min_size=2, max_size=60),
    st.lists(st.integers(0, 9), min_size=2, max_size=60),
)
def test_equal_to_scikit_learn_with_any_ties(inside, outside):
    if len({*inside, *outside}) == 1:
        assert one(np.array(inside, float), np.array(outside, float), resamples=2).auroc == Interval(None)
        return
    found = one(np.array(inside, float), np.array(outside, float), resamples=2)
    labels = np.repeat([0, 1], [len(inside), len(outside)])
    assert found.auroc.value == pytest.approx(roc_auc_score(labels, np.concatenate([inside, outside])))
    assert found.fpr95.value == pytest.approx(fpr95_of_scikit_learn(np.array(inside), np.array(outside)))


@given(st.integers(0, 10_000))
def test_a_resample_counts_as_if_it_were_written_out(seed):
    random = np.random.default_rng(seed)
    inside, outside = random.integers(0, 12, 30).astype(float), random.integers(3, 15, 20).astype(float)
    counts, further = (np.bincount(random.integers(0, n, n), minlength=n).astype(float) for n in (30, 20))
    shares = passing(inside, outside)(counts[:, None], further[:, None])
    written = np.repeat(inside, counts.astype(int)), np.repeat(outside, further.astype(int))
    assert shares.tolist() == pytest.approx([fpr95_of_scikit_learn(*written)])


def test_intervals_hold_the_value_and_all_scores_share_the_draws():
    random = np.random.default_rng(0)
    inside, outside = random.normal(size=300), random.normal(1, 1, 200)
    both = {"x": inside, "twice": 2 * inside}, {"x": outside, "twice": 2 * outside}
    found = separations(*both, resamples=200)
    assert found["x"] == found["twice"]
    for figure in (found["x"].auroc, found["x"].fpr95):
        assert figure.low < figure.value < figure.high
    assert separations(*both, resamples=200, seed=1)["x"].auroc.low != found["x"].auroc.low


@pytest.mark.slow
def test_intervals_cover():
    """AUROC and FPR at 95 % of two normal distributions, one apart, are known."""
    true = {"auroc": norm.cdf(1 / np.sqrt(2)), "fpr95": norm.cdf(norm.ppf(0.95) - 1)}
    covered = dict.fromkeys(true, 0)
    random = np.random.default_rng(0)
    for seed in range(300):
        found = one(random.normal(size=250), random.normal(1, 1, 250), resamples=300, seed=seed)
        for name, value in true.items():
            figure = getattr(found, name)
            covered[name] += figure.low <= value <= figure.high
    # 95 % of 300 is 285, with a standard deviation of 3.8.
    assert covered["auroc"] >= 274
    assert covered["fpr95"] >= 274


@pytest.mark.slow
def test_the_auroc_that_shows_is_found_in_four_cases_of_five():
    random = np.random.default_rng(0)
    N, K = 120, 40
    distance = norm.ppf(noticeable_auroc(N, K)) * np.sqrt(2)
    deviation = np.sqrt((N + K + 1) / (12 * N * K))
    found = 0
    for _ in range(400):
        scores = np.concatenate([random.normal(size=N), random.normal(distance, 1, K)])
        auroc = roc_auc_score(np.repeat([0, 1], [N, K]), scores)
        found += abs(auroc - 0.5) > norm.ppf(0.975) * deviation
    assert found / 400 == pytest.approx(0.8, abs=0.08)


@pytest.mark.parametrize(
    ("inside", "outside", "told"),
    [
        ({}, {}, "expected the same scores on both sides"),
        ({"a": np.zeros(2)}, {"b": np.zeros(2)}, r"got \['a'\] and \['b'\]"),
        ({"a": np.zeros(2), "b": np.zeros(3)}, {"a": np.zeros(1), "b": np.zeros(1)}, "as many rows"),
        ({"a": np.array([1.0, np.inf])}, {"a": np.zeros(1)}, "expected a as finite numbers"),
        ({"a": np.zeros(0)}, {"a": np.ones(1)}, "expected one row or more"),
    ],
)
def test_scores_that_do_not_fit_are_told(inside, outside, told):
    with pytest.raises(InputError, match=told):
        separations(inside, outside, resamples=2)


def test_five_rows_that_none_passes_do_not_prove_that_none_would():
    found = separations({"score": np.arange(60.0)}, {"score": np.full(5, 100.0)}, resamples=50)["score"]
    assert (found.auroc.value, found.auroc.high) == (1, 1)
    assert 0.6 < found.auroc.low < 0.8
    assert (found.fpr95.value, found.fpr95.low) == (0, 0)
    assert found.fpr95.high == pytest.approx(1.96**2 / (5 + 1.96**2), abs=1e-3)  # Wilson's


def test_known_rows_that_belong_together_make_no_share_of_the_unknown_ones_wider():
    inside, outside = {"score": np.arange(200.0)}, {"score": np.full(40, 1000.0)}
    alone, grouped = (
        separations(inside, outside, resamples=50, groups=groups)["score"]
        for groups in (None, np.repeat(np.arange(40), 5))
    )
    assert alone.fpr95.value == 0
    assert grouped.fpr95 == alone.fpr95  # as groups of five its upper end would be four times as high
    assert grouped.auroc.low < alone.auroc.low
