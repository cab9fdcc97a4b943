"""`credibly calibrate`: a finished run calibrated anew; its networks and what they said stay."""

import json
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from credibly.cli.main import app
from credibly.data import load_splits
from credibly.errors import InputError, RunFolderError
from credibly.runs import Run, sha256
from credibly.uncertainty.calibration import calibrators
from credibly.uncertainty.calibration.calibrate import Temperature
from credibly.uncertainty.calibration.calibrator_choice import CalibratorChoice, Candidate
from credibly.uncertainty.calibration.calibrators import fit_calibrator
from credibly.uncertainty.systems import answers
from credibly.workflows import evaluate, fit, load, recalibrate
from credibly.workflows.answering.opening import open_source
from credibly.workflows.common.contents import calibration_in
from credibly.workflows.fitting import fit as fitting
from credibly.workflows.steps import calibrating

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_plots")]

KEPT = ("members", "models", "student", "predictions", "shift", "costs.json")
"""What is the same however a run is calibrated."""


@pytest.fixture
def run(fitted, tmp_path):
    return Run(shutil.copytree(fitted.run, tmp_path / "run"))


def files_of(run, names=("",)):
    return {
        str(file.relative_to(run.path)): sha256(file)
        for name in names
        for file in ([run.path / name] if (run.path / name).is_file() else (run.path / name).rglob("*"))
        if file.is_file()
    }


def report_of(run):
    return json.loads(run.report_json.read_text(encoding="utf-8"))


def test_all_but_calibration_and_report_stays(run):
    before, told = files_of(run, KEPT), report_of(run)
    made = recalibrate(run.path, "entropy_temperature")
    assert files_of(made, KEPT) == before
    assert Run.open(made.path).recipe.calibration.method == "entropy_temperature"
    for name in made.manifest["files"]:
        made.check(made.path / name)
    members = made.load_predictions("members", "calibration")
    expected = fit_calibrator(members, "entropy_temperature", "members")
    assert calibration_in(made).calibrators["ensemble+entropy_temperature"] == expected
    report = report_of(made)
    assert report["shipped"] == load(made.path).system == "student+entropy_temperature"
    assert report["notes"] == told["notes"]
    for name, own in told["systems"].items():
        assert report["systems"][name]["nll"] == own["nll"]


def test_what_it_answers_is_what_was_stored_after_the_new_map(run, fitted):
    before = evaluate(run.path, fitted.test)["systems"]
    recalibrate(run.path, "vector")
    (expected,) = answers(
        "student+vector", run.load_predictions("student", "test"), calibration_in(run).calibrators
    )
    truth = expected.probs[np.arange(len(expected.labels)), expected.labels]
    after = evaluate(run.path, fitted.test)["systems"]
    assert after["student+vector"]["nll"]["value"] == pytest.approx(-np.log(truth).mean(), rel=1e-4)
    assert after["student+temperature"]["nll"]["value"] == before["student+temperature"]["nll"]["value"]


def test_a_students_weights_keep_what_was_folded_into_them(run, monkeypatch):
    folded = calibration_in(run).folded
    assert folded.temperature != 1

    def nothing_helps(predictions, on):
        kept = Candidate("identity", 0.5, 0.1, 0.0, 0.1, True, "nothing lowers its NLL")
        return CalibratorChoice(Temperature(), (kept,))

    monkeypatch.setattr(calibrating, "choose_calibrator", nothing_helps)
    recalibrate(run.path, "auto")
    calibration = calibration_in(run)
    assert calibration.choices["student"]["system"] == "student"
    assert calibration.folded == folded != calibration.calibrators["student"]
    stored = run.load_predictions("student", "test")
    test = load_splits(run.recipe.data, run.recipe.seed, run.recipe.members.count).test
    assert test.ids == stored.ids
    raw = open_source(run, "student").predict(test)
    assert raw.log_probs == pytest.approx(stored.log_probs, abs=1e-4)
    # And back again: as it was, and nothing is left to remember.
    monkeypatch.undo()
    recalibrate(run.path, "temperature")
    assert calibration_in(run).folded_before is None
    assert calibration_in(run).folded == folded


def test_back_to_a_temperature_is_what_was_before(run):
    before, told = run.calibration_file.read_bytes(), report_of(run)
    recalibrate(run.path, "isotonic", "mean")
    assert "ensemble+isotonic_on_mean" in report_of(run)["systems"]
    recalibrate(run.path, "temperature")
    assert run.calibration_file.read_bytes() == before
    assert report_of(run)["systems"] == told["systems"]


def test_one_that_was_killed_goes_on(run, monkeypatch):
    def killed(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(fitting, "write_run_report", killed)
    with pytest.raises(KeyboardInterrupt):
        recalibrate(run.path, "vector")
    monkeypatch.undo()
    assert not run.finished
    with pytest.raises(RunFolderError, match=r"credibly fit .*recipe\.yaml --output .* --resume"):
        recalibrate(run.path, "vector")
    fit(run.recipe_file, run.path, resume=True)
    assert report_of(run)["shipped"] == "student+vector"


def test_the_same_calibration_changes_nothing(run):
    before = files_of(run)
    recalibrate(run.path, "temperature")
    assert files_of(run) == before


def test_what_was_exported_is_removed_and_said(exported, tmp_path, caplog):
    run = Run(shutil.copytree(exported, tmp_path / "run"))
    assert run.export_folder.is_dir()
    recalibrate(run.path, "vector")
    assert not run.export_folder.exists()
    assert "export the run again" in caplog.text


@pytest.mark.parametrize("file", ["predictions/members/calibration.safetensors", "student/model.safetensors"])
def test_a_damaged_run_is_left_as_it_is(run, file):
    place = run.path / file
    place.write_bytes(place.read_bytes()[:-1] + b"?")
    before = files_of(run)
    with pytest.raises(RunFolderError, match="is damaged"):
        recalibrate(run.path, "vector")
    assert files_of(run) == before


def test_too_few_rows_are_refused_before_anything_is_written(run, monkeypatch):
    before = files_of(run)

    def refused(*arguments):
        raise InputError("expected more rows")

    monkeypatch.setattr("credibly.workflows.fitting.beginning.check_calibrates", refused)
    with pytest.raises(InputError, match="more rows"):
        recalibrate(run.path, "vector")
    assert files_of(run) == before


def test_the_command_says_what_came_of_it(run):
    printed = CliRunner().invoke(app, ["calibrate", str(run.path), "--method", "vector", "--json", "--quiet"])
    assert printed.exit_code == 0, printed.output
    assert json.loads(printed.stdout)["shipped"] == "student+vector"
    unknown = CliRunner().invoke(app, ["calibrate", str(run.path), "--method", "platt"])
    assert unknown.exit_code == 2
    assert set(calibrators.KINDS) - {"identity"} <= set(
        unknown.output.replace("'", " ").replace(",", " ").split()
    )
