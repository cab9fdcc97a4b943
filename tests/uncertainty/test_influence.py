import numpy as np
import pytest

from credibly.uncertainty.scoring import ranks
from credibly.uncertainty.scoring.influence import (
    ranking_influence,
    risk_coverage_influence,
    spearman_influence,
)
from credibly.uncertainty.scoring.intervals import resampled, score
from credibly.uncertainty.scoring.ranks import (
    LINEAR_FROM,
    LINEAR_SIDE,
    area_under_risk_coverage,
    ranking,
    spearman,
)
from uncertainty.cases import random_answer

RANKED = ["auroc", "average_precision", "aurc", "augrc", "error_auroc", "spearman_raters"]


def rows(coarse, N=4000):
    """Scores, a flag that goes with them, and another score; coarse ones have ties."""
    random = np.random.default_rng(0)
    scores = random.normal(size=N)
    flags = random.random(N) < 1 / (1 + np.exp(-scores))
    other = scores + random.normal(size=N)
    return (scores.round(1), flags, other.round(1)) if coarse else (scores, flags, other)


def place(values):
    return np.unique(values, return_inverse=True)[1]


def doubled(weighted, index, N):
    """The change of a score when row `index` is taken twice, averaged with that of leaving it out."""
    counts = np.ones((N, 2))
    counts[index] = [2.0, 0.0]
    twice, never = weighted(counts)
    return (twice - never) / 2


@pytest.mark.parametrize("coarse", [False, True])
def test_influences_are_the_changes_when_a_row_is_taken_twice_or_never(coarse):
    scores, flags, other = rows(coarse)
    N = len(scores)
    auroc, average_precision = ranking_influence(place(-scores), flags)
    area, correlation = (
        risk_coverage_influence(place(-scores), flags),
        spearman_influence(place(scores), place(other)),
    )
    ranked = ranking(scores, flags)
    exact = {
        "auroc": (auroc, lambda counts: ranked(counts)[0]),
        "average precision": (average_precision, lambda counts: ranked(counts)[1]),
        "aurc": (area, area_under_risk_coverage(scores, flags)),
        "spearman": (correlation, spearman(scores, other)),
    }
    middling = np.argsort(scores)[200:-200:300]  # the very first rows of an order are not linear
    for name, ((value, influence), weighted) in exact.items():
        assert value == pytest.approx(weighted(np.ones((N, 1)))[0], abs=1e-12), name
        changes = [doubled(weighted, index, N) for index in middling]
        assert influence[middling] == pytest.approx(changes, abs=4e-3 * np.abs(influence).max()), name
        assert influence.sum() == pytest.approx(0, abs=2e-3), name


@pytest.mark.parametrize("metric", RANKED)
@pytest.mark.parametrize("C", [2, 6])
def test_many_rows_give_the_interval_of_the_exact_bootstrap(metric, C, monkeypatch):
    answer = random_answer(N=LINEAR_FROM, C=C)
    linear = resampled([answer], metric, 60)
    monkeypatch.setattr(ranks, "LINEAR_FROM", LINEAR_FROM + 1)
    exact = resampled([answer], metric, 60)
    assert not np.array_equal(linear, exact)
    assert np.corrcoef(linear, exact)[0, 1] > 0.999
    width = 4 * exact.std()
    assert (
        np.abs(np.quantile(linear, [0.025, 0.975]) - np.quantile(exact, [0.025, 0.975])).max() < 0.05 * width
    )


def test_the_figure_itself_stays_exact(monkeypatch):
    answer = random_answer(N=LINEAR_FROM, C=3)
    linear = score([answer], 2, metrics=RANKED)
    monkeypatch.setattr(ranks, "LINEAR_FROM", LINEAR_FROM + 1)
    exact = score([answer], 2, metrics=RANKED)
    for name in RANKED:
        assert linear[name].value == pytest.approx(exact[name].value, abs=1e-11)


def test_a_rare_class_is_resampled_exactly():
    scores, _, _ = rows(False, LINEAR_FROM)
    rare = np.arange(LINEAR_FROM) < LINEAR_SIDE - 1
    counts = np.ones((LINEAR_FROM, 1))
    counts[: LINEAR_SIDE - 1] = 0
    assert np.isnan(ranking(scores, rare)(counts)[0])
