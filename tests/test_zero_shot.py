"""What a model's label words say before any training stands beside the members that start from there."""

import json
import shutil

import numpy as np
import pytest

import workshop
from credibly.errors import InputError
from credibly.runs import Run
from credibly.settings import parse_recipe
from credibly.uncertainty.calibration.calibrate import Temperature
from credibly.uncertainty.systems import answers
from credibly.workflows import evaluate, fit, load
from credibly.workflows.common.contents import network_systems
from credibly.workflows.common.zero_shot import zero_shot_network
from credibly.workflows.steps import members, zero_shot
from workshop import CLASSES, jsonl, made_rows, quick

WORDS = {"bad": "awful", "good": "fine", "even": "usual"}
TEMPLATE = "film: {text}, this was:"
MEMBERS = {
    "source": "lora", "count": 2, "r": 4, "head": "label_words", "label_words": WORDS,
    "optimiser": {"epochs": 6, "batch_size": 16, "learning_rate": 1e-2},
}  # fmt: skip


@pytest.fixture(scope="module")
def begun(standin, tmp_path_factory):
    """Return the data, the settings and the folder of a finished run, and the model's folder."""
    folder, model = tmp_path_factory.mktemp("zero_shot"), standin("llama", output_layer=True)
    train = jsonl(folder / "train.jsonl", made_rows(120))
    files = {
        "data__test": str(jsonl(folder / "test.jsonl", made_rows(45, seed=1))),
        "data__shift": {"tweets": str(jsonl(folder / "tweets.jsonl", made_rows(30, seed=2)))},
    }
    values = quick(model, data__template=TEMPLATE, distil__enabled=False, **files)
    settings = {key: value for key, value in values.items() if not key.startswith("members.")}
    settings["members"] = MEMBERS
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("credibly.report.render_html", lambda report: "<html></html>")
        fit(train, folder / "run", settings)
    return train, settings, folder / "run", model


def report_in(run):
    return json.loads((run / "report.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("split", "seed", "rows"), [("test", 1, 45), ("tweets", 2, 30)])
def test_zero_shot_is_stored_as_the_language_model_says_it(begun, split, seed, rows):
    stored = Run(begun[2]).load_predictions("zero_shot", split)
    prompts = [TEMPLATE.format(text=row["text"]) for row in made_rows(rows, seed)]
    expected = workshop.next_words(begun[3], prompts, [WORDS[name] for name in stored.class_names])
    np.testing.assert_allclose(stored.log_probs[0], expected, atol=1e-5)


def test_zero_shot_stands_in_every_table_of_the_report(begun):
    report = report_in(begun[2])
    systems = ["zero_shot", "zero_shot+temperature", "single", "ensemble", "ensemble+temperature"]
    assert list(report["systems"])[:5] == systems
    assert list(report["shift"]["tweets"])[:5] == systems
    assert report["shipped"] == "ensemble+temperature"
    before, after = (report["systems"][name] for name in ("zero_shot+temperature", "ensemble+temperature"))
    assert after["accuracy"]["value"] > before["accuracy"]["value"] + 0.2
    assert "Training beats the untrained model's label words." in " ".join(report["findings"])
    assert set(before["classes"]) == set(CLASSES)


def test_zero_shot_costs_no_training_and_the_whole_model(begun):
    costs = report_in(begun[2])["systems"]["zero_shot"]
    assert costs["seconds"]["value"] == 0
    assert costs["bytes"]["value"] == (begun[3] / "model.safetensors").stat().st_size
    assert costs["parameters"]["value"] > 1000
    assert costs["rows_per_second"]["value"] > 0


@pytest.mark.parametrize("system", ["zero_shot", "zero_shot+temperature"])
def test_zero_shot_answers_when_asked_by_name(begun, system):
    run = Run(begun[2])
    stored = run.load_predictions("zero_shot", "test")
    fitted = json.loads(run.calibration_file.read_text(encoding="utf-8"))
    temperature = Temperature.from_json(fitted["zero_shot+temperature"])
    expected = answers(system, stored, {"zero_shot+temperature": temperature})[0]
    found = load(begun[2], system).answer(made_rows(45, seed=1))
    np.testing.assert_allclose(found.probs, expected.probs, atol=1e-5)
    assert found.uncertainty.epistemic.max() == 0
    assert load(begun[2]).system == "ensemble+temperature"


def test_evaluating_the_test_rows_gives_the_runs_own_zero_shot_figures(begun, no_plots):
    again = evaluate(begun[2], begun[2].parent / "test.jsonl")["systems"]
    own = report_in(begun[2])["systems"]
    for system in ("zero_shot", "zero_shot+temperature"):
        for metric in ("accuracy", "nll", "ece_debiased"):
            assert again[system][metric]["value"] == pytest.approx(own[system][metric]["value"], abs=1e-5)


@pytest.mark.slow
def test_a_run_stopped_after_zero_shot_goes_on_without_asking_again(begun, tmp_path, no_plots, monkeypatch):
    train, settings, run, _ = begun
    with monkeypatch.context() as patch:
        patch.setattr(members, "train", None)
        with pytest.raises(TypeError):
            fit(train, tmp_path / "run", settings)
    monkeypatch.setattr(zero_shot, "zero_shot_network", None)
    fit(train, tmp_path / "run", settings, resume=True)
    assert workshop.predictions_in(tmp_path / "run") == workshop.predictions_in(run)


def test_words_that_do_not_fit_are_told_before_an_old_run_is_replaced(begun, standin, tmp_path):
    train, settings, run, _ = begun
    old = shutil.copytree(run, tmp_path / "old")
    before = sorted(file for file in old.rglob("*"))
    for wrong in (
        {"members": {**MEMBERS, "label_words": {"bad": "awful"}}},
        {"backbone.name": str(standin("bert"))},
        {"backbone.name": str(standin("llama"))},
    ):
        with pytest.raises(InputError, match=r"members\.(label_words|head)"):
            fit(train, old, {**settings, **wrong}, overwrite=True)
    assert sorted(file for file in old.rglob("*")) == before


def test_of_a_mixed_ensemble_the_part_that_starts_from_words_answers(begun, standin):
    words = {"head": "label_words", "label_words": WORDS}
    parts = [
        {"members": {"source": "lora", "count": 1}},
        {"backbone": {"name": str(begun[3]), "precision": "fp32"}, "members": {"source": "full", **words}},
    ]
    recipe = parse_recipe(
        {
            "data": {"train": "unused"},
            "backbone": {"name": str(standin("bert"))},
            "members": {"source": "mixed", "parts": parts},
        }
    )
    assert network_systems(recipe)[0] == "zero_shot"
    found = zero_shot_network(recipe, CLASSES).logits(["film: good:"])
    expected = workshop.next_words(begun[3], ["film: good:"], [WORDS[name] for name in CLASSES])
    np.testing.assert_allclose(found - found.max(), expected - expected.max(), atol=1e-5)


def test_linear_heads_have_no_zero_shot():
    recipe = parse_recipe({"data": {"train": "unused"}, "members": {"source": "full"}})
    assert "zero_shot" not in network_systems(recipe)
