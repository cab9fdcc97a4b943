"""Texts that belong together: how much wider intervals would be, against a simulation and by hand."""

from dataclasses import replace

import numpy as np
import pytest

from credibly.records import Predictions
from credibly.report.figures.dependence import dependence
from credibly.report.figures.promises import promises
from credibly.report.tables.promises import by_groups
from credibly.report.words.dependence import what_groups_mean
from credibly.uncertainty.scoring.clusters import clusters_of, standard_error
from credibly.uncertainty.systems import answers
from uncertainty.cases import copied
from uncertainty.simulated import drawn_answer


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
    def said(groups=1200, **ratios):
        report = {"shipped": "ensemble", "dependence": {"groups": groups, **ratios}}
        return [(finding.mark, finding.sentence) for finding in what_groups_mean(report)]

    ((mark, sentence),) = said(accuracy=1.52, nll=None)
    assert mark == "noted"
    assert sentence == (
        "Texts of a group belong together, and the intervals of tables allow for it. They are drawn as one, "
        "in tests of calibration too; the bands of plots take texts for independent. Over the 1,200 groups "
        "the standard errors of ensemble are 1.5 times for accuracy what they would be of independent texts."
    )
    ((mark, sentence),) = said(groups=20, accuracy=2.5, nll=None)
    assert mark == "bad"
    assert sentence.startswith(
        "Texts of a group belong together, so that the intervals here are too narrow. The intervals take the "
        "texts for independent. Over the 20 groups the standard errors of ensemble are 2.5 times"
    )
    # What the intervals allow for, and hardly widens them, is not worth a word.
    assert said(accuracy=1.02, nll=1.05) == []
    assert said(accuracy=None, nll=None) == []
    assert list(what_groups_mean({"dependence": None})) == []
    assert list(what_groups_mean({})) == []


def test_where_no_column_names_groups_it_is_said_what_they_are():
    report = {"shipped": "ensemble", "dependence": {"groups": 1200, "accuracy": 1.2, "nll": None}}
    for column, subject in (("author", "Texts of a group"), (None, "Equal texts, and texts that stand")):
        (finding,) = what_groups_mean({**report, "recipe": {"data": {"group": column}}})
        assert finding.claim.startswith(subject)


def test_a_reports_promises_count_one_row_of_each_group():
    random = np.random.default_rng(3)
    sides = [drawn_answer(400, random, 0.5) for _ in range(2)]

    def promised(*answers):
        on = [{"ensemble": (own,), "ensemble+temperature": (own,)} for own in answers]
        return promises("ensemble+temperature", *on, {}, 0.95)

    alone = promised(*sides)
    copies = [copied(own, 3) for own in sides]
    together, naive = promised(*copies), promised(*(replace(own, groups=None) for own in copies))
    assert together["sets"] == alone["sets"]
    assert together["sets"] != naive["sets"]
    assert [own["by_groups"] for own in (alone, together, naive)] == [False, True, False]
    # No threshold is found for so low a risk, and how sure that is goes by the number of test rows.
    none_answered = [own["abstention"][0]["coverage"] for own in (alone, together, naive)]
    assert none_answered[0] == none_answered[1] != none_answered[2]
    told = by_groups({"promises": together}), by_groups({"promises": alone})
    assert told == ("; of texts that belong together one counts, here and in what is promised", "")


def finding_of(answer, groups):
    report = {"shipped": "ensemble", "dependence": dependence(answer, groups)}
    (finding,) = what_groups_mean(report)
    return finding


def drawn(random, sizes, alike=0.0):
    """Return answers whose losses are alike within groups by so much, and the groups."""
    clusters = np.repeat(np.arange(len(sizes)), sizes)
    # How easy a text is, in part as its group is.
    ease = np.sqrt(alike) * random.normal(size=len(sizes))[clusters]
    ease += np.sqrt(1 - alike) * random.normal(size=len(clusters))
    p = np.clip(0.7 + 0.2 * ease, 0.02, 0.98)
    right = random.random(len(clusters)) < p
    labels = random.integers(0, 2, len(clusters))
    sure = np.where(right, np.maximum(p, 1 - p), np.minimum(p, 1 - p))
    probs = np.stack([np.where(labels == 0, sure, 1 - sure), np.where(labels == 1, sure, 1 - sure)], axis=1)
    return answer_of(probs, labels), clusters.astype(str).tolist()


EVEN, FEW = [25] * 20, [50] * 10
UNEVEN = [1] * 50 + [5] * 10 + [40] * 10


@pytest.mark.parametrize("sizes", [FEW, EVEN, UNEVEN], ids=["few", "even", "uneven"])
def test_independent_texts_are_seldom_said_to_belong_together(sizes):
    random = np.random.default_rng(2)
    marks = [finding_of(*drawn(random, sizes)).mark for _ in range(300)]
    assert marks.count("bad") / len(marks) < 0.05


@pytest.mark.parametrize("sizes", [EVEN, UNEVEN], ids=["even", "uneven"])
def test_texts_that_belong_together_are_found(sizes):
    random = np.random.default_rng(3)
    marks = [finding_of(*drawn(random, sizes, alike=0.9)).mark for _ in range(50)]
    assert marks.count("bad") / len(marks) > 0.9


def test_few_groups_cannot_tell():
    random = np.random.default_rng(4)
    few = next(found for _ in range(9) if (found := finding_of(*drawn(random, FEW))).mark == "noted")
    assert few.claim == (
        "Texts of a group belong together, and the groups are too few to tell how much wider that makes the "
        "intervals."
    )


def test_groups_of_uneven_size_count_as_fewer_of_one_size():
    answer, groups = drawn(np.random.default_rng(5), [8, 1, 1, 2])
    assert dependence(answer, groups)["effective_groups"] == pytest.approx(144 / 70)
    assert (
        "Over the 4 groups, which tell as much as 2 of one size, the" in finding_of(answer, groups).sentence
    )
    answer, groups = drawn(np.random.default_rng(5), FEW)
    assert dependence(answer, groups)["effective_groups"] == 10
    assert "Over the 10 groups the" in finding_of(answer, groups).sentence
