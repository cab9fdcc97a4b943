import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from credibly.errors import InputError
from credibly.uncertainty.exact import chance_of_so_few
from credibly.uncertainty.promises.selective import Abstention
from credibly.uncertainty.promises.selective_figures import selective_table

RISK, DELTA = 0.05, 0.05

SCORES = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
WRONG = np.array([False, False, False, True, True])


def loop(scores, wrong, risk, delta, seed):
    """Learn-then-Test with plain loops: place on a fifth, walk up on the others, stop at a failure."""
    rows = np.random.default_rng(seed).permutation(len(scores))
    cut = round(0.2 * len(scores))
    parts = [[(scores[row], wrong[row]) for row in part] for part in (rows[:cut], rows[cut:])]

    def p_value(part, threshold):
        answered = [error for score, error in part if score <= threshold]
        if not answered:
            return 1.0
        return binomtest(int(sum(answered)), len(answered), risk, alternative="less").pvalue

    candidates = sorted({score for score, _ in parts[0]})
    best = min(candidates, key=lambda threshold: (p_value(parts[0], threshold), -threshold))
    at_best = sum(score <= best for score, _ in parts[0])
    fewest = next(n for n in range(1, 999) if (1 - risk) ** n <= delta)
    wanted = max(0.7 * at_best, min(at_best, 1.6 * fewest * len(parts[0]) / len(parts[1])))
    start = next(t for t in candidates if sum(score <= t for score, _ in parts[0]) >= wanted)
    found = None
    for threshold in candidates[candidates.index(start) :]:
        if p_value(parts[1], threshold) > delta:
            break
        found = threshold
    return found


def test_the_walk_by_hand():
    # p at 0.2: 1/4; at 0.3: 1/8; at 0.4, one error in four: 5/16 > 0.3, and the walk ends.
    fitted = Abstention.at_risk(SCORES, WRONG, 0.5, 0.3, thresholds=[0.2, 0.3, 0.4, 0.5])
    assert fitted == Abstention("risk", 0.5, 0.3, rows=5, answered=3, wrong=0, delta=0.3)
    assert fitted.answers([0.3, 0.30001, -1.0]).tolist() == [True, False, True]
    assert fitted.in_words() == (
        "At most 50 % of the answers are wrong, with a confidence of 70 %: "
        "of 5 calibration rows it answered 3, 0 of them wrong."
    )


def test_a_walk_that_fails_at_its_first_step_answers_nothing_and_says_so():
    # 0.3 would pass, but 0.1 comes first and one answered row is too few.
    fitted = Abstention.at_risk(SCORES, WRONG, 0.5, 0.3, thresholds=[0.1, 0.3])
    assert fitted.threshold is None
    assert not fitted.answers(SCORES).any()
    assert "abstains on every text" in fitted.in_words()


def test_rows_that_tie_are_answered_together():
    scores = np.array([0.1, 0.1, 0.2, 0.2, 0.2, 0.3])
    wrong = np.array([False, False, False, False, True, True])
    fitted = Abstention.at_risk(scores, wrong, 0.5, 0.3, thresholds=[0.1, 0.2])
    assert (fitted.threshold, fitted.answered, fitted.wrong) == (0.2, 5, 1)  # p = 6/32
    assert fitted.answers(scores).sum() == 5


@pytest.mark.parametrize("ties", [False, True])
def test_the_threshold_is_that_of_plain_loops(ties):
    some = 0
    for seed in range(25):
        random = np.random.default_rng(seed)
        scores = random.random(120)
        wrong = random.random(120) < 0.15 * scores
        if ties:
            scores = np.round(scores, 1)
        expected = loop(scores, wrong, 0.1, 0.1, seed)
        assert Abstention.at_risk(scores, wrong, 0.1, 0.1, seed=seed).threshold == expected
        some += expected is not None
    assert 5 < some < 25


@given(st.integers(0, 10**6))
def test_only_the_order_of_the_uncertainties_matters(seed):
    random = np.random.default_rng(seed)
    scores = random.normal(size=200)
    wrong = random.random(200) < 0.02
    plain = Abstention.at_risk(scores, wrong, 0.2, seed=seed)
    stretched = Abstention.at_risk(np.exp(3 * scores), wrong, 0.2, seed=seed)
    assert (plain.answers(scores) == stretched.answers(np.exp(3 * scores))).all()
    assert plain.answers(scores).any()


def rate_of(case, s):
    """The chance of an error at uncertainty s, uniform on [0, 1]."""
    return {
        "just above everywhere": np.full_like(s, 0.0501),
        "crossing": 0.15 * s,
        "crossing steeply": np.where(s > 0.5, 0.5, 0.02),
        "sure and wrong": np.where(s < 0.08, 0.3, np.where(s < 0.7, 0.02, 0.4)),
        "upside down": 0.08 * (1 - s),
        "all wrong": np.ones_like(s),
        "all right": np.zeros_like(s),
    }[case]


CASES = ("just above everywhere", "crossing", "crossing steeply", "sure and wrong", "upside down")


def risks(case, levels):
    """True selective risk R(t) on a fine grid, for uncertainties rounded up to levels (0: not rounded)."""
    s = (np.arange(20000) + 0.5) / 20000
    rates = np.cumsum(rate_of(case, s)) / np.arange(1, 20001)

    def at(threshold):
        reach = threshold if not levels else np.floor(threshold * levels + 1e-9) / levels
        return rates[min(round(reach * 20000), 20000) - 1]

    return at


def violations(case, N, levels=0, splits=1000, fit=None):
    """Share of splits whose threshold has a true risk above 5 %, and the share that answers something."""
    at, random = risks(case, levels), np.random.default_rng(7)
    broken = answering = 0
    for split in range(splits):
        s = random.random(N)
        wrong = random.random(N) < rate_of(case, s)
        scores = s if not levels else np.ceil(s * levels) / levels
        found = (
            fit(scores, wrong)
            if fit
            else Abstention.at_risk(scores, wrong, RISK, DELTA, seed=split).threshold
        )
        answering += found is not None
        broken += found is not None and at(found) > RISK
    return broken / splits, answering / splits


ALLOWED = DELTA + 2 * np.sqrt(DELTA * (1 - DELTA) / 1000)


@pytest.mark.parametrize("levels", [0, 5])
@pytest.mark.parametrize("case", CASES)
def test_the_error_rate_is_above_the_risk_in_at_most_delta_of_the_splits(case, levels):
    broken, answering = violations(case, N=600, levels=levels)
    assert broken <= ALLOWED
    assert answering >= {"crossing": 0.3, "crossing steeply": 0.5}.get(case, 0)


def test_a_useful_model_gets_its_threshold_from_300_rows():
    random, answered = np.random.default_rng(0), []
    for seed in range(200):
        margin = np.abs(random.normal(0, 8, 300))
        wrong = random.random(300) < 1 / (1 + np.exp(margin))  # 7 % of all
        answered.append(Abstention.at_risk(-margin, wrong, RISK, seed=seed).answers(-margin).mean())
    assert np.mean(answered) > 0.8
    assert np.mean(np.equal(answered, 0)) < 0.03


@pytest.mark.slow
@pytest.mark.parametrize("N", [74, 100, 250, 2000])
@pytest.mark.parametrize("levels", [0, 2, 20])
@pytest.mark.parametrize("case", CASES)
def test_the_promise_holds_at_any_number_of_rows_and_ties(case, levels, N):
    assert violations(case, N, levels)[0] <= ALLOWED


def largest_that_passes(scores, wrong):
    """What a careless search would do: the largest uncertainty of the rows themselves with p <= delta."""
    order = np.argsort(scores)
    passed = chance_of_so_few(np.cumsum(wrong[order]), np.arange(1, len(scores) + 1), RISK) <= DELTA
    return scores[order][passed].max() if passed.any() else None


def test_the_simulation_catches_a_search_without_the_walk():
    assert violations("just above everywhere", 600, fit=largest_that_passes)[0] > 2 * ALLOWED


def test_all_right_answers_all_and_all_wrong_none():
    scores = np.random.default_rng(0).random(300)
    right = Abstention.at_risk(scores, np.zeros(300, dtype=bool), RISK)
    assert right.answers(scores).mean() > 0.95
    assert (right.rows, right.wrong) == (240, 0)
    assert Abstention.at_risk(scores, np.ones(300, dtype=bool), RISK).threshold is None
    same = Abstention.at_risk(np.zeros(300), np.zeros(300, dtype=bool), RISK)
    assert (same.threshold, same.answered) == (0.0, 240)


def test_the_larger_the_risk_the_more_is_answered():
    random = np.random.default_rng(3)
    scores = random.random(1000)
    wrong = random.random(1000) < 0.3 * scores
    answered = [Abstention.at_risk(scores, wrong, risk, seed=1).answered for risk in (0.04, 0.08, 0.12, 0.3)]
    assert answered == sorted(answered)
    assert answered[0] < answered[-1]


def test_too_few_rows_say_how_many_without_an_error_would_do():
    none = np.zeros(73, dtype=bool)
    with pytest.raises(
        InputError, match=r"expected 59 answered rows.*got 58 to test on.*74 rows in all would do"
    ):
        Abstention.at_risk(np.arange(73.0), none, 0.05)
    assert Abstention.at_risk(np.arange(74.0), np.zeros(74, dtype=bool), 0.05).rows == 59
    with pytest.raises(InputError, match=r"expected 59 answered rows.*got 58 to test on$"):
        Abstention.at_risk(np.arange(58.0), none[:58], 0.05, thresholds=[100.0])
    assert Abstention.at_risk(np.arange(59.0), none[:59], 0.05, thresholds=[100.0]).answered == 59
    with pytest.raises(InputError, match=r"expected 1 answered rows.*2 rows in all"):
        Abstention.at_risk([0.5], [False], 0.9, 0.5)
    assert Abstention.at_risk([0.5, 0.5], [False, False], 0.9, 0.5).answered == 1


def test_coverage_by_hand():
    fitted = Abstention.at_coverage([0.9, 0.1, 0.5, 0.3], 0.6)
    assert fitted == Abstention("coverage", 0.6, 0.5, rows=4, answered=3)  # ceil(5 * 0.6) = 3
    assert "60 % or more; of errors nothing is promised" in fitted.in_words()
    with pytest.raises(InputError, match="expected 9 calibration rows"):
        Abstention.at_coverage([0.9, 0.1, 0.5, 0.3], 0.9)


def test_a_new_row_is_answered_as_often_as_promised():
    random = np.random.default_rng(0)
    shares = [Abstention.at_coverage(random.random(30), 0.8).threshold for _ in range(3000)]
    assert np.mean(shares) == pytest.approx(25 / 31, abs=0.004)  # uniform: the threshold is the share


def test_the_table_by_hand():
    given_risks = [
        Abstention("risk", 0.2, 0.3, 90, 80, 4, 0.05),
        Abstention("risk", 0.01, None, 90, 0, 0, 0.05),
        Abstention("coverage", 0.8, 0.4, 90, 73),
    ]
    first, none, most = selective_table(given_risks, SCORES, WRONG)
    assert (first.coverage.value, first.risk.value) == (0.6, 0.0)
    exact = binomtest(0, 3).proportion_ci(0.95, method="exact")
    assert (first.risk.low, first.risk.high) == pytest.approx((exact.low, exact.high))
    assert (none.coverage.value, none.risk.value) == (0.0, None)
    assert (most.coverage.value, most.risk.value, most.rows) == (0.8, 0.25, 5)
    assert json.loads(json.dumps(most.as_json()))["abstention"]["threshold"] == 0.4


@pytest.mark.parametrize(
    "fitted",
    [
        Abstention("risk", 0.05, 0.1 + 0.2, 240, 200, 3, 0.05),
        Abstention("risk", 0.05, None, 240, 0, 0, 0.05),
        Abstention("coverage", 0.9, 1 / 3, 99, 90),
    ],
)
def test_json_goes_there_and_back(fitted):
    assert Abstention.from_json(json.loads(json.dumps(fitted.as_json()))) == fitted


@pytest.mark.parametrize(
    "change", [{"mode": "risks"}, {"threshold": np.nan}, {"level": 1.0}, {"delta": None}, {"rows": "many"}]
)
def test_json_that_does_not_fit_is_refused(change):
    content = Abstention("risk", 0.05, 0.3, 240, 200, 3, 0.05).as_json()
    with pytest.raises(InputError, match="expected"):
        Abstention.from_json({**content, **change})
    del content["level"]
    with pytest.raises(InputError, match="expected an abstention"):
        Abstention.from_json(content)


def test_what_does_not_fit_is_refused():
    scores, wrong = np.arange(100.0), np.zeros(100, dtype=bool)
    for risk, delta, name in ((0.0, 0.05, "risk"), (1.0, 0.05, "risk"), (0.05, 0.0, "delta")):
        with pytest.raises(InputError, match=f"expected a {name} above 0 and below 1"):
            Abstention.at_risk(scores, wrong, risk, delta)
    with pytest.raises(InputError, match="wrong as booleans of shape"):
        Abstention.at_risk(scores, wrong.astype(int), 0.05)
    with pytest.raises(InputError, match="wrong as booleans of shape"):
        Abstention.at_risk(scores, wrong[:-1], 0.05)
    with pytest.raises(InputError, match="uncertainty as finite numbers"):
        Abstention.at_risk(np.full(100, np.nan), wrong, 0.05)
    with pytest.raises(InputError, match="thresholds as finite numbers"):
        Abstention.at_risk(scores, wrong, 0.05, thresholds=[np.inf])
