import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from credibly.errors import InputError
from credibly.uncertainty.scoring.intervals import score_classes
from credibly.uncertainty.scoring.scores import METRICS, values
from credibly.uncertainty.systems import answers
from uncertainty import naive
from uncertainty.cases import answer_of, predictions_of, random_answer, random_predictions

OF_ONE_SET = [name for name, metric in METRICS.items() if metric.family]


@pytest.mark.parametrize("options", [
    {"C": 2}, {"C": 3}, {"C": 6, "N": 500}, {"C": 2, "unknown": 0.3}, {"C": 4, "coarse": True},
    {"C": 2, "coarse": True, "M": 1}, {"C": 3, "raters": False},
])  # fmt: skip
def test_every_metric_equals_its_second_implementation(options):
    answer = random_answer(**options)
    second = naive.scores(answer, np.arange(len(answer.ids)))
    # torchmetrics works in single precision, and puts a confidence on an edge into the upper bin.
    if options.get("coarse"):
        second.pop("ece")
    found = values(answer)
    for name, expected in second.items():
        assert found[name] == pytest.approx(expected, abs=naive.TOLERANCES.get(name, 1e-9)), name
    undefined = {name for name in OF_ONE_SET if found[name] is None}
    of_raters = {"nll_raters", "kl_raters", "spearman_raters"}
    assert undefined == (of_raters if options.get("raters") is False else set())


def test_a_table_worked_by_hand():
    probs = np.array([[0.9, 0.1], [0.7, 0.3], [0.4, 0.6], [0.2, 0.8]])
    answer = answer_of(probs[None], [0, 1, 1, 0], [[1, 0], [0.5, 0.5], [0.5, 0.5], [0, 1]])
    found = values(answer)
    assert found["accuracy"] == 0.5
    assert found["precision_macro"] == found["recall_macro"] == found["f1_macro"] == 0.5
    assert found["nll"] == pytest.approx(-np.log([0.9, 0.3, 0.6, 0.2]).mean(), abs=1e-6)
    assert found["brier"] == pytest.approx(2 * np.mean([0.01, 0.49, 0.16, 0.64]), abs=1e-6)
    # Confidences 0.9, 0.7, 0.6, 0.8 in bins of their own; right, wrong, right, wrong.
    assert found["ece"] == pytest.approx((0.1 + 0.7 + 0.4 + 0.8) / 4, abs=1e-6)
    # By confidence: right, wrong, wrong, right. Error rates 0, 1/2, 2/3, 2/4.
    assert found["aurc"] == pytest.approx((0 + 1 / 2 + 2 / 3 + 1 / 2) / 4)
    # 0, 1, 2 and 2 mistakes among the first of four.
    assert found["augrc"] == pytest.approx((0 + 1 + 2 + 2) / 4 / 4)
    # Rows of class 1 score 0.3 and 0.6, the others 0.1 and 0.8: two of four pairs in order.
    assert found["auroc"] == 0.5
    # From the top: 0.8 no, 0.6 yes (precision 1/2), 0.3 yes (2/3).
    assert found["average_precision"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    # Mistakes at confidence 0.7 and 0.8, the others at 0.9 and 0.6: two of four pairs in order.
    assert found["error_auroc"] == 0.5
    assert found["mean_epistemic"] == found["mean_variance"] == 0
    assert found["nll_raters"] == pytest.approx(
        -np.mean([np.log(0.9), np.log(0.7 * 0.3) / 2, np.log(0.4 * 0.6) / 2, np.log(0.8)]), abs=1e-6
    )
    # Entropies rank 1, 3, 4, 2 against raters' average ranks 1.5, 3.5, 3.5, 1.5.
    assert found["spearman_raters"] == pytest.approx(2 / np.sqrt(5), abs=1e-9)


def test_aurc_of_ties_is_the_mean_over_all_orders():
    probs = np.array([0.9, 0.8, 0.8, 0.8, 0.7, 0.7])
    wrong = np.array([0, 1, 0, 0, 1, 0])
    orders = [
        [0, *middle, *last]
        for middle in itertools.permutations([1, 2, 3])
        for last in itertools.permutations([4, 5])
    ]
    expected = np.mean([(np.cumsum(wrong[order]) / np.arange(1, 7)).mean() for order in orders])
    assert METRICS["aurc"](answer_of(np.stack([probs, 1 - probs], -1)[None], wrong)) == pytest.approx(
        expected
    )


def test_aurc_of_one_confidence_for_all_is_the_error_rate():
    labels = np.array([0, 0, 1, 0, 1])
    assert METRICS["aurc"](answer_of(np.tile([0.6, 0.4], (1, 5, 1)), labels)) == pytest.approx(0.4)


def test_auroc_of_one_score_for_all_is_a_half():
    answer = answer_of(np.tile([0.6, 0.4], (1, 5, 1)), [0, 1, 1, 0, 0])
    found = values(answer)
    assert found["auroc"] == 0.5
    assert found["average_precision"] == pytest.approx(0.4)
    assert found["error_auroc"] == 0.5


def test_one_class_only_leaves_the_rankings_undefined():
    answer = answer_of([[[0.9, 0.1], [0.2, 0.8]]], [0, 0])
    found = values(answer)
    assert found["auroc"] is found["average_precision"] is found["spearman_raters"] is None
    assert found["accuracy"] == 0.5


def test_no_mistakes_leaves_finding_them_undefined():
    found = values(answer_of([[[0.9, 0.1], [0.2, 0.8]]], [0, 1]))
    assert found["error_auroc"] is None
    assert found["aurc"] == found["augrc"] == 0


def test_rows_without_labels_have_only_uncertainties():
    answer = answers("ensemble", random_predictions(unknown=1.0), {})[0]
    defined = {name for name, value in values(answer).items() if value is not None}
    assert defined == {
        "mean_total", "mean_aleatoric", "mean_epistemic", "mean_variance", "nll_raters", "kl_raters",
        "spearman_raters",
    }  # fmt: skip


def test_rows_of_unknown_label_are_left_out_of_label_metrics():
    predictions = random_predictions(N=300, unknown=0.4, raters=False)
    known = predictions.take(predictions.labels >= 0)
    all_rows, some_rows = (values(answers("ensemble", part, {})[0]) for part in (predictions, known))
    for name in (
        "accuracy",
        "nll",
        "brier",
        "ece",
        "ece_debiased",
        "aurc",
        "augrc",
        "auroc",
        "average_precision",
        "error_auroc",
    ):
        assert all_rows[name] == pytest.approx(some_rows[name], abs=1e-12)


def test_a_class_that_no_row_has_is_left_out_of_the_macro_ranking():
    answer = random_answer(C=4)
    kept = np.flatnonzero(answer.labels != 2)
    predictions = random_predictions(C=4).take(kept)
    expected = np.mean([sk.roc_auc_score(predictions.labels == c, answer.probs[kept, c]) for c in (0, 1, 3)])
    assert METRICS["auroc"](answers("ensemble", predictions, {})[0]) == pytest.approx(expected)


def test_macro_averages_run_over_classes_in_labels_or_predictions():
    # Class 2 occurs nowhere, class 1 only among predictions: scikit-learn averages over 0 and 1.
    answer = answer_of([[[0.8, 0.1, 0.1], [0.3, 0.5, 0.2], [0.6, 0.3, 0.1]]], [0, 0, 0])
    found = values(answer)
    assert (found["precision_macro"], found["recall_macro"]) == (0.5, pytest.approx(1 / 3))
    assert found["f1_macro"] == pytest.approx(0.8 / 2)


def test_precision_and_recall_by_class_are_scikit_learns():
    answer = random_answer(C=4)
    precision, recall, _, _ = sk.precision_recall_fscore_support(answer.labels, answer.predicted)
    found = score_classes([answer], resamples=10)
    assert [found[name]["precision"].value for name in answer.class_names] == pytest.approx(precision)
    assert [found[name]["recall"].value for name in answer.class_names] == pytest.approx(recall)


def test_a_class_never_predicted_has_no_precision_and_one_without_rows_no_recall():
    found = score_classes([answer_of([[[0.8, 0.1, 0.1], [0.3, 0.5, 0.2], [0.6, 0.3, 0.1]]], [0, 0, 2])], 50)
    assert found["class-2"]["precision"].value is None
    assert found["class-2"]["precision"].low is None
    assert found["class-2"]["recall"].value == 0
    assert found["class-1"]["recall"].value is None
    assert found["class-1"]["precision"].value == 0


def test_zero_probability_of_the_label_costs_a_finite_nll():
    answer = answer_of([[[1.0, 0.0]]], [1])
    assert METRICS["nll"](answer) == pytest.approx(-np.log(1e-12), rel=1e-6)


def test_raters_who_all_say_the_same_leave_the_rank_correlation_undefined():
    assert METRICS["spearman_raters"](answer_of(np.full((1, 3, 2), 0.5), [0, 1, 0], [[0.3, 0.7]] * 3)) is None


def test_mirrored_shares_of_raters_are_equally_ambiguous():
    probs = np.array([[[0.9, 0.1], [0.6, 0.4], [0.51, 0.49]]])
    shares = [[0.1, 0.9], [0.9, 0.1], [0.5, 0.5]]
    assert METRICS["spearman_raters"](answer_of(probs, [0, 0, 0], shares)) == pytest.approx(np.sqrt(3) / 2)


@pytest.mark.slow
@given(st.integers(0, 10**6))
def test_figures_do_not_depend_on_the_order_of_rows(seed):
    predictions = random_predictions(N=60, C=3, seed=seed, unknown=0.1, coarse=True)
    order = np.random.default_rng(seed).permutation(60)
    before = values(answers("ensemble", predictions, {})[0])
    after = values(answers("ensemble", predictions.take(order), {})[0])
    assert {n: v for n, v in after.items() if v is not None} == pytest.approx(
        {n: v for n, v in before.items() if v is not None}, abs=1e-10
    )


@pytest.mark.slow
@given(st.integers(0, 10**6))
def test_figures_do_not_depend_on_the_order_of_classes(seed):
    predictions = random_predictions(N=60, C=3, seed=seed, raters=False)
    order = np.random.default_rng(seed).permutation(3)
    probs = np.exp(predictions.log_probs.astype(np.float64))[..., order]
    moved = predictions_of(probs, np.argsort(order)[predictions.labels])
    before, after = (values(answers("ensemble", part, {})[0]) for part in (predictions, moved))
    assert {n: v for n, v in after.items() if v is not None} == pytest.approx(
        {n: v for n, v in before.items() if v is not None}, abs=1e-5
    )


def test_the_table_names_every_metric_with_its_direction():
    better_when_higher = {name for name, metric in METRICS.items() if metric.higher_is_better}
    better_when_lower = {name for name, metric in METRICS.items() if metric.higher_is_better is False}
    assert better_when_lower == {
        "nll", "brier", "ece", "ece_debiased", "ece_equal_mass", "ece_classwise", "smooth_ece",
        "brier_reliability", "aurc", "eaurc", "augrc", "risk_at_80", "risk_at_90", "nll_raters", "kl_raters",
    }  # fmt: skip
    assert better_when_higher == {
        "accuracy", "f1_macro", "precision_macro", "recall_macro", "auroc", "average_precision",
        "error_auroc", "spearman_raters", "ood_auroc", "ood_auroc_epistemic", "brier_resolution",
        "coverage_at_1", "coverage_at_5",
    }  # fmt: skip
    assert all(metric.description and metric.reference.count("https://") == 1 for metric in METRICS.values())


def test_unknown_metrics_are_answered_with_the_nearest():
    with pytest.raises(InputError, match=r"unknown metric 'acuracy' \(did you mean 'accuracy'\?\)"):
        values(random_answer(), ["acuracy"])
    with pytest.raises(InputError, match="two sets of rows: score_shift"):
        METRICS["ood_auroc"](random_answer())
