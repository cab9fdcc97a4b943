"""Texts that belong together: how much wider intervals would be, against a simulation and by hand."""

import numpy as np
import pytest

from credibly.records import Predictions
from credibly.report.dependence import dependence, what_groups_mean
from credibly.uncertainty.scoring.clusters import clusters_of, standard_error
from credibly.uncertainty.systems import answers


def answer_of(probs, labels):
    log_probs = np.log(np.asarray(probs, dtype=np.float32))[None]
    ids = tuple(map(str, range(len(labels))))
    return answers("ensemble", Predictions(log_probs, ids, ("a", "b"), np.asarray(labels)), {})[0]


def test_copies_of_each_row_widen_by_the_root_of_their_number():
    random = np.random.default_rng(0)
    p = random.uniform(0.05, 0.95, 200)
    labels = (random.random(200) < p).astype(int)
    answer = answer_of(np.repeat(np.stack([1 - p, p], axis=1), 4, axis=0), np.repeat(labels, 4))
    found = dependence(answer, np.repeat(np.arange(200), 4).astype(str).tolist())
    assert found["groups"] == 200
    # Of sums over G groups instead of N rows: sqrt(4), but for G / (G - 1).
    exact = 2 * np.sqrt((200 / 199) / (800 / 799))
    assert found["accuracy"] == pytest.approx(exact)
    assert found["nll"] == pytest.approx(exact)


def test_the_standard_error_by_group_is_that_of_repeated_draws():
    random = np.random.default_rng(1)
    clusters = np.repeat(np.arange(60), 5)

    def drawn():
        return random.normal(size=60)[clusters] + random.normal(size=300)

    means, errors = zip(
        *[((own := drawn()).mean(), standard_error(own, clusters)) for _ in range(2000)], strict=True
    )
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.05)
    assert standard_error(drawn(), clusters_of(None, 300)) < 0.8 * np.std(means)


def test_rows_without_a_label_are_left_out_and_groups_of_one_say_nothing():
    probs = [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.5, 0.5]]
    labels = [0, 0, 1, -1]
    assert dependence(answer_of(probs, labels), None) is None
    assert dependence(answer_of(probs, labels), ["a", "b", "c", "c"]) is None
    assert dependence(answer_of(probs, labels), ["a", "a", "a", "b"]) is None
    assert dependence(answer_of(probs, labels), ["a", "b", "b", "c"])["groups"] == 2
    right = dependence(answer_of(probs, [0, 1, 0, 0]), ["a", "b", "b", "c"])
    assert right["accuracy"] is None
    assert right["nll"] > 0


def test_the_report_says_how_far_its_intervals_can_be_trusted():
    def said(**ratios):
        report = {"shipped": "ensemble", "dependence": {"groups": 1200, **ratios}}
        return [(finding.mark, finding.sentence) for finding in what_groups_mean(report)]

    ((mark, sentence),) = said(accuracy=1.52, nll=None)
    assert mark == "bad"
    assert sentence == (
        "Texts of a group belong together, so that the intervals here are too narrow. They take the texts "
        "for independent. Over the 1,200 groups the standard errors of ensemble are 1.5 times for accuracy "
        "what they would be of independent texts."
    )
    ((mark, sentence),) = said(accuracy=1.02, nll=1.05)
    assert mark == "noted"
    assert "hardly" in sentence
    assert said(accuracy=None, nll=None) == []
    assert list(what_groups_mean({"dependence": None})) == []
    assert list(what_groups_mean({})) == []
