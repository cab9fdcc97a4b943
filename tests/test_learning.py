"""The learning curve: its points are those of runs on fewer texts, and nothing else of the run changes."""

import itertools
import json
import re

import numpy as np
import pytest

from credibly.data import load_splits, read_examples
from credibly.errors import InputError, ProcessError, TrainingError
from credibly.report.figures.learning import learning_curve
from credibly.report.page.html import render_html
from credibly.report.words.learning import what_more_brings
from credibly.runs import Run
from credibly.uncertainty.scoring.resampling import Resampling
from credibly.workflows import distil, fit, make_recipe, plan
from credibly.workflows.steps import learning
from credibly.workflows.steps.learning import part_of
from workshop import jsonl, made_rows, predictions_in, quick

pytestmark = pytest.mark.slow

SHARES = [0.5, 0.25]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("curve")
    return {
        name: jsonl(folder / f"{name}.jsonl", made_rows(rows, seed, noise=0.3))
        for name, rows, seed in (("train", 160, 0), ("test", 60, 1))
    }


@pytest.fixture(scope="module")
def settings(files, standin):
    return quick(standin(), data__test=str(files["test"]), distil__enabled=False)


@pytest.fixture(scope="module")
def curved(files, settings, tmp_path_factory):
    """Return a run with a learning curve."""
    wanted = settings | {"evaluation.learning_curve": SHARES}
    return fit(files["train"], tmp_path_factory.mktemp("curved") / "run", wanted)


@pytest.fixture
def stopping(monkeypatch):
    """Return what makes the parts' trainings end otherwise, one by one, and the sizes of the parts so far."""

    def stop(*endings):
        train, parts = learning.train, []

        def stopped(run, recipe, part, *more):
            train(run, recipe, part, *more)
            parts.append(len(part))
            if len(parts) <= len(endings) and endings[len(parts) - 1]:
                raise endings[len(parts) - 1]

        monkeypatch.setattr(learning, "train", stopped)
        return parts

    return stop


def report_of(run):
    return json.loads(run.report_json.read_text(encoding="utf-8"))


def test_each_point_is_that_of_a_run_on_so_many_texts(curved, files, settings, tmp_path, no_plots):
    points = report_of(curved)["curves"]["learning"]
    texts = len(load_splits(curved.recipe.data, curved.recipe.seed).train)
    assert [point["rows"] for point in points] == [round(0.25 * texts), round(0.5 * texts), texts]
    few = fit(files["train"], tmp_path / "few", settings | {"data.limit": {"train": points[0]["rows"]}})
    for point, run in ((points[0], few), (points[-1], curved)):
        scores = report_of(run)["systems"]["ensemble+temperature"]
        assert {metric: point[metric] for metric in ("accuracy", "nll")} == {
            metric: scores[metric] for metric in ("accuracy", "nll")
        }


def test_nothing_else_of_the_run_changes_and_no_weights_are_kept(curved, files, settings, tmp_path, no_plots):
    plain = fit(files["train"], tmp_path / "plain", settings)
    there, here = (predictions_in(run.path) for run in (plain, curved))
    assert {name: content for name, content in here.items() if not name.startswith("learning")} == there
    assert {name.partition("/")[0] for name in here} == {"members", "learning_0.25", "learning_0.5"}
    weights = [sorted(file.name for file in run.path.rglob("*.safetensors")) for run in (plain, curved)]
    assert len(weights[1]) == len(weights[0]) + 4
    assert report_of(plain)["curves"]["learning"] == []


def test_parts_are_nested_and_hold_each_class_in_its_share(curved):
    train = load_splits(curved.recipe.data, curved.recipe.seed).train
    parts = [part_of(train, share, 3) for share in (0.2, 0.5, 0.8)]
    for few, more in zip(parts, [*parts[1:], train], strict=True):
        assert set(few.ids) < set(more.ids)
    for part in parts:
        shares = np.bincount(part.labels, minlength=3) / len(part)
        assert np.abs(shares - np.bincount(train.labels) / len(train)).max() <= 1 / len(part)
    shuffled = train.take(np.random.default_rng(0).permutation(len(train)))
    assert set(part_of(shuffled, 0.5, 3).ids) == set(parts[1].ids)


def test_a_killed_curve_goes_on_with_what_is_missing(curved, files, settings, tmp_path, stopping, no_plots):
    parts = stopping(None, KeyboardInterrupt())
    wanted = settings | {"evaluation.learning_curve": SHARES}
    with pytest.raises(KeyboardInterrupt):
        fit(files["train"], tmp_path / "run", wanted)
    assert (Run(tmp_path / "run").checkpoints_folder / "learning_0.5" / "members" / "0").is_dir()
    resumed = fit(files["train"], tmp_path / "run", wanted, resume=True)
    assert parts == [parts[0], parts[1], parts[1]]
    assert predictions_in(resumed.path) == predictions_in(curved.path)
    assert not resumed.checkpoints_folder.exists()


def test_a_part_that_cannot_be_learned_is_left_out_and_told(
    curved, files, settings, tmp_path, monkeypatch, stopping, no_plots, caplog
):
    parts = stopping(TrainingError("member 1: no number"), KeyboardInterrupt())
    wanted = settings | {"evaluation.learning_curve": SHARES}
    with pytest.raises(KeyboardInterrupt):
        fit(files["train"], tmp_path / "run", wanted)
    note = f"the learning curve has no point at {parts[0]} texts, where a member cannot be trained: "
    assert f"{note}member 1: no number" in caplog.messages
    resumed = fit(files["train"], tmp_path / "run", wanted, resume=True)
    assert len(parts) == 3
    assert parts[0] < parts[1] == parts[2]
    whole = predictions_in(curved.path)
    assert predictions_in(resumed.path) == {
        name: content for name, content in whole.items() if not name.startswith("learning_0.25")
    }
    monkeypatch.setattr(learning, "train", None)
    student = distil(resumed.path, tmp_path / "student", {"distil.controls": []})
    for run in (resumed, student):
        report = report_of(run)
        kept, all_of_them = report_of(curved)["curves"]["learning"][1:]
        assert report["curves"]["learning"] == [{**kept, "change": None}, all_of_them]
        assert f"{note}member 1: no number" in report["notes"]
        assert not run.checkpoints_folder.exists()


def test_a_part_whose_process_died_is_learned_when_the_run_goes_on(
    curved, files, settings, tmp_path, stopping, no_plots
):
    parts = stopping(ProcessError("killed"))
    wanted = settings | {"evaluation.learning_curve": SHARES}
    with pytest.raises(ProcessError, match="killed"):
        fit(files["train"], tmp_path / "run", wanted)
    resumed = fit(files["train"], tmp_path / "run", wanted, resume=True)
    assert parts[0] == parts[1] < parts[2]
    assert predictions_in(resumed.path) == predictions_in(curved.path)


def test_a_student_of_the_members_keeps_the_curve(curved, tmp_path, monkeypatch, no_plots):
    monkeypatch.setattr(learning, "train", None)
    student = distil(curved.path, tmp_path / "student", {"distil.controls": []})
    assert report_of(student)["curves"]["learning"] == report_of(curved)["curves"]["learning"]


def test_changes_are_paired_and_told(curved):
    train = len(load_splits(curved.recipe.data, curved.recipe.seed).train)
    stored = learning.learned_on_parts(curved, train)
    points = learning_curve(stored, Resampling(200, 0.95, 0))
    assert points[0]["change"] is None
    for before, point in itertools.pairwise(points):
        for metric in ("accuracy", "nll"):
            expected = point[metric]["value"] - before[metric]["value"]
            assert point["change"][metric]["value"] == pytest.approx(expected)
    again = learning_curve({10: stored[train], 20: stored[train]}, Resampling(200, 0.95, 0))
    assert again[1]["change"]["nll"] == {"value": 0, "low": 0, "high": 0}
    (finding,) = what_more_brings({"curves": {"learning": again}})
    assert finding.claim == "What the last of the training texts brought is not beyond the interval."
    lower = {"value": -0.2, "low": -0.3, "high": -0.1}
    again[1]["change"] = {"accuracy": {"value": 0.0, "low": 0.0, "high": 0.0}, "nll": lower}
    assert next(what_more_brings({"curves": {"learning": again}})).sentence.startswith(
        "More training texts still help. From 10 to 20 texts, ensemble+temperature: NLL is lower by 0.200"
    )
    assert list(what_more_brings({"curves": {}})) == []


def test_the_page_draws_the_curve(curved):
    page = render_html(report_of(curved))
    assert "What more texts bring" in page
    assert len(re.findall(r"aria-label=\"(?:accuracy|nll) by training texts\"", page)) == 2


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"evaluation.learning_curve": [0.01, 0.5]}, r"got 0.01: 1 of \d+ texts, and none of class"),
        ({"evaluation.learning_curve": [1.0]}, "less than 1"),
        ({"members.source": "dropout", "evaluation.learning_curve": [0.01]}, "begin with more"),
    ],
)
def test_a_curve_that_cannot_be_had_is_refused_before_anything_is_written(
    files, settings, tmp_path, changed, message
):
    wanted = {name: value for name, value in settings.items() if not name.startswith("members.")}
    with pytest.raises(InputError, match=message):
        fit(files["train"], tmp_path / "run", wanted | {"evaluation.learning_curve": SHARES} | changed)
    assert not (tmp_path / "run").exists()
    with pytest.raises(InputError, match=message):
        plan(files["train"], tmp_path / "run", wanted | {"evaluation.learning_curve": SHARES} | changed)


def test_rows_whose_raters_are_divided_are_no_class_that_a_part_must_hold(tmp_path):
    rows = [
        {"text": f"a film {n}", "bad": 0.2 + 0.6 * (n % 2), "good": 0.8 - 0.6 * (n % 2)} for n in range(99)
    ]
    file = jsonl(tmp_path / "rated.jsonl", [*rows, {"text": "so so", "bad": 0.5, "good": 0.5}])
    rated = {"data.label": None, "data.probabilities": ["bad", "good"], "evaluation.learning_curve": [0.2]}
    recipe = make_recipe(file, rated)
    train = read_examples(file, recipe.data)
    assert set(train.labels) == {-1, 0, 1}
    assert -1 not in part_of(train, 0.2, recipe.seed).labels
    learning.check_learning_curve(recipe, train, tested=True)


def test_a_curve_needs_texts_to_be_scored_on(curved):
    train = load_splits(curved.recipe.data, curved.recipe.seed).train
    learning.check_learning_curve(curved.recipe, train, tested=True)
    with pytest.raises(InputError, match=r"expected a test set beside evaluation\.learning_curve"):
        learning.check_learning_curve(curved.recipe, train, tested=False)


def test_labellers_learn_nothing_so_there_is_no_curve(labels, files, tmp_path, standin):
    wanted = {
        "data.test": str(files["test"]), "data.label": "label", "distil.backbone.name": str(standin()),
        "evaluation.learning_curve": SHARES,
    }  # fmt: skip
    with pytest.raises(InputError, match=r"expected members that are trained, got .*, which are not"):
        distil(labels.path, tmp_path / "run", wanted)
