import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import foldnorm

from credibly.uncertainty.scoring.binning import bin_of, binned, debiased_error, folded_mean, plain_error
from credibly.uncertainty.scoring.calibration_interval import error_interval
from uncertainty import naive
from uncertainty.simulated import FAULTS, KINDS, drawn, true_error


def bins_of(confidence, correct):
    return binned(np.asarray(confidence), np.asarray(correct), np.ones((len(confidence), 1)))


def test_bins_are_closed_on_the_right():
    assert bin_of(np.array([1e-9, 1 / 15, np.nextafter(1 / 15, 1), 1.0])).tolist() == [0, 0, 1, 14]


def test_plain_error_by_hand():
    # Bin 12 (0.8 to 0.8667): three rows at 0.85, one right: gap 0.85 - 1/3. Bin 14: one row at 1.0, right.
    bins = bins_of([0.85, 0.85, 0.85, 1.0], [True, False, False, True])
    assert plain_error(bins)[0] == pytest.approx(0.75 * (0.85 - 1 / 3))
    assert debiased_error(bins)[0] < plain_error(bins)[0]


def test_the_folded_mean_is_scipys():
    gap, error = np.meshgrid([0.0, 0.01, 0.1, 0.5], [0.001, 0.02, 0.3])
    assert folded_mean(gap, error) == pytest.approx(foldnorm.mean(gap / error, scale=error), abs=1e-12)
    assert folded_mean(np.array([0.0, 0.2]), np.zeros(2)).tolist() == [0.0, 0.2]


@given(st.integers(0, 10**6), st.sampled_from(FAULTS), st.integers(1, 2000))
def test_the_debiased_error_solves_its_equation(seed, fault, N):
    confidence, correct = drawn("broad", fault, N, np.random.default_rng(seed))
    bins = bins_of(confidence, correct)
    found, plain = debiased_error(bins)[0], plain_error(bins)[0]
    assert 0 <= found <= plain
    assert found == pytest.approx(naive.ece_debiased(confidence, correct), abs=1e-7)
    low, high = error_interval(bins)
    assert 0 <= low <= found + 1e-3
    assert found <= high + 1e-3
    assert high <= 1


def test_what_chance_alone_shows_is_zero():
    confidence = np.repeat([0.55, 0.65, 0.75, 0.85, 0.95], 40)
    correct = np.concatenate([np.arange(40) < 40 * level for level in (0.55, 0.65, 0.75, 0.85, 0.95)])
    bins = bins_of(confidence, correct)
    assert plain_error(bins)[0] == pytest.approx(0, abs=1e-12)
    assert debiased_error(bins)[0] == 0
    low, high = error_interval(bins)
    assert low == 0
    # Luck is not knowledge: a perfect model would show 5 points on these 200 rows, so 5 stay possible.
    by_chance = (bins.share * folded_mean(0 * bins.error, bins.error)).sum()
    assert 0.05 < by_chance < high < 2.5 * by_chance


def test_a_model_that_is_never_wrong_does_not_claim_to_be_free_of_error():
    # 300 rows at 0.998, all right: a perfect model shows that 55 times in 100.
    bins = bins_of(np.full(300, 0.998), np.ones(300, bool))
    share = (300 + 2 * 0.998 + 2) / 306
    assert bins.error[-1, 0] == pytest.approx(np.sqrt(share * (1 - share) / 300))
    low, high = error_interval(bins)
    assert low == 0
    assert 0.01 < high < 0.02  # up to 1.2 % of mistakes show none among 300 rows (Clopper & Pearson)


def test_a_gap_far_beyond_chance_stays():
    bins = bins_of(np.full(100_000, 0.9), np.arange(100_000) < 70_000)
    assert plain_error(bins)[0] == pytest.approx(0.2)
    assert debiased_error(bins)[0] == pytest.approx(0.2, abs=1e-9)
    low, high = error_interval(bins)
    error = np.sqrt(0.7 * 0.3 / 100_000)
    assert (low, high) == pytest.approx((0.2 - 1.96 * error, 0.2 + 1.96 * error), abs=0.3 * error)


def test_a_wider_confidence_gives_a_wider_interval():
    bins = bins_of(*drawn("broad", "over 3 %", 500, np.random.default_rng(0)))
    (low90, high90), (low99, high99) = error_interval(bins, 0.9), error_interval(bins, 0.99)
    assert low99 <= low90 <= high90 < high99


def kumar(bins):
    """Each bin's gap less the bias of its bootstrap, in closed form (Kumar et al. 2019)."""
    return (bins.share * (2 * bins.gap - folded_mean(bins.gap, bins.error))).sum()


def less_chance(bins):
    """The plain error less what a perfect model shows."""
    return plain_error(bins)[0] - (bins.share * folded_mean(0 * bins.error, bins.error)).sum()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_debiased_error_has_the_least_bias_over_all(kind):
    """The reason for the choice: its worst bias over faults and sizes is below every rival's."""
    random = np.random.default_rng(7)
    worst = dict.fromkeys(("ours", "plain", "kumar", "less_chance"), 0.0)
    at_zero = {}
    for fault in FAULTS:
        truth = true_error(kind, fault)
        for N in (300, 1000, 5000):
            bins = [bins_of(*drawn(kind, fault, N, random)) for _ in range(300)]
            found = {
                "ours": [debiased_error(one)[0] for one in bins],
                "plain": [plain_error(one)[0] for one in bins],
                "kumar": [kumar(one) for one in bins],
                "less_chance": [less_chance(one) for one in bins],
            }
            biases = {name: np.mean(values) - truth for name, values in found.items()}
            worst = {name: max(worst[name], abs(bias)) for name, bias in biases.items()}
            if fault == "none":
                at_zero[N] = biases
            else:
                assert abs(biases["ours"]) < (0.012 if N == 300 else 0.007)
    for biases in at_zero.values():
        assert biases["ours"] < 0.45 * biases["plain"]
        assert biases["ours"] < 0.75 * biases["kumar"]
    assert worst["ours"] < min(worst["plain"], worst["kumar"], worst["less_chance"])
