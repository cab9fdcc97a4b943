"""A comparison's content and its words: chosen by calibration losses, and every sentence borne out."""

import json
from dataclasses import replace

import numpy as np
import pytest

from credibly.errors import InputError
from credibly.records import Examples
from credibly.report.candidates.advice import advice
from credibly.report.candidates.build import Candidate, build_comparison
from credibly.report.candidates.page import front, render_comparison
from credibly.uncertainty.systems import answers
from uncertainty.cases import random_predictions

N = 120


def candidate(name, kind, loss, speed, seed=0, sharp=1.0):
    """Answers of two classes; the calibration losses are given, which is what the choice goes by."""
    record = random_predictions(N=N, M=1, C=2, seed=1, raters=False)
    logits = sharp * record.log_probs + np.random.default_rng(seed).normal(0, 0.05, record.log_probs.shape)
    log_probs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    answer = answers("ensemble", replace(record, log_probs=log_probs.astype(np.float32)), {})[0]
    losses = np.random.default_rng(5).exponential(0.3, 80) + loss
    losses += np.random.default_rng(seed).normal(0, 0.01, 80)
    costs = {"rows_per_second": speed, "seconds": 3.0, "parameters": 10.0, "bytes": 40.0}
    by_label = np.stack([losses, -np.log1p(-np.exp(-np.maximum(losses, 1e-3)))], axis=1)
    return Candidate(name, kind, losses, by_label, {"test": answer}, costs)


def compared(*candidates):
    record = random_predictions(N=N, M=1, C=2, seed=1, raters=False)
    test = Examples(record.ids, record.ids, record.class_names, record.labels)
    rows = {"train": 200, "calibration": 80, "test": N}
    recipes = {"a": {"seed": 0}, "b": {"seed": 0}}
    return build_comparison("mine", candidates, test, rows, recipes, 100, 0.95, 0)


CASES = {
    "one model is enough": (
        [
            candidate("a: one member", "single", 0.0, 900.0, 1),
            candidate("a: ensemble", "ensemble", 0.0, 90.0, 2),
        ],
        "a: one member",
        ["One model with a temperature is enough here"],
    ),
    "the ensemble pays": (
        [
            candidate("a: one member", "single", 0.1, 900.0, 1),
            candidate("a: ensemble", "ensemble", 0.0, 90.0, 2),
        ],
        "a: ensemble",
        [
            "the least of 2, and every other one's is truly higher",
            "The ensemble pays",
            "truly above the least (+0.0",
        ],
    ),
    "a student as good, and faster": (
        [
            candidate("a: direct", "direct", 0.1, 900.0, 1),
            candidate("a: ensemble", "ensemble", -0.0015, 90.0, 2),
            candidate("a: student", "student", 0.0, 900.0, 3),
        ],
        "a: student",
        ["lies within doubt", "10.0 times as many texts a second", "The student pays"],
    ),
    "about as fast as the fastest": (
        [
            candidate("a: direct", "direct", 0.003, 950.0, 1),
            candidate("a: student", "student", 0.0, 900.0, 2),
        ],
        "a: student",
        ["the least, and nothing that may be as good is more than a tenth faster"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_words_follow_the_figures(case):
    candidates, chosen, said = CASES[case]
    content = compared(*candidates)
    words = " ".join(content["advice"])
    assert content["shipped"] == chosen
    assert content["advice"][0] == f"Use {chosen}."
    assert all(part in words for part in said), words
    assert "120 test texts, which had no part in the choice" in words
    json.dumps(content, allow_nan=False)


def test_probabilities_that_do_not_hold_are_told():
    content = compared(candidate("a", "single", 0.0, 9.0, sharp=6.0), candidate("b", "ensemble", 0.5, 9.0, 2))
    assert content["calibration_tests"]["a"]["consistency_p"] < 0.01
    assert "Its probabilities do not hold there" in " ".join(content["advice"])


def test_the_test_texts_may_contradict_and_are_quoted():
    worse, better = candidate("a", "single", 0.0, 9.0, sharp=6.0), candidate("b", "ensemble", 0.5, 9.0, 2)
    content = compared(worse, better)
    assert content["shipped"] == "a"
    assert "There b has the least NLL; the difference, " in " ".join(content["advice"])


@pytest.mark.parametrize(
    ("low", "adjusted_p", "verdict"),
    [(0.001, 0.01, "beyond"), (0.001, 0.2, "within"), (-0.001, 0.01, "within"), (None, None, "within")],
)
def test_the_test_texts_are_beyond_doubt_only_after_correction_for_all_comparisons(low, adjusted_p, verdict):
    worse, better = candidate("a", "single", 0.0, 9.0, sharp=6.0), candidate("b", "ensemble", 0.5, 9.0, 2)
    content = compared(worse, better)
    found = {"value": 0.02, "low": low, "high": None if low is None else 0.04}
    content["comparisons"]["a - b"]["nll"] = found | ({} if low is None else {"adjusted_p": adjusted_p})
    assert f"lies {verdict} doubt." in " ".join(advice(content))


def test_an_interval_without_zero_that_correction_leaves_in_doubt_has_its_p_value_beside_it():
    candidates, chosen, _ = CASES["a student as good, and faster"]
    content = compared(*candidates)
    assert "corrected for their number" not in " ".join(content["advice"])
    content["choice"][chosen]["behind"] = {"value": 0.025, "low": 0.004, "high": 0.047, "adjusted_p": 0.086}
    assert "lies within doubt (p 0.086, corrected for their number), while" in " ".join(advice(content))


def test_the_front_holds_what_nothing_beats_in_both():
    content = compared(
        candidate("slow and good", "ensemble", 0.0, 10.0, 1),
        candidate("quick and worse", "single", 0.0, 99.0, 2, sharp=3.0),
        candidate("slow and worse", "direct", 0.0, 5.0, 3, sharp=3.5),
    )
    assert front(content) == ["slow and good", "quick and worse"]


def test_the_page_shows_every_candidate_and_escapes_names():
    content = compared(
        candidate("<script>alert(1)</script>", "single", 0.0, 9.0, 1), candidate("b", "student", 0.1, 9.0, 2)
    )
    page = render_comparison(content)
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "<svg" in page
    assert page == render_comparison(json.loads(json.dumps(content)))


def test_two_candidates_of_one_name_are_refused():
    with pytest.raises(InputError, match="different names"):
        compared(candidate("a", "single", 0.0, 9.0), candidate("a", "single", 0.1, 9.0))


def test_a_candidate_that_is_surer_and_never_wrong_is_not_shown_to_be_better():
    def never_wrong(name, p, speed):
        made, by_label = candidate(name, "single", 0.0, speed), -np.log(np.tile([1 - p, p], (80, 1)))
        return replace(made, losses=by_label[:, 1], by_label=by_label)

    found = compared(never_wrong("a: sure", 0.998, 900.0), never_wrong("a: surer", 0.9999, 90.0))
    assert found["shipped"] == "a: sure"
