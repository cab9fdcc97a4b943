"""What a run's recipe asks of its calibration: fitted, stored, chosen, answered with, reported."""

import json
import logging
import shutil

import numpy as np
import pytest

from credibly import workflows
from credibly.errors import InputError, RecipeError
from credibly.records import Examples
from credibly.runs import Run, write_json
from credibly.settings import CalibrationSettings, parse_recipe
from credibly.uncertainty.calibration.calibrate import Temperature
from credibly.uncertainty.calibration.calibrator_choice import choose_calibrator
from credibly.uncertainty.calibration.calibrators import InTurn, OnMean, fit_calibrator
from credibly.uncertainty.combine import averaged, combine
from credibly.uncertainty.decompose import decompose
from credibly.uncertainty.systems import answers
from credibly.workflows.answering.opening import systems_of
from credibly.workflows.common.contents import Calibration, calibration_in
from credibly.workflows.steps.calibrating import calibrate, check_calibrates, log_choices
from workshop import jsonl, made_rows, quick

pytestmark = pytest.mark.slow

TEXTS = ["warm funny bright", "dull slow empty", "warm dull"]
SOURCES = ("members", "direct", "soft_labels", "student")


def settings(method, on="members"):
    return CalibrationSettings(method=method, on=on)


@pytest.fixture
def calibrated(fitted, tmp_path):
    """Return a function that gives a copy of the finished run, calibrated by other settings."""

    def copy(method, on="members"):
        run = Run(shutil.copytree(fitted.run, tmp_path / f"{method}-{on}"))
        calibration = Calibration({})
        for source in SOURCES:
            calibration = calibration.joined(calibrate(run, source, settings(method, on)))
        write_json(run.calibration_file, calibration.as_json())
        recipe = run.recipe.model_copy(update={"calibration": settings(method, on)})
        run.save_recipe(recipe)
        run.finish({})
        return run

    return copy


@pytest.mark.parametrize("method", ["entropy_temperature", "vector", "dirichlet", "isotonic"])
def test_the_calibrator_asked_for_stands_beside_the_temperature(fitted, method):
    run = Run.open(fitted.run)
    members = run.load_predictions("members", "calibration")
    found = calibrate(run, "members", settings(method))
    assert found.calibrators == {
        "ensemble+temperature": Temperature.fit(members),
        "mean_logits+temperature": Temperature.fit(members, rule="mean_logits"),
        f"ensemble+{method}": fit_calibrator(members, method, "members"),
    }
    assert found.choices == {"ensemble": {"system": f"ensemble+{method}", "candidates": []}}
    assert set(calibrate(run, "direct", settings(method)).calibrators) == {
        "direct+temperature", f"direct+{method}",
    }  # fmt: skip


@pytest.mark.parametrize("method", ["temperature", "vector"])
def test_on_the_mean_the_members_are_averaged_first(fitted, method):
    run = Run.open(fitted.run)
    members = run.load_predictions("members", "calibration")
    found = calibrate(run, "members", settings(method, "mean"))
    name = f"ensemble+{method}_on_mean"
    assert found.calibrators[name] == OnMean(fit_calibrator(averaged(members), method, "members"))
    assert found.choices["ensemble"]["system"] == name
    (answer,) = answers(name, members, found.calibrators)
    assert np.array_equal(answer.probs, combine(found.calibrators[name].apply(members)))
    assert not answer.uncertainty.epistemic.any()
    network = calibrate(run, "direct", settings(method, "mean"))
    assert network.choices["direct"]["system"] == f"direct+{method}"


def test_what_a_run_asks_for_by_default_is_what_it_held_before(fitted):
    run = Run.open(fitted.run)
    found = calibrate(run, "student")
    assert found.choices == {}
    stored = json.loads(run.calibration_file.read_text(encoding="utf-8"))
    assert {name: stored[name] for name in ("student", "student+temperature")} == found.as_json()
    assert Calibration.from_json(stored).as_json() == stored


def test_a_dirichlet_keeps_the_members_doubt_whatever_maps_it(fitted):
    run = Run.open(fitted.run)
    found = calibrate(run, "student", settings("vector"))
    wanted = decompose(run.load_predictions("members", "calibration")).epistemic.mean()
    raw = run.load_predictions("student", "calibration")
    mapped = found.calibrators["student+vector"].apply(raw)
    assert decompose(mapped).epistemic.mean() == pytest.approx(wanted, rel=1e-4)
    alone = fit_calibrator(raw, "vector", "members").apply(raw)
    np.testing.assert_allclose(combine(mapped), combine(alone), atol=1e-6)
    assert isinstance(found.calibrators["student+vector"], InTurn)


@pytest.mark.parametrize("system", ["student+vector", "student+temperature", "student"])
def test_the_students_weights_hold_its_temperature_whatever_it_answers_with(system):
    vector = InTurn((Temperature(1.5), Temperature()))
    calibrators = {
        "student": Temperature(1.0, 3.0), "student+temperature": Temperature(2.0, 1.0),
        "student+vector": vector,
    }  # fmt: skip
    choices = {"student": {"system": system, "candidates": []}}
    assert Calibration(calibrators, choices).folded == Temperature(2.0, 1.0)
    assert Calibration(calibrators).folded == Temperature(2.0, 1.0)


def test_auto_takes_what_cross_validation_bears_out_and_keeps_its_reasons(fitted):
    run = Run.open(fitted.run)
    choice = choose_calibrator(run.load_predictions("direct", "calibration"), "members")
    found = calibrate(run, "direct", settings("auto"))
    suffix = "" if choice.kind == "identity" else f"+{choice.kind}"
    candidates = choice.as_json()["candidates"]
    assert found.choices == {"direct": {"system": f"direct{suffix}", "candidates": candidates}}
    assert found.choices["direct"]["system"] in {*found.calibrators, "direct"}


def test_where_nothing_helps_the_log_says_so(caplog):
    candidates = [{"kind": "identity", "taken": True, "reason": "nothing lowers its NLL"}]
    choices = {"student": {"system": "student", "candidates": candidates}}
    with caplog.at_level(logging.INFO):
        log_choices(Calibration({}, choices))
    levels = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert levels == [
        ("INFO", "student: identity taken: nothing lowers its NLL"),
        ("WARNING", "student: no calibrator lowers its NLL beyond noise, so it is left as it is"),
    ]


def test_a_run_answers_with_the_calibrator_that_it_chose(calibrated):
    run = calibrated("isotonic")
    known = systems_of(run)
    assert known[-1] == "student+isotonic"
    assert {"ensemble+isotonic", "ensemble+temperature", "student+temperature", "student"} < set(known)
    predictor = workflows.load(run.path)
    assert predictor.system == "student+isotonic"
    raw = predictor.record(_examples(predictor))
    expected = calibration_in(run).calibrators["student+isotonic"].apply(raw)
    np.testing.assert_allclose(predictor.answer(TEXTS).probs, combine(expected), atol=1e-6)
    mapped = workflows.load(run.path, "ensemble+temperature").predict(TEXTS)
    assert any(row["epistemic"] > 0 for row in mapped)


def _examples(predictor):
    ids = tuple(map(str, range(len(TEXTS))))
    return Examples(ids, tuple(TEXTS), predictor.class_names, np.full(len(TEXTS), -1))


def test_a_risk_is_not_promised_where_the_calibrator_moves_labels(calibrated):
    run = calibrated("vector")
    with pytest.raises(InputError, match=r"give --system student\+temperature$"):
        workflows.load(run.path, wanted=workflows.Wanted(risk=0.4))
    assert workflows.load(run.path, wanted=workflows.Wanted(coverage=0.5)).promises.abstention
    answer = workflows.load(run.path, "student+temperature", workflows.Wanted(risk=0.4))
    assert answer.promises.abstention


def test_evaluate_scores_every_form_and_names_the_shipped_one(calibrated, fitted, no_plots):
    run = calibrated("vector", "mean")
    report = workflows.evaluate(run.path, fitted.test)
    names = list(report["systems"])
    assert names[names.index("ensemble") : names.index("majority_vote")] == [
        "ensemble", "ensemble+temperature", "ensemble+vector_on_mean",
    ]  # fmt: skip
    assert report["shipped"] == "student+vector"
    assert report["choices"]["student"]["system"] == "student+vector"
    assert report["systems"]["ensemble+vector_on_mean"]["mean_epistemic"]["value"] == 0
    assert {"student+vector - student", "student+vector - student+temperature"} <= set(report["comparisons"])
    assert any(finding.startswith("student+vector has ") for finding in report["findings"])


def test_where_nothing_helps_the_bare_system_answers(calibrated):
    run = calibrated("vector")
    content = json.loads(run.calibration_file.read_text(encoding="utf-8"))
    content["choices"]["student"] = {"system": "student", "candidates": []}
    write_json(run.calibration_file, content)
    run.finish({})
    assert workflows.load(run.path).system == "student"
    assert "student+temperature" in systems_of(run)


def test_too_few_rows_of_a_class_are_told_before_anything_is_trained():
    def rows(labels):
        ids = tuple(map(str, range(len(labels))))
        return Examples(ids, ids, ("a", "b"), np.array(labels))

    with pytest.raises(InputError, match=r"two|2 calibration rows or more of every class.*'b' \(1\)"):
        check_calibrates(settings("vector"), rows([0, 0, 0, 1]))
    with pytest.raises(InputError, match="got 5 folds of 4 such rows"):
        check_calibrates(settings("auto"), rows([0, 0, 1, 1]))
    check_calibrates(settings("temperature"), rows([0, 0, 0, 1]))
    check_calibrates(settings("vector"), rows([0, 0, 1, 1]))


def test_an_unknown_method_is_refused_with_those_there_are():
    with pytest.raises(RecipeError, match=r"calibration\.method: .*'vector'.*got 'platt'"):
        parse_recipe({"data": {"train": "a.csv"}, "calibration": {"method": "platt"}})


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dirichlet", "auto"])
def test_a_whole_run_calibrates_as_its_recipe_says(tmp_path, standin, no_plots, method):
    data = jsonl(tmp_path / "a.jsonl", made_rows(150))
    run = workflows.fit(data, tmp_path / "run", quick(standin(), calibration__method=method))
    content = json.loads(run.calibration_file.read_text(encoding="utf-8"))
    chosen = content["choices"]["student"]["system"]
    report = json.loads(run.report_json.read_text(encoding="utf-8"))
    assert report["shipped"] == chosen
    assert {"ensemble+temperature", "student+temperature", "direct+temperature"} < set(report["systems"])
    stored = run.load_predictions("student", "test")
    predictor = workflows.load(run.path)
    assert predictor.system == chosen
    texts = [row["text"] for row in map(json.loads, data.read_text().splitlines()) if row]
    record = predictor.record(_named(texts[:5], predictor))
    assert record.concentrations is not None
    (expected,) = answers(chosen, stored, calibration_in(run).calibrators)
    # A promise on labels that the calibration rows moved would not hold.
    if method == "dirichlet":
        assert report["promises"]["system"] == "student+temperature"
    shown = report["systems"][chosen]["nll"]["value"]
    truth = expected.probs[np.arange(len(expected.labels)), expected.labels]
    assert shown == pytest.approx(-np.log(truth).mean(), rel=1e-6)


def _named(texts, predictor):
    ids = tuple(map(str, range(len(texts))))
    return Examples(ids, tuple(texts), predictor.class_names, np.full(len(texts), -1))


def test_equal_texts_of_a_further_file_belong_together(fitted, tmp_path, no_plots):
    rows = [json.loads(line) for line in fitted.test.read_text(encoding="utf-8").splitlines()]
    copies = [{**row, "id": f"{copy}-{number}"} for copy in range(2) for number, row in enumerate(rows)]
    report = workflows.evaluate(fitted.run, jsonl(tmp_path / "copies.jsonl", copies))
    texts = len({row["text"] for row in rows})
    assert report["dependence"]["groups"] <= texts < report["rows"]["test"] == len(copies)
