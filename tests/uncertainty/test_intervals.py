import tracemalloc

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from credibly.errors import InputError
from credibly.records import Interval
from credibly.uncertainty.scoring import resampling
from credibly.uncertainty.scoring.intervals import (
    paired_difference,
    rank_correlation,
    resampled,
    score,
    score_classes,
    score_shift,
)
from credibly.uncertainty.scoring.resampling import CHUNK, Resampling
from credibly.uncertainty.scoring.score_intervals import Basis, score_interval
from credibly.uncertainty.scoring.scores import METRICS, checked_metrics
from credibly.uncertainty.systems import answers
from uncertainty import naive
from uncertainty.cases import answer_of, random_answer, random_predictions


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(resampling, "CACHED", 1)


def written_out(N, resamples, seed=0):
    """Yield the rows of every resample, repeats written out."""
    for counts in Resampling(resamples, seed=seed).chunks(N):
        yield from rows_taken(counts)


def rows_taken(counts):
    return [np.repeat(np.arange(len(counts)), column) for column in counts.T.astype(int)]


def written_out_pairs(N, K, resamples):
    """Yield the rows of both sets of every resample."""
    for pair in Resampling(resamples).paired_chunks(N, K):
        yield from zip(*map(rows_taken, pair), strict=True)


@pytest.mark.slow
@pytest.mark.parametrize("options", [
    {"C": 2, "N": 80}, {"C": 4, "N": 90, "unknown": 0.2}, {"C": 3, "N": 80, "coarse": True, "M": 2},
    {"C": 6, "N": 40},
])  # fmt: skip
@pytest.mark.usefixtures("small_chunks")
def test_every_vectorised_figure_equals_a_loop_over_written_out_resamples(options):
    answer = random_answer(**options)
    rows = list(written_out(len(answer.ids), CHUNK + 4))
    loop = [naive.scores(answer, chosen) for chosen in rows]
    for name in checked_metrics(None):
        if name == "ece" and options.get("coarse"):
            continue  # torchmetrics puts a confidence on an edge into the upper bin
        expected = [figures[name] for figures in loop]
        found = resampled([answer], name, resamples=CHUNK + 4)
        assert np.isfinite(found).sum() > CHUNK / 2, name
        tolerance = naive.TOLERANCES.get(name, 1e-9)
        assert found == pytest.approx(expected, abs=tolerance, nan_ok=True), name


def test_counts_are_a_bootstraps():
    counts = np.concatenate(list(Resampling(200).chunks(500)), axis=1)
    assert counts.shape == (500, 200)
    assert (counts.sum(axis=0) == 500).all()
    assert counts.var() == pytest.approx(1 - 1 / 500, abs=0.02)  # binomial(N, 1/N)


@pytest.mark.usefixtures("small_chunks")
def test_more_resamples_begin_with_the_same_ones():
    few = np.concatenate(list(Resampling(CHUNK + 3).chunks(51)), axis=1)
    many = np.concatenate(list(Resampling(2 * CHUNK + 5).chunks(51)), axis=1)
    assert np.array_equal(few, many[:, : CHUNK + 3])


def test_chunks_of_any_size_hold_the_same_resamples(monkeypatch):
    whole, (alone, _) = (
        np.concatenate(list(Resampling(30).chunks(51)), axis=1),
        next(iter(Resampling(30).paired_chunks(51, 7))),
    )
    monkeypatch.setattr(resampling, "CACHED", 1)
    small = list(Resampling(30).chunks(51))
    assert len(small) == 4
    assert np.array_equal(np.concatenate(small, axis=1), whole)
    assert np.array_equal(alone, whole)


def test_the_seed_decides_the_draws():
    answer = random_answer()
    first, again, other = (score([answer], 100, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first["nll"] != other["nll"]


def test_ends_are_percentiles_of_the_resamples():
    answer = random_answer()
    samples = resampled([answer], "mean_total", 200, seed=3)
    interval = score([answer], 200, confidence=0.8, seed=3)["mean_total"]
    assert (interval.low, interval.high) == pytest.approx(tuple(np.quantile(samples, [0.1, 0.9])))


def test_every_interval_holds_its_figure():
    for name, interval in score([random_answer(N=400, C=3)], 200).items():
        if name != "ece":
            assert interval.low <= interval.value <= interval.high, name


def test_single_is_the_mean_over_members_on_the_same_resamples():
    members = answers("single", random_predictions(M=4), {})
    found = score(members, 60)
    alone = [score([member], 60) for member in members]
    for name in ("accuracy", "nll", "auroc", "aurc", "ece", "ece_debiased", "spearman_raters"):
        figures = [scores[name].value for scores in alone]
        assert found[name].value == pytest.approx(np.mean(figures))
        assert found[name].spread == pytest.approx(np.std(figures, ddof=1))
    together = np.mean([resampled([member], "nll", 60) for member in members], axis=0)
    assert resampled(members, "nll", 60) == pytest.approx(together)
    assert found["ece"].low == pytest.approx(np.mean([scores["ece"].low for scores in alone]))
    assert alone[0]["nll"].spread is None


def test_only_the_metrics_asked_for_come_back():
    answer = random_answer()
    assert list(score([answer], 10, metrics=["nll", "ece", "auroc"])) == ["nll", "ece", "auroc"]
    assert list(score([answer], 10)) == list(checked_metrics(None))


def test_undefined_figures_are_none():
    found = score([random_answer(raters=False, M=1)], 10)
    assert found["nll_raters"].as_json() == {"value": None, "low": None, "high": None}
    unlabelled = score([random_answer(unknown=1.0)], 10)
    assert unlabelled["accuracy"].value is unlabelled["ece"].value is unlabelled["ece"].low is None
    assert unlabelled["mean_total"].low is not None


def test_resamples_that_lack_a_class_are_left_out():
    labels = np.zeros(30, dtype=int)
    labels[:2] = 1
    random = np.random.default_rng(0)
    first = random.random(30)
    answer = answer_of(np.stack([first, 1 - first], -1)[None], labels)
    samples = resampled([answer], "auroc", 400)
    lacking = [labels[rows].sum() == 0 for rows in written_out(30, 400)]
    assert np.array_equal(np.isnan(samples), lacking)
    assert 20 < sum(lacking) < 100  # (28/30)^30 = 13 %
    interval = score([answer], 400)["auroc"]
    defined = samples[np.isfinite(samples)]
    assert interval == score_interval(Interval(interval.value), defined, Basis(2, 28), 0.95)


def test_too_few_defined_resamples_give_no_interval():
    low_high = Resampling(100).ends(np.where(np.arange(100) < 49, 1.0, np.nan))
    assert low_high == (None, None)
    assert Resampling(100).ends(np.where(np.arange(100) < 50, 1.0, np.nan)) == (1.0, 1.0)


def test_class_intervals_come_from_the_same_resamples():
    answer = random_answer(C=3, N=120)
    found = score_classes([answer], 50)
    recalls = [
        (answer.predicted[rows] == 1)[answer.labels[rows] == 1].mean() for rows in written_out(120, 50)
    ]
    interval = found["class-1"]["recall"]
    basis = Basis((answer.labels == 1).sum())
    expected = score_interval(Interval(interval.value), np.array(recalls), basis, 0.95)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))


@pytest.mark.slow
def test_paired_difference_is_on_identical_rows():
    predictions = random_predictions(M=5, N=300)
    single, ensemble = answers("single", predictions, {}), answers("ensemble", predictions, {})
    for metric in ("nll", "accuracy", "aurc", "auroc"):
        found = paired_difference(ensemble, single, metric, 100)
        samples = resampled(ensemble, metric, 100) - resampled(single, metric, 100)
        assert (found.low, found.high) == pytest.approx(tuple(np.quantile(samples, [0.025, 0.975])))
        parts = [score(side, 2)[metric].value for side in (ensemble, single)]
        assert found.value == pytest.approx(parts[0] - parts[1])


@pytest.mark.parametrize("metric", [name for name, metric in METRICS.items() if metric.family])
def test_a_system_differs_from_itself_by_nothing(metric):
    answer = random_answer()
    found = paired_difference([answer], [answer], metric, 50)
    assert (found.value, found.low, found.high) == pytest.approx((0.0, 0.0, 0.0), abs=1e-15)


def test_a_paired_interval_is_narrower_than_the_unpaired():
    predictions = random_predictions(M=5, N=300)
    single, ensemble = answers("single", predictions, {}), answers("ensemble", predictions, {})
    paired = paired_difference(ensemble, single, "nll", 300)
    alone = score(ensemble, 300)["nll"]
    assert paired.high - paired.low < (alone.high - alone.low) / 2


def test_differences_of_undefined_figures_are_none():
    answer = random_answer(raters=False)
    assert paired_difference([answer], [answer], "nll_raters").value is None


def test_differing_rows_are_refused():
    predictions = random_predictions(N=20)
    whole, part = (
        answers("ensemble", predictions, {}),
        answers("ensemble", predictions.take(np.arange(19)), {}),
    )
    swapped = answers("ensemble", predictions.take(np.arange(20)[::-1]), {})
    with pytest.raises(InputError, match="ids row-19 stand in one only"):
        paired_difference(whole, part, "nll")
    with pytest.raises(InputError, match="the order differs"):
        paired_difference(whole, swapped, "nll")
    relabelled = answers("ensemble", random_predictions(N=20, seed=1), {})
    with pytest.raises(InputError, match="labels differ"):
        paired_difference(whole, relabelled, "nll")
    with pytest.raises(InputError, match="one answer or more"):
        score([])


def test_shift_scores_the_shifted_rows_and_tells_them_from_the_others():
    inside, shifted = random_predictions(N=60, seed=1), random_predictions(N=50, seed=2)
    found = score_shift(answers("ensemble", inside, {}), answers("ensemble", shifted, {}), 40)
    (first,), (second,) = answers("ensemble", inside, {}), answers("ensemble", shifted, {})
    assert {name: found[name] for name in checked_metrics(None)} == score([second], 40)
    is_shifted = np.repeat([0, 1], [60, 50])
    for name, part in (("ood_auroc", "total"), ("ood_auroc_epistemic", "epistemic")):
        one, other = getattr(first.uncertainty, part), getattr(second.uncertainty, part)
        assert found[name].value == pytest.approx(roc_auc_score(is_shifted, np.concatenate([one, other])))
        loop = [
            roc_auc_score(is_shifted, np.concatenate([one[rows], other[others]]))
            for rows, others in written_out_pairs(60, 50, 40)
        ]
        expected = score_interval(Interval(found[name].value), np.array(loop), Basis(50, 60), 0.95)
        assert (found[name].low, found[name].high) == pytest.approx((expected.low, expected.high))


def test_epistemic_uncertainty_of_one_member_tells_nothing_apart():
    inside, shifted = random_predictions(N=60, M=1, seed=1), random_predictions(N=50, M=1, seed=2)
    found = score_shift(answers("single", inside, {}), answers("single", shifted, {}), 40)
    assert found["ood_auroc_epistemic"].value is None
    assert found["ood_auroc"].value is not None


def test_shift_without_labels_still_has_what_needs_none():
    inside, shifted = random_predictions(N=60), random_predictions(N=50, unknown=1.0, raters=False)
    found = score_shift(answers("single", inside, {}), answers("single", shifted, {}), 40)
    assert found["accuracy"].value is None
    assert found["mean_total"].spread > 0
    assert found["ood_auroc"].spread > 0


def test_shift_needs_the_same_members_on_both_sides():
    inside, shifted = random_predictions(N=20), random_predictions(N=20)
    with pytest.raises(InputError, match="got 3 and 1 answers"):
        score_shift(answers("single", inside, {}), answers("ensemble", shifted, {}))


def test_rank_correlation_is_scipys_with_an_interval():
    random = np.random.default_rng(0)
    first = random.normal(size=200)
    second = np.round(first + random.normal(size=200), 1)
    found = rank_correlation(first, second, 300)
    assert found.value == pytest.approx(spearmanr(first, second).statistic, abs=1e-12)
    assert found.low < found.value < found.high
    assert rank_correlation(first, np.ones(200), 300).value is None
    with pytest.raises(InputError, match="200 and 3 rows"):
        rank_correlation(first, np.ones(3))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [((1,), "2 resamples"), ((10, 0.0), "between 0 and 1"), ((10, 1.0), "between 0 and 1")],
)
def test_resampling_out_of_range_is_refused(arguments, said):
    with pytest.raises(InputError, match=said):
        score([random_answer(N=10)], *arguments)


def test_memory_does_not_grow_with_the_resamples():
    answer = random_answer(N=2000, C=3)

    def peak(resamples):
        tracemalloc.start()
        score([answer], resamples)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert peak(20 * CHUNK) < 1.3 * peak(2 * CHUNK)
