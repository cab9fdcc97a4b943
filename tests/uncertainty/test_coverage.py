"""How often intervals hold the truth, by simulation."""

import numpy as np
import pytest
from scipy.special import expit, softmax

from credibly.uncertainty.scoring.binning import binned
from credibly.uncertainty.scoring.brier import uncertainty_estimate
from credibly.uncertainty.scoring.calibration_interval import error_interval
from credibly.uncertainty.scoring.intervals import paired_difference, score
from credibly.uncertainty.scoring.scores import values
from credibly.uncertainty.systems import answers
from uncertainty.cases import answer_of, predictions_of
from uncertainty.simulated import FAULTS, KINDS, SURE, drawn, drawn_answer, true_error

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kind", [*KINDS, SURE])
@pytest.mark.parametrize("fault", FAULTS)
def test_the_calibration_errors_interval_covers(kind, fault):
    truth, random = true_error(kind, fault), np.random.default_rng(3)
    for N in (300, 1000, 3000):
        ends = [error_interval(binned(*drawn(kind, fault, N, random), np.ones((N, 1)))) for _ in range(500)]
        held = np.mean([low <= truth <= high for low, high in ends])
        assert held >= 0.92, (N, held)


def test_bootstrap_intervals_cover():
    """95 % intervals of 500 rows hold the population's figure about 95 times in 100."""
    random = np.random.default_rng(0)
    truth = values(drawn_answer(2_000_000, random, 0.5))
    names = [
        "accuracy",
        "nll",
        "brier",
        "auroc",
        "average_precision",
        "aurc",
        "augrc",
        "eaurc",
        "risk_at_90",
        "error_auroc",
        "f1_macro",
        "mean_total",
    ]
    repeats = 500
    held = dict.fromkeys(names, 0)
    for _ in range(repeats):
        found = score([drawn_answer(500, random, 0.5)], resamples=300, metrics=names)
        for name in names:
            held[name] += found[name].low <= truth[name] <= found[name].high
    for name, times in held.items():
        assert 0.92 * repeats <= times <= 0.985 * repeats, (name, times)


BY_FORMULA = [
    "ece_equal_mass", "ece_classwise", "smooth_ece", "brier_reliability", "brier_resolution",
    "brier_uncertainty", "brier_within_bins", "eaurc", "coverage_at_1", "coverage_at_5",
]  # fmt: skip


def six_classes(N, random, over):
    """Six classes as frequent as one another, their logits too large by a factor."""
    z = random.normal(0, 1.6, (N, 6))
    labels = (z + random.gumbel(size=z.shape)).argmax(axis=1)
    return answer_of(softmax(z * (1 + over), axis=-1)[None], labels)


@pytest.mark.parametrize("first", [0.5, 0.3, 0.1])
def test_the_interval_of_briers_uncertainty_covers_where_one_class_is_common_too(first):
    share = np.r_[first, np.full(9, (1 - first) / 9)]
    random, repeats, truth = np.random.default_rng(6), 250, 1 - (share**2).sum()
    held = 0
    for _ in range(repeats):
        labels = random.choice(10, 1000, p=share)
        answer = answer_of(np.full((1, 1000, 10), 0.1), labels)
        _, low, high = uncertainty_estimate(answer, 0.95)
        held += low <= truth <= high
    assert 0.92 * repeats <= held, held


@pytest.mark.parametrize(("make", "over", "N"), [(drawn_answer, 0.5, 500), (six_classes, 0.0, 600)])
def test_intervals_by_formula_cover(make, over, N):
    """At least 92 times in 100, less two standard errors of 250 draws; calibrated models' errors are 0."""
    random, repeats = np.random.default_rng(5), 250
    truth = values(make(400_000, random, over), BY_FORMULA)
    if over == 0:
        truth |= dict.fromkeys(("ece_equal_mass", "ece_classwise", "smooth_ece", "brier_reliability"), 0.0)
    held = dict.fromkeys(BY_FORMULA, 0)
    for _ in range(repeats):
        found = score([make(N, random, over)], resamples=2, metrics=BY_FORMULA)
        for name, own in found.items():
            held[name] += own.low - 1e-12 <= truth[name] <= own.high + 1e-12
    for name, times in held.items():
        assert times >= (0.92 - 2 * np.sqrt(0.92 * 0.08 / repeats)) * repeats, (name, times)


SECOND = {"too sharp": (2.0, 0.0), "noisy": (1.0, 1.0), "both": (1.5, 0.7), "a little": (1.15, 0.1)}
"""How the second system's logits are made of the first's: a factor, and noise."""


def pair(kind, N, random):
    """Two systems on the same rows: the first perfectly calibrated, the second made from it."""
    factor, noise = SECOND[kind]
    z = random.normal(0.5, 1.7, N)
    labels = (random.random(N) < expit(z)).astype(int)
    both = [expit(z), expit(factor * (z + noise * random.normal(size=N)))]
    made = [predictions_of(np.stack([1 - p, p], -1)[None], labels) for p in both]
    return [answers("ensemble", predictions, {}) for predictions in made]


@pytest.mark.parametrize("kind", SECOND)
def test_paired_differences_cover(kind):
    random, repeats = np.random.default_rng(1), 200
    # Systems that differ a little decide otherwise on some ten rows only: see the test below.
    names = ("nll", "ece_debiased") if kind == "a little" else ("nll", "ece_debiased", "accuracy")
    sides = [values(side[0], names) for side in pair(kind, 1_000_000, random)]
    sides[0]["ece_debiased"] = 0.0  # of the population; the sample's is not quite
    held = dict.fromkeys(names, 0)
    for _ in range(repeats):
        first, second = pair(kind, 600, random)
        for name in names:
            found = paired_difference(first, second, name, resamples=300)
            held[name] += found.low - 1e-6 <= sides[0][name] - sides[1][name] <= found.high + 1e-6
    for name, times in held.items():
        assert times >= 0.9 * repeats, (name, times)


@pytest.mark.parametrize(("N", "least"), [(300, 0.85), (600, 0.91)])
def test_accuracy_differences_on_a_handful_of_rows_cover_less(N, least):
    """A known limit: 88 % where five rows differ (N = 300), 93 % where eleven do; 95 % from fifty on.

    Those are 4,000 direct draws of the multinomial; the bounds leave three standard errors of 1,000.
    """
    random = np.random.default_rng(2)
    first, second = (
        values(side[0], ["accuracy"])["accuracy"] for side in pair("a little", 2_000_000, random)
    )
    held = 0
    for _ in range(1000):
        found = paired_difference(*pair("a little", N, random), "accuracy")
        held += found.low - 1e-12 <= first - second <= found.high + 1e-12
    assert held >= least * 1000, held
