"""A finding claims what an interval bears out, and no more."""

from __future__ import annotations

import copy
import re
from typing import Any

import numpy as np
import pytest

from credibly.records import Predictions
from credibly.report.page.content import parts
from credibly.report.words.claims import change
from credibly.report.words.findings import findings, headline
from credibly.report.words.verdicts import verdict
from credibly.uncertainty.calibration.calibrate import Temperature
from credibly.uncertainty.calibration.calibrators import fit_calibrator
from credibly.uncertainty.calibration.sampling_error import temperature_error
from report.samples import built, examples, members_only

EQUALS_DIRECT = "The student equals the same network trained directly within the interval."
PAIR = "student+temperature - direct+temperature"


def figure(value: float, low: float, high: float) -> dict[str, float]:
    return {"value": value, "low": low, "high": high}


def claims(report: dict[str, Any]) -> list[str]:
    return [finding.claim for finding in findings(report)]


def changed(report: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of a report with one part, named by its keys with slashes, replaced."""
    result = copy.deepcopy(report)
    *parents, last = path.split("/")
    part = result
    for name in parents:
        part = part[name]
    part[last] = value
    return result


@pytest.mark.parametrize(
    ("metric", "low", "high", "expected"),
    [
        ("nll", -0.02, -0.01, "better"),
        ("nll", 0.01, 0.02, "worse"),
        ("nll", -0.01, 0.01, "equal"),
        ("accuracy", 0.01, 0.02, "better"),
        ("accuracy", -0.02, -0.01, "worse"),
        ("accuracy", 0.0, 0.02, "equal"),
        ("ece_debiased", -0.02, 0.0, "equal"),
    ],
)
def test_a_verdict_is_the_intervals(metric: str, low: float, high: float, expected: str) -> None:
    assert verdict(metric, figure((low + high) / 2, low, high)) == expected


def test_no_verdict_without_an_interval() -> None:
    assert verdict("nll", {"value": 0.1, "low": None, "high": None}) is None


def test_an_end_that_is_not_zero_never_looks_like_zero() -> None:
    assert change("accuracy", figure(0.008, 0.0004, 0.012)) == "accuracy is higher by 0.8 points [0.04, 1.2]"


@pytest.mark.parametrize(
    ("interval", "claim"),
    [
        (figure(-0.03, -0.04, -0.02), "The student is better than the same network trained directly."),
        (
            figure(-0.01, -0.04, 0.02),
            EQUALS_DIRECT,
        ),
        (figure(0.03, 0.02, 0.04), "The student is worse than the same network trained directly."),
    ],
)
def test_the_student_is_judged_against_direct_training(
    binary: dict[str, Any], interval: dict[str, float], claim: str
) -> None:
    assert claim in claims(changed(binary, f"comparisons/{PAIR}/nll", interval))


@pytest.mark.slow
def test_a_student_worse_than_direct_in_truth_is_said_to_be_worse(run: dict[str, Any]) -> None:
    stored = dict(run["stored"])
    test = run["test"]
    wrong = np.log(np.full((len(test), 2), 0.5) - 0.3 * (np.eye(2)[test.labels] - 0.5))
    stored["student"] = {"test": Predictions.from_log_concentrations(wrong, test)}
    report = built({**run, "stored": stored, "shift_splits": []})
    assert "The student is worse than the same network trained directly." in claims(report)
    assert any(finding.mark == "bad" for finding in findings(report))


@pytest.mark.parametrize(
    ("interval", "claim"),
    [
        (figure(-0.03, -0.04, -0.02), "The ensemble beats a single member."),
        (figure(-0.01, -0.04, 0.02), "The ensemble equals a single member within the interval."),
        (figure(0.03, 0.02, 0.04), "The ensemble is worse than a single member."),
    ],
)
def test_the_ensemble_is_judged_against_a_single_member(
    binary: dict[str, Any], interval: dict[str, float], claim: str
) -> None:
    assert claim in claims(changed(binary, "comparisons/ensemble - single/nll", interval))


def test_members_that_are_alike_are_said_to_hardly_disagree() -> None:
    test = examples(120)
    logits = np.random.default_rng(0).normal(0, 1, (120, 2))
    nearly = logits + np.random.default_rng(1).normal(0, 0.05, (4, 120, 2))
    run = members_only(test)
    run["stored"] = {"members": {"test": Predictions.from_logits(nearly, test)}}
    report = built(run)
    found = next(finding for finding in findings(report) if "disagree" in finding.claim)
    assert found.claim == "The members hardly disagree."
    scores = report["systems"]["ensemble"]
    share = 100 * scores["mean_epistemic"]["value"] / scores["mean_total"]["value"]
    assert f"{share:.1f} % of the mean total" in found.evidence
    assert f"{scores['mean_epistemic']['value']:.4f}" in found.evidence


def test_members_that_differ_are_said_to_disagree(binary: dict[str, Any]) -> None:
    assert "The members disagree with one another." in claims(binary)


def test_slices_that_fail_are_told_with_their_gaps(binary: dict[str, Any]) -> None:
    def own(name: str, gap: float, p: float) -> dict[str, Any]:
        figure = {"value": gap, "low": gap - 0.02, "high": gap + 0.02}
        shared = {"kind": "group", "rows": 1200, "confidence": 0.8, "accuracy": 0.8 - gap}
        return {**shared, "name": name, "gap": figure, "p": p, "adjusted_p": p}

    failing = {**binary, "slices": [own("a", 0.1, 0.0001), own("b", -0.05, 0.02), own("c", 0.01, 0.6)]}
    (found,) = [one for one in findings(failing) if "everywhere" in one.claim]
    assert found.mark == "bad"
    assert found.evidence == (
        "Group a, 1,200 texts: too sure by 10.0 points [8.0, 12.0] (p < 0.001); group b, 1,200 texts: not "
        "sure enough by 5.0 points [3.0, 7.0] (p = 0.020). The p-values are corrected for 3 slices."
    )
    quiet = {**binary, "slices": [own("c", 0.01, 0.6)]}
    assert not [one for one in findings(quiet) if "everywhere" in one.claim]


def test_one_member_has_nobody_to_disagree_with(lone: dict[str, Any]) -> None:
    assert "There is one member only." in claims(lone)
    assert not any("beats" in claim or "hardly" in claim for claim in claims(lone))


@pytest.mark.parametrize(
    ("p", "claim"),
    [
        (0.4, "student+temperature is calibrated as far as 260 rows can tell."),
        (0.03, "student+temperature passes as calibrated, though narrowly."),
        (0.002, "student+temperature is not calibrated."),
    ],
)
def test_calibration_is_judged_by_the_tests(binary: dict[str, Any], p: float, claim: str) -> None:
    tests = {"ece_perfect_mean": 0.02, "ece_perfect_p95": 0.03, "consistency_p": p, "spiegelhalter_p": 0.5}
    report = changed(binary, "calibration_tests/student+temperature", tests)
    assert claim in claims(report)
    assert ("do not hold" in headline(report)) == (p < 0.01)


def test_where_a_temperature_does_not_do_another_map_is_named(binary: dict[str, Any]) -> None:
    def hinted(**values: Any) -> bool:
        report = changed(binary, "calibration_tests/student+temperature", rejected)
        told = " ".join(own.evidence for own in findings({**report, **values}))
        return "credibly calibrate RUN" in told

    rejected = {
        "ece_perfect_mean": 0.02, "ece_perfect_p95": 0.03, "consistency_p": 0.002, "spiegelhalter_p": 0.5
    }  # fmt: skip
    error = {"temperature": 1.2, "log_error": 0.01, "confidence_error": 0.001, "rows": 500}
    assert hinted(temperature_error=error, choices={})
    # Neither where there are no calibration rows to go by, nor where something was chosen already.
    assert not hinted(temperature_error=None, choices={})
    chosen = {"student": {"system": "student+temperature", "candidates": []}}
    assert not hinted(temperature_error=error, choices=chosen)


def test_an_overconfident_system_is_said_to_be_uncalibrated() -> None:
    test = examples(400)
    random = np.random.default_rng(0)
    logits = np.eye(2)[np.where(random.random(400) < 0.7, test.labels, 1 - test.labels)] * 6
    members = logits + random.normal(0, 0.3, (3, 400, 2))
    run = members_only(test)
    run["stored"] = {"members": {"test": Predictions.from_logits(members, test)}}
    report = built(run)
    assert "ensemble is not calibrated." in claims(report)
    assert "credibly calibrate RUN" not in " ".join(own.evidence for own in findings(report))
    assert "do not hold" in report["headline"]


@pytest.mark.parametrize(
    ("kept", "claim"),
    [
        (figure(0.4, 0.2, 0.6), "The student keeps part of what the ensemble gains."),
        (figure(0.9, 0.6, 1.2), "The student keeps what the ensemble gains, within the interval."),
        (figure(1.5, 1.1, 2.0), "The student keeps all that the ensemble gains, and more."),
        (figure(0.1, -0.2, 0.4), "That the student keeps any of the ensemble's gain is not borne out."),
        (figure(-0.5, -0.9, -0.1), "The student keeps none of what the ensemble gains."),
    ],
)
def test_the_gain_kept_is_claimed_as_far_as_its_interval(
    binary: dict[str, Any], kept: dict[str, float], claim: str
) -> None:
    assert claim in claims(changed(binary, "nll_gain_kept", {**kept, "gain": figure(0.02, 0.01, 0.03)}))


def test_a_gain_within_its_interval_is_not_shared_out(binary: dict[str, Any]) -> None:
    nothing = {"value": None, "low": None, "high": None, "gain": figure(0.001, -0.004, 0.006)}
    found = findings(changed(binary, "nll_gain_kept", nothing))
    said = next(finding for finding in found if "cannot be judged" in finding.claim)
    assert "is not beyond its interval: 0.001 [-0.004, 0.006]" in said.evidence


def test_soft_labels_that_tie_or_win_are_said_to(binary: dict[str, Any]) -> None:
    path = "comparisons/student - soft_labels/nll"
    assert "Plain soft-label distillation ties with the student." in claims(
        changed(binary, path, figure(0.001, -0.004, 0.006))
    )
    assert "Plain soft-label distillation beats the student." in claims(
        changed(binary, path, figure(0.02, 0.01, 0.03))
    )


def beside_the_student(report: dict[str, Any], name: str, own: dict, other: str, nll: dict) -> dict[str, Any]:
    """Return a report with one more network, judged as given against the student and another system."""
    differences = report["comparisons"]["student - soft_labels"]
    return {
        **report,
        "systems": {**report["systems"], name: report["systems"]["soft_labels"]},
        "comparisons": {
            **report["comparisons"],
            f"student - {name}": {**differences, "nll": own},
            other: {**differences, "nll": nll},
        },
    }


@pytest.mark.parametrize("name", ["soup", "greedy_soup"])
def test_a_mean_of_weights_is_held_against_the_student_and_one_member(
    binary: dict[str, Any], name: str
) -> None:
    words = {"soup": "mean of the members' weights", "greedy_soup": "mean of chosen members' weights"}[name]
    worse = figure(0.2, 0.1, 0.3)
    better = figure(-0.2, -0.3, -0.1)
    said = claims(beside_the_student(binary, name, better, f"{name} - single", worse))
    assert {
        f"The student beats the {words}.",
        f"Before any temperature the {words} is worse than one member.",
    } <= set(said)
    said = claims(beside_the_student(binary, name, worse, f"{name} - single", better))
    assert {
        f"The {words} beats the student.",
        f"Before any temperature the {words} beats one member.",
    } <= set(said)
    assert not any(words in claim for claim in claims(binary))


def test_hydras_doubt_is_told_with_its_rank_correlation(binary: dict[str, Any]) -> None:
    more = beside_the_student(binary, "hydra", figure(-0.2, -0.3, -0.1), "hydra - single", figure(0, -1, 1))
    more["agreements"] = {"hydra": {"epistemic": figure(0.93, 0.91, 0.95)}}
    (said,) = (own for own in findings(more) if own.claim == "The student beats one head a member.")
    assert "epistemic uncertainty with the ensemble's: 0.93 [0.91, 0.95]." in said.evidence


@pytest.mark.parametrize(
    ("interval", "claim"),
    [
        (figure(0.9, 0.85, 0.95), "The student's epistemic uncertainty follows the ensemble's closely."),
        (figure(0.6, 0.5, 0.7), "The student's epistemic uncertainty follows the ensemble's in part."),
        (figure(0.3, 0.2, 0.4), "The student's epistemic uncertainty follows the ensemble's only weakly."),
        (
            figure(0.05, -0.1, 0.2),
            "That the student's epistemic uncertainty follows the ensemble's is not borne out.",
        ),
        (figure(-0.2, -0.3, -0.1), "The student's epistemic uncertainty does not follow the ensemble's."),
    ],
)
def test_the_students_doubt_is_judged_by_its_rank_correlation(
    binary: dict[str, Any], interval: dict[str, float], claim: str
) -> None:
    assert claim in claims(changed(binary, "agreement/epistemic", interval))


def test_how_halves_of_the_ensemble_agree_stands_beside_the_student(binary: dict[str, Any]) -> None:
    def evidence(report: dict[str, Any]) -> str:
        (said,) = (own for own in findings(report) if "ensemble's in part" in own.claim)
        return said.evidence

    part = changed(binary, "agreement/epistemic", figure(0.6, 0.5, 0.7))
    told = {"members": 10, "agreement_of_halves": {"epistemic": figure(0.68, 0.64, 0.72)}}
    said = "Halves of the 10 members agree with one another on epistemic uncertainty by 0.68 [0.64, 0.72],"
    assert said in evidence({**part, **told})
    assert "Halves" not in evidence({**part, "agreement_of_halves": {}})


@pytest.mark.parametrize(
    ("accuracy", "ece", "claim", "mark"),
    [
        ((-0.1, -0.05), (0.01, 0.05), "On tweets it is less often right and worse calibrated.", "bad"),
        (
            (-0.02, 0.02),
            (-0.02, 0.02),
            "as often right within the interval and as well",
            "equal",
        ),
        ((0.01, 0.05), (0.01, 0.05), "On tweets it is more often right but worse calibrated.", "bad"),
    ],
)
def test_a_shift_set_is_judged_against_the_test_texts(
    binary: dict[str, Any], accuracy: tuple[float, float], ece: tuple[float, float], claim: str, mark: str
) -> None:
    changes = {"accuracy": figure(sum(accuracy) / 2, *accuracy), "ece_debiased": figure(sum(ece) / 2, *ece)}
    found = findings(changed(binary, "shift_changes/tweets", changes))
    said = next(finding for finding in found if finding.topic == "shift" and "tweets" in finding.claim)
    assert claim in said.claim
    assert said.mark == mark


@pytest.mark.parametrize(
    ("interval", "words"),
    [
        (figure(0.8, 0.75, 0.85), "tells these texts from the test texts (AUROC"),
        (figure(0.6, 0.55, 0.65), "only weakly"),
        (figure(0.5, 0.45, 0.55), "is not shown to tell"),
        (figure(0.4, 0.35, 0.45), "is lower on these texts"),
    ],
)
def test_whether_uncertainty_notices_a_shift(
    binary: dict[str, Any], interval: dict[str, float], words: str
) -> None:
    report = changed(binary, "shift/unknown/student+temperature/ood_auroc", interval)
    said = [
        finding
        for finding in findings(report)
        if finding.claim == "On unknown there are no labels to judge by."
    ]
    assert len(said) == 1
    assert words in said[0].evidence


@pytest.mark.parametrize("name", ["binary", "six", "lone"])
def test_every_finding_stands_on_an_interval(name: str, request: pytest.FixtureRequest) -> None:
    report = request.getfixturevalue(name)
    for finding in findings(report):
        if finding.claim != "There is one member only.":
            assert re.search(r"-?\d[\d.]*( %| points)? \[-?[\d.]+, -?[\d.]+\]", finding.evidence), finding
    assert report["findings"] == [finding.sentence for finding in findings(report)]
    assert len(report["findings"]) >= 3


@pytest.mark.slow
def test_temperature_that_changes_nothing_is_equal(run: dict[str, Any]) -> None:
    calibrators = {**run["calibrators"], "ensemble+temperature": Temperature(1.0)}
    report = built({**run, "calibrators": calibrators, "shift_splits": []})
    assert "Temperature leaves the ensemble's probabilities equal within the interval." in claims(report)


@pytest.mark.parametrize(
    ("accuracy", "claim"),
    [
        (0.9, "Training beats the untrained model's label words."),
        (0.5, "Training equals the untrained model's label words within the interval."),
        (0.1, "Training is worse than the untrained model's label words."),
    ],
)
def test_what_training_brought_goes_by_the_interval(accuracy: float, claim: str) -> None:
    test = examples(80, seed=6)
    answers = np.where(np.arange(80) < 80 * accuracy, test.labels, 1 - test.labels)
    run = members_only(test)
    run["stored"]["members"]["test"] = Predictions.from_logits(np.tile(np.eye(2)[answers], (3, 1, 1)), test)
    undecided = np.where(np.arange(80) % 2, test.labels, 1 - test.labels)
    run["stored"]["zero_shot"] = {"test": Predictions.from_logits(np.eye(2)[undecided], test)}
    (found,) = (finding for finding in findings(built(run)) if finding.claim == claim)
    assert found.evidence.startswith("From zero_shot to ensemble: ")


def choices(bare: str, system: str) -> dict[str, Any]:
    """What a run stores of a choice of calibrator."""
    candidates = [
        {"kind": "identity", "nll": 0.4},
        {"kind": "vector", "nll": 0.38},
        {"kind": "x", "nll": None},
    ]
    return {bare: {"system": system, "candidates": candidates}}


@pytest.mark.slow
def test_where_no_calibrator_helps_the_bare_system_ships_and_it_is_said(run: dict[str, Any]) -> None:
    report = built({**run, "choices": choices("student", "student")})
    assert report["shipped"] == "student"
    (said,) = (found for found in findings(report) if "No calibrator" in found.claim)
    assert said.claim == "No calibrator was found to help student: it is left as it is."
    assert said.evidence == "Cross-validated NLL on the calibration texts: identity 0.4000, vector 0.3800."


@pytest.mark.slow
def test_a_chosen_calibrator_is_held_against_the_bare_system(run: dict[str, Any]) -> None:
    vector = fit_calibrator(run["stored"]["student"]["calibration"], "vector", "members")
    calibrators = {**run["calibrators"], "student+vector": vector}
    report = built({**run, "calibrators": calibrators, "choices": choices("student", "student+vector")})
    assert report["shipped"] == "student+vector"
    assert report["promises"]["system"] == "student+temperature"
    assert list(report["curves"]["uncertainty"]["test"]) == ["ensemble+temperature", "student+vector"]
    outcome = verdict("nll", report["comparisons"]["student+vector - student"]["nll"])
    words = {"better": "better", "equal": "equal to those", "worse": "worse"}[str(outcome)]
    (said,) = (found for found in findings(report) if found.claim.startswith("student+vector has "))
    assert words in said.claim
    assert said.evidence.startswith("On the test texts NLL is ")
    families = {name: len(lines) for name, lines, _ in parts(report)["reliability"]}
    assert families["student"] == 2


def test_too_few_calibration_texts_are_told_with_the_number_that_would_do(binary: dict[str, Any]) -> None:
    claim = "More calibration texts would make the probabilities surer."
    error = {"temperature": 1.5, "rows": 400, "standard_error": 0.1, "confidence_error": 0.0171}
    found = next(own for own in findings(changed(binary, "temperature_error", error)) if own.claim == claim)
    # 1.5 times exp(-+1.96 x 0.1), and 400 times 1.71 squared, 1,170 rounded up.
    assert found.evidence == (
        "400 of them leave the temperature at 1.50 [1.23, 1.82]. Its error alone moves confidence by 1.7 "
        "points on average; about 1,200 texts would bring that down to 1."
    )
    assert claim not in claims(changed(binary, "temperature_error", {**error, "confidence_error": 0.0099}))
    assert claim not in claims(changed(binary, "temperature_error", None))


@pytest.mark.slow
def test_the_temperatures_error_is_that_of_the_shipped_system(run: dict[str, Any]) -> None:
    report = built(run)
    shipped = report["shipped"]
    stored = run["stored"][shipped.partition("+")[0].replace("ensemble", "members")]
    expected = temperature_error(
        stored["calibration"], stored["test"], report["calibrators"][shipped]["temperature"]
    )
    assert report["temperature_error"] == (expected and expected.as_json())
    assert expected is not None
    assert built({**run, "calibrated_by_opinions": True})["temperature_error"] is None
    bare = built({**run, "choices": choices("student", "student")})
    assert bare["shipped"] == "student"
    assert bare["temperature_error"] is None
