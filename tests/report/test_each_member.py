"""The members one by one: hand-worked shares, their mean is `single`, and the page has the table."""

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import precision_recall_fscore_support

from credibly.records import Predictions
from credibly.report.figures.each_member import each_member
from credibly.report.page.html import render_html
from credibly.report.tables.each_member import members_table
from credibly.uncertainty.systems import answers

pytestmark = pytest.mark.slow

CLASSES = ("bad", "even", "good")


def record(M=3, N=60, seed=0, known=1.0):
    random = np.random.default_rng(seed)
    logits = random.normal(size=(M, N, 3))
    labels = np.where(random.random(N) < known, random.integers(0, 3, N), -1)
    log_probs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    return Predictions(log_probs.astype(np.float32), tuple(map(str, range(N))), CLASSES, labels)


def members_of(predictions, confidence=0.95):
    names = [f"m{place}" for place in range(predictions.shape[0])]
    return each_member(answers("single", predictions, {}), names, confidence)


def test_figures_are_those_of_a_second_implementation():
    predictions = record(known=0.8)
    known = predictions.labels >= 0
    labels = predictions.labels[known]
    for place, member in enumerate(members_of(predictions, 0.9)):
        assert member["name"] == f"m{place}"
        log_probs = predictions.log_probs[place][known].astype(np.float64)
        predicted = log_probs.argmax(axis=1)
        hits = int((predicted == labels).sum())
        share = binomtest(hits, len(labels)).proportion_ci(0.9, method="wilson")
        assert list(member["accuracy"].values()) == pytest.approx([hits / len(labels), share.low, share.high])
        losses = -log_probs[np.arange(len(labels)), labels]
        half = 1.6448536 * losses.std(ddof=1) / np.sqrt(len(labels))
        assert list(member["nll"].values()) == pytest.approx(
            [losses.mean(), losses.mean() - half, losses.mean() + half], abs=1e-6
        )
        precision, recall, *_ = precision_recall_fscore_support(labels, predicted, labels=[0, 1, 2])
        for kind, expected in (("precision", precision), ("recall", recall)):
            found = [member["classes"][name][kind]["value"] for name in CLASSES]
            assert found == pytest.approx(list(expected))


def test_a_class_that_is_never_predicted_has_no_precision_and_one_without_rows_no_recall():
    log_probs = np.log(np.array([[[0.8, 0.1, 0.1], [0.6, 0.2, 0.2]]], dtype=np.float32))
    (member,) = members_of(Predictions(log_probs, ("a", "b"), CLASSES, np.array([0, 1])))
    nothing = {"value": None, "low": None, "high": None}
    assert member["classes"]["good"] == {"precision": nothing, "recall": nothing}
    assert member["classes"]["even"]["precision"] == nothing
    assert member["classes"]["even"]["recall"]["value"] == 0
    assert member["classes"]["bad"]["precision"]["value"] == 0.5


def test_without_labels_there_is_no_table():
    (first, _) = members = members_of(record(M=2, known=0.0))
    assert first["accuracy"]["value"] is None
    assert first["nll"]["value"] is None
    assert members_table({"each_member": members, "classes": CLASSES}) is None
    assert members_table({"classes": CLASSES}) is None
    assert members_table({"each_member": members_of(record(M=1)), "classes": CLASSES}) is None


def test_the_table_has_precision_and_recall_of_few_classes():
    table = members_table({"each_member": members_of(record()), "classes": CLASSES})
    assert [column.label for column in table.columns][:4] == [
        "Accuracy",
        "NLL",
        "Precision, bad",
        "Recall, bad",
    ]
    assert [row.name for row in table.rows] == ["m0", "m1", "m2"]
    many = members_table({"each_member": members_of(record()), "classes": [*"abcdefg"]})
    assert [column.label for column in many.columns] == ["Accuracy", "NLL"]


def test_the_mean_over_members_is_that_of_single_and_the_page_shows_them(fitted):
    members, single = fitted.report["each_member"], fitted.report["systems"]["single"]
    assert [member["name"] for member in members] == ["0", "1", "2"]
    for metric in ("accuracy", "nll"):
        mean = np.mean([member[metric]["value"] for member in members])
        assert single[metric]["value"] == pytest.approx(mean)
    assert "Every member alone" in render_html(fitted.report)


def test_a_member_that_is_never_wrong_does_not_claim_to_know_its_loss_exactly():
    log_probs = np.log(np.tile(np.float32([0.998, 0.001, 0.001]), (1, 300, 1)))
    (member,) = members_of(Predictions(log_probs, tuple(map(str, range(300))), CLASSES, np.zeros(300, int)))
    # The loss is 0.002, or 6.9 with a chance of 0.002: sqrt(0.998 * 0.002 / 300) * (6.9 - 0.002).
    assert member["nll"]["low"] == 0
    assert member["nll"]["high"] == pytest.approx(0.002 + 1.96 * 0.01779, abs=1e-4)
