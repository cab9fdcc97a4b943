"""report.json has the shape that is promised, and every figure in it is the one computed directly."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, log_loss

from credibly.errors import InputError
from credibly.report.figures.comparisons import pairs, share
from credibly.report.figures.curves import distribution, rejection, reliability, risk_coverage
from credibly.report.figures.scoring import ON_SHIFT_SETS
from credibly.report.figures.systems import answered, systems_of
from credibly.uncertainty.calibration.calibrate import Temperature
from credibly.uncertainty.decompose import decompose
from credibly.uncertainty.promises.conformal import PredictionSets
from credibly.uncertainty.promises.selective import Abstention
from credibly.uncertainty.scoring.consistency import perfect_ece
from credibly.uncertainty.scoring.intervals import (
    paired_difference,
    rank_correlation,
    resampled,
    score,
    score_classes,
    score_shift,
)  # fmt: skip
from credibly.uncertainty.scoring.slices import slices
from credibly.uncertainty.systems import answers, shipped_system
from report.samples import BINARY, built, examples, members_only, predictions

SYSTEMS = [
    "single", "ensemble", "ensemble+temperature", "majority_vote", "direct", "direct+temperature",
    "soft_labels", "student", "student+temperature",
]  # fmt: skip
COSTS = ("seconds", "parameters", "bytes", "rows_per_second")


def numbers(value: Any) -> list[float]:
    """Every number anywhere in a report."""
    if isinstance(value, dict):
        return [number for part in value.values() for number in numbers(part)]
    if isinstance(value, list):
        return [number for part in value for number in numbers(part)]
    return [value] if isinstance(value, int | float) else []


def options(run: dict[str, Any]) -> dict[str, Any]:
    return {name: run[name] for name in ("resamples", "confidence", "seed")}


def on(run: dict[str, Any], split: str) -> Any:
    return answered(run["stored"], split, run["calibrators"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["binary", "six", "lone"])
def test_a_report_is_json_without_nan(name: str, request: pytest.FixtureRequest) -> None:
    report = request.getfixturevalue(name)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert np.isfinite(numbers(report)).all()


def test_systems_stand_in_the_order_of_every_table(binary: dict[str, Any]) -> None:
    assert list(binary["systems"]) == SYSTEMS
    assert list(binary["shift"]["tweets"]) == SYSTEMS


def test_promises_are_fitted_on_the_calibration_split_and_seen_on_the_test_texts(
    binary: dict[str, Any], run: dict[str, Any]
) -> None:
    plain = [on(run, split)["student"][0] for split in ("calibration", "test")]
    wrong = [answer.predicted != answer.labels for answer in plain]
    for found in binary["promises"]["abstention"]:
        fitted = Abstention.at_risk(plain[0].uncertainty.total, wrong[0], found["risk_promised"])
        assert found["threshold"] == fitted.threshold
        answered_rows = fitted.answers(plain[1].uncertainty.total)
        assert found["coverage"]["value"] == pytest.approx(answered_rows.mean())
        if answered_rows.any():
            assert found["risk"]["value"] == pytest.approx(wrong[1][answered_rows].mean())
    for found in binary["promises"]["sets"]:
        sets = PredictionSets.fit(plain[0].probs, plain[0].labels, found["coverage_promised"])
        held = sets.sets(plain[1].probs)[np.arange(len(plain[1].ids)), plain[1].labels]
        assert found["coverage"]["value"] == pytest.approx(held.mean())
    assert binary["promises"]["sets"]


def test_slices_are_those_of_the_shipped_system(binary: dict[str, Any], run: dict[str, Any]) -> None:
    (answer,) = on(run, "test")[binary["shipped"]]
    lengths = [len(text.split()) for text in run["test"].texts]
    expected = slices(answer, run["test"].groups, lengths, **options(run))
    assert binary["slices"] == [own.as_json() for own in expected]
    assert binary["slices"]


@pytest.mark.parametrize(("column", "are"), [("author", True), (None, False)])
def test_families_are_no_slices_and_groups_of_a_column_are(column: str | None, are: bool) -> None:
    test = examples(300, seed=6)
    test = replace(test, groups=tuple("ab"[row % 2] for row in range(300)))
    given = {**members_only(test, M=1), "recipe": {"data": {"group": column}}}
    assert any(own["kind"] == "group" for own in built(given)["slices"]) == are


def test_one_member_has_no_vote(lone: dict[str, Any]) -> None:
    assert lone["members"] == 1
    assert "majority_vote" not in lone["systems"]
    assert {"single", "ensemble"} <= lone["systems"].keys()


def test_other_networks_stand_before_the_student_by_name(run: dict[str, Any]) -> None:
    stored = {**run["stored"], "zeta": run["stored"]["direct"], "label_smoothing": run["stored"]["direct"]}
    calibrators = {**run["calibrators"], "zeta+temperature": Temperature(2.0)}
    names = systems_of(stored, calibrators, "test")
    assert names[-5:] == ["label_smoothing", "zeta", "zeta+temperature", "student", "student+temperature"]


def test_members_alone_make_a_report(six: dict[str, Any]) -> None:
    assert list(six["systems"]) == ["single", "ensemble", "majority_vote"]
    assert six["shipped"] == "ensemble"
    assert (six["agreement"], six["nll_gain_kept"]) == (None, None)
    assert all(text["student"] is None and text["people"] is None for text in six["texts"])
    assert six["systems"]["ensemble"]["nll_raters"] == {"value": None, "low": None, "high": None}


def test_a_shift_set_without_labels_has_uncertainty_and_no_label_figures(six: dict[str, Any]) -> None:
    scores = six["shift"]["shifted"]["ensemble"]
    assert scores["accuracy"]["value"] is None
    assert scores["mean_total"]["value"] > 0
    assert 0 <= scores["ood_auroc"]["low"] <= scores["ood_auroc"]["high"] <= 1


def test_rows_are_counted_by_split(binary: dict[str, Any]) -> None:
    assert binary["rows"] == {"calibration": 200, "test": 260, "tweets": 150, "unknown": 90}


@pytest.mark.slow
def test_every_figure_of_a_system_is_that_of_score(run: dict[str, Any], binary: dict[str, Any]) -> None:
    for name, given in on(run, "test").items():
        written = binary["systems"][name]
        expected = {metric: interval.as_json() for metric, interval in score(given, **options(run)).items()}
        assert {metric: written[metric] for metric in expected} == expected
        by_class = score_classes(given, **options(run))
        assert written["classes"] == {
            label: {kind: interval.as_json() for kind, interval in found.items()}
            for label, found in by_class.items()
        }
        assert set(written) == {*expected, *COSTS, "classes"}


def test_accuracy_and_nll_are_those_of_scikit_learn(run: dict[str, Any], binary: dict[str, Any]) -> None:
    test, members = run["test"], run["stored"]["members"]["test"]
    mean = np.exp(members.log_probs.astype(float)).mean(axis=0)
    written = binary["systems"]["ensemble"]
    assert written["accuracy"]["value"] == pytest.approx(accuracy_score(test.labels, mean.argmax(axis=1)))
    assert written["nll"]["value"] == pytest.approx(log_loss(test.labels, mean), abs=1e-6)
    each = [accuracy_score(test.labels, member.argmax(axis=1)) for member in members.log_probs]
    assert binary["systems"]["single"]["accuracy"]["value"] == pytest.approx(np.mean(each))
    assert binary["systems"]["single"]["accuracy"]["spread"] == pytest.approx(np.std(each, ddof=1))


def test_every_shift_figure_is_that_of_score_shift(run: dict[str, Any], binary: dict[str, Any]) -> None:
    inside = on(run, "test")
    for split in run["shift_splits"]:
        for name, given in on(run, split).items():
            expected = score_shift(inside[name], given, **options(run), metrics=ON_SHIFT_SETS)
            assert binary["shift"][split][name] == {
                metric: found.as_json() for metric, found in expected.items()
            }


def test_every_comparison_is_the_paired_difference(run: dict[str, Any], binary: dict[str, Any]) -> None:
    given = on(run, "test")
    assert {"ensemble - single", "student+temperature - direct+temperature"} <= set(binary["comparisons"])
    for pair, by_metric in binary["comparisons"].items():
        first, second = pair.split(" - ")
        for metric, written in by_metric.items():
            expected = paired_difference(given[first], given[second], metric, **options(run)).as_json()
            shown = {end: written[end] for end in expected}
            assert shown == {end: pytest.approx(value, abs=1e-12) for end, value in expected.items()}
            judged = {"p", "adjusted_p"} if first == binary["shipped"] else set()
            assert set(written) == set(expected) | judged


def test_the_gain_kept_is_the_ratio_of_the_designs_differences(
    run: dict[str, Any], binary: dict[str, Any]
) -> None:
    given, kept = on(run, "test"), binary["nll_gain_kept"]
    names = ("direct+temperature", "student+temperature", "ensemble+temperature")
    direct, student, ensemble = (binary["systems"][name]["nll"]["value"] for name in names)
    samples = [resampled(given[name], "nll", run["resamples"], run["seed"]) for name in names]
    gains = samples[0] - samples[2]
    assert kept["gain"]["value"] == pytest.approx(direct - ensemble)
    gain = paired_difference(given[names[0]], given[names[2]], "nll", **options(run))
    assert kept["gain"]["low"] == pytest.approx(gain.low)
    assert kept["gain"]["low"] > 0
    assert kept["value"] == pytest.approx((direct - student) / (direct - ensemble))
    ratios = np.sort((samples[0] - samples[1]) / gains)
    assert ratios[0] <= kept["low"] <= np.median(ratios) <= kept["high"] <= ratios[-1]


def test_the_gain_kept_is_not_judged_where_the_ensemble_gains_nothing(run: dict[str, Any]) -> None:
    same = {**run["stored"], "direct": {"test": run["stored"]["members"]["test"].member(0)}}
    same["members"] = {"test": run["stored"]["members"]["test"].member(0)}
    calibrators = {name: Temperature() for name in run["calibrators"]}
    kept = built({**run, "stored": same, "calibrators": calibrators, "shift_splits": []})["nll_gain_kept"]
    assert (kept["value"], kept["low"], kept["high"]) == (None, None, None)
    assert kept["gain"]["value"] == pytest.approx(0)


def test_resamples_without_a_gain_widen_the_share_until_it_is_not_judged() -> None:
    kept, gain = np.full(1000, 0.5), np.ones(1000)
    assert share(0.5, kept, gain, 0.95).low == pytest.approx(0.5)
    gain[:100] = -1.0
    assert share(0.5, kept, gain, 0.95).value is None


def test_agreement_is_the_rank_correlation_with_the_ensemble(
    run: dict[str, Any], binary: dict[str, Any]
) -> None:
    student = answers("student", run["stored"]["student"]["test"], run["calibrators"])[0].uncertainty
    ensemble = decompose(run["stored"]["members"]["test"])
    for kind in ("total", "aleatoric", "epistemic"):
        expected = rank_correlation(getattr(student, kind), getattr(ensemble, kind), **options(run))
        assert binary["agreement"][kind] == expected.as_json()
        assert expected.value is not None
        assert expected.value > 0.2


def test_calibration_tests_are_made_of_every_system_but_single(
    run: dict[str, Any], binary: dict[str, Any]
) -> None:
    assert list(binary["calibration_tests"]) == SYSTEMS[1:]
    given = on(run, "test")["student+temperature"][0]
    expected = perfect_ece(given, draws=run["resamples"], seed=run["seed"])
    assert binary["calibration_tests"]["student+temperature"] == expected.as_json()


def test_curves_are_those_of_the_answers(run: dict[str, Any], binary: dict[str, Any]) -> None:
    given = on(run, "test")
    for name in SYSTEMS:
        assert binary["curves"]["reliability"][name] == reliability(given[name], 0.95)
        assert binary["curves"]["risk_coverage"][name] == risk_coverage(given[name], 0.95)
    domains = binary["curves"]["uncertainty"]
    assert list(domains) == ["test", "tweets", "unknown"]
    assert domains["test"]["student+temperature"] == distribution(given["student+temperature"][0])
    assert binary["curves"]["rejection"] == rejection(given[binary["shipped"]][0], 0.95)


def test_sets_of_many_promises_are_those_of_the_promises_and_grow(binary: dict[str, Any]) -> None:
    drawn = binary["curves"]["set_sizes"]
    promised = {own["coverage_promised"]: own for own in drawn}
    assert list(promised) == sorted(promised)
    for own in binary["promises"]["sets"]:
        assert promised[own["coverage_promised"]] == own
    sizes = [own["mean_size"]["value"] for own in drawn]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]


def test_without_a_calibration_split_there_are_no_sets_to_draw(six: dict[str, Any]) -> None:
    assert six["curves"]["set_sizes"] == six["promises"]["sets"] == []


def test_leaders_are_not_beaten_and_the_others_are(run: dict[str, Any], binary: dict[str, Any]) -> None:
    given = on(run, "test")
    for metric, higher in (("accuracy", True), ("nll", False), ("aurc", False)):
        values = {name: scores[metric]["value"] for name, scores in binary["systems"].items()}
        best = (max if higher else min)(values, key=lambda name: values[name])
        tied = []
        for name in values:
            found = paired_difference(given[name], given[best], metric, **options(run))
            assert found.low is not None
            assert found.high is not None
            if found.low <= 0 <= found.high:
                tied.append(name)
        assert binary["leaders"][metric] == (tied if len(tied) < len(values) else [])
    assert "mean_epistemic" not in binary["leaders"]


def test_nobody_leads_where_all_are_equal(lone: dict[str, Any]) -> None:
    assert lone["leaders"]["accuracy"] == []


def test_a_change_under_shift_is_the_difference_of_the_two_figures(binary: dict[str, Any]) -> None:
    change = binary["shift_changes"]["tweets"]["accuracy"]
    inside = binary["systems"]["student+temperature"]["accuracy"]
    outside = binary["shift"]["tweets"]["student+temperature"]["accuracy"]
    assert change["value"] == pytest.approx(outside["value"] - inside["value"])
    below = np.hypot(outside["value"] - outside["low"], inside["high"] - inside["value"])
    assert change["low"] == pytest.approx(change["value"] - below)
    assert binary["shift_changes"]["unknown"]["accuracy"]["value"] is None


def test_costs_of_a_network_hold_with_temperature_too(binary: dict[str, Any]) -> None:
    for name in ("student", "student+temperature"):
        assert binary["systems"][name]["seconds"] == {"value": 80.0, "low": None, "high": None}
    assert binary["systems"]["majority_vote"]["parameters"]["value"] == 1_000_000
    assert binary["systems"]["single"]["parameters"]["value"] is None
    assert binary["systems"]["ensemble"]["rows_per_second"]["value"] is None


def test_ten_texts_carry_everybodys_opinion(run: dict[str, Any], binary: dict[str, Any]) -> None:
    texts = binary["texts"]
    assert [text["why"] for text in texts] == ["most certain"] * 3 + ["most disputed"] * 4 + [
        "most wrong"
    ] * 3
    assert len({text["id"] for text in texts}) == 10
    tempered = run["calibrators"]["ensemble+temperature"].apply(run["stored"]["members"]["test"])
    parts = decompose(tempered)
    for text in texts:
        row = run["test"].ids.index(text["id"])
        assert text["text"] == run["test"].texts[row]
        assert text["label"] == BINARY[run["test"].labels[row]]
        assert text["people"] == pytest.approx(run["test"].label_probs[row])
        assert np.array(text["members"]) == pytest.approx(np.exp(tempered.log_probs[:, row]), abs=1e-6)
        assert text["ensemble"]["probabilities"] == pytest.approx(np.mean(text["members"], axis=0), abs=1e-6)
        assert text["ensemble"]["epistemic"] == pytest.approx(parts.epistemic[row])
        assert text["student"]["total"] == pytest.approx(
            text["student"]["aleatoric"] + text["student"]["epistemic"]
        )


def test_the_chosen_texts_are_the_extremes(run: dict[str, Any], binary: dict[str, Any]) -> None:
    parts = decompose(run["calibrators"]["ensemble+temperature"].apply(run["stored"]["members"]["test"]))
    rows = [run["test"].ids.index(text["id"]) for text in binary["texts"]]
    assert rows[:3] == np.argsort(parts.total, kind="stable")[:3].tolist()
    assert rows[3:7] == np.argsort(-parts.epistemic, kind="stable")[:4].tolist()
    for text in binary["texts"][7:]:
        assert text["ensemble"]["probabilities"][BINARY.index(text["label"])] < 0.5


def test_without_disagreement_the_most_uncertain_stand_in(lone: dict[str, Any]) -> None:
    reasons = [text["why"] for text in lone["texts"]]
    assert "most disputed" not in reasons
    assert reasons.count("most uncertain") >= 4


def test_ten_texts_are_made_up_where_nothing_is_wrong() -> None:
    test = examples(40, seed=1)
    sure = np.eye(2)[test.labels] * 0.98 + 0.01
    run = members_only(test)
    noise = np.random.default_rng(0).normal(0, 0.1, (3, 40, 2))
    logits = np.log(sure) + noise
    run["stored"] = {"members": {"test": predictions(test, 1, 0).from_logits(logits, test)}}
    report = built(run)
    assert report["systems"]["ensemble"]["accuracy"]["value"] == 1
    assert [text["why"] for text in report["texts"]] == ["most certain"] * 3 + ["most disputed"] * 7


def test_a_test_set_smaller_than_ten_texts_is_shown_whole() -> None:
    report = built(members_only(examples(6, seed=3)))
    assert sorted(text["id"] for text in report["texts"]) == sorted(f"row-{row}" for row in range(6))


def test_long_texts_are_cut_at_500_characters() -> None:
    test = examples(12, texts=tuple("x" * (10 + 100 * row) for row in range(12)))
    assert max(len(text["text"]) for text in built(members_only(test))["texts"]) == 500


def test_unlabelled_test_texts_make_a_report_of_uncertainty_alone() -> None:
    report = built(members_only(examples(40, labelled=False)))
    assert report["systems"]["ensemble"]["nll"]["value"] is None
    assert report["curves"]["reliability"]["ensemble"] == []
    assert "unknown label" in report["headline"]
    assert [text["label"] for text in report["texts"]] == [None] * 10


def test_histories_are_thinned_to_columns_of_numbers(binary: dict[str, Any]) -> None:
    student = binary["histories"]["student"]
    assert set(student) == {"step", "epoch", "loss"}
    assert len(student["loss"]) == 100
    assert student["step"][0] == pytest.approx(1.0)  # the mean of steps 0, 1 and 2
    assert binary["histories"]["members/0"]["loss"] == pytest.approx([1, 1 / 2, 1 / 3])


def test_a_loss_that_became_nan_is_null() -> None:
    run = members_only(examples(20))
    run["histories"] = {"student": [{"step": 1, "loss": 0.5}, {"step": 2, "loss": float("nan")}]}
    assert built(run)["histories"]["student"]["loss"] == [0.5, None]


def test_texts_other_than_those_predicted_are_refused(run: dict[str, Any]) -> None:
    test = run["test"]
    renamed = replace(test, ids=("other", *test.ids[1:]))
    with pytest.raises(InputError, match=r"single for the 260 test.*ids test-0 are not among"):
        built({**run, "test": renamed})
    with pytest.raises(InputError, match="differ in order or number"):
        built({**run, "test": test.take(np.arange(260)[::-1])})


def test_a_run_without_members_is_refused(run: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="members on the test split"):
        built({**run, "stored": {"direct": run["stored"]["direct"]}})


@pytest.mark.slow
def test_equal_input_gives_equal_reports(run: dict[str, Any], binary: dict[str, Any]) -> None:
    assert built(run) == binary


def test_zero_shot_stands_before_what_started_from_it_and_is_never_shipped(run: dict[str, Any]) -> None:
    stored = {**run["stored"], "zero_shot": run["stored"]["soft_labels"]}
    calibrators = {**run["calibrators"], "zero_shot+temperature": Temperature(2.0)}
    names = systems_of(stored, calibrators, "test")
    assert names[:3] == ["zero_shot", "zero_shot+temperature", "single"]
    assert names[2:] == systems_of(run["stored"], run["calibrators"], "test")
    assert shipped_system(names[:5]) == "ensemble+temperature"
    assert ("ensemble+temperature", "zero_shot+temperature") in pairs(names, "student+temperature")
