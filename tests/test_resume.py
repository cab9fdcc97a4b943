"""A run that was stopped goes on to the same end, and an existing one is replaced only where asked."""

import json
from pathlib import Path

import pytest
import torch

import credibly.report
from credibly.errors import AssetError, CrediblyError, InputError, RunFolderError
from credibly.runs import Run
from credibly.workflows import fit
from test_workflows import COSTS, METRICS, report_in
from workshop import jsonl, made_rows, predictions_in, quick

pytestmark = pytest.mark.slow

# Interrupted and resumed

SMALL = {
    "members__optimiser__epochs": 2,
    "distil__optimiser__epochs": 1,
    "evaluation__resamples": 2,
    "distil__controls": ["direct"],
}
STAGES = [
    "embedding train", "training 3 heads", "predicting with the members", "running the frozen trunk",
    "tuning direct", "predicting with direct", "tuning student",
    "predicting with student", "embedding a reference", "scoring with intervals",
]  # fmt: skip
FEW = ("training 3 heads", "tuning student")
"""Where the fast part stops a run; it is also stopped at every file in turn."""


def small(folder, model):
    """Return what to call `fit` with, but for the output."""
    data = jsonl(folder / "a.jsonl", made_rows(60))
    unlabelled = jsonl(folder / "u.jsonl", [{"text": row["text"]} for row in made_rows(12, 5)])
    return data, quick(model, **SMALL, data__unlabelled=str(unlabelled))


@pytest.fixture(scope="module")
def uninterrupted(standin, tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    source, settings = small(folder, standin())
    told = []

    def stages(name):
        told.append(name)
        return lambda done, total: None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(credibly.report, "render_html", lambda content: "<html></html>")
        run = fit(source, folder / "whole", settings, stages=stages)
    assert told == STAGES
    return source, settings, run.path


def stopping_at(stage):
    def stages(name):
        if name == stage:
            raise KeyboardInterrupt
        return lambda done, total: None

    return stages


def same_run(first, second):
    assert predictions_in(first) == predictions_in(second)
    for name in (
        "calibration.json",
        "shift/reference.safetensors",
        "student/model.safetensors",
        "members/2/model.safetensors",
    ):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    reports = [report_in(folder) for folder in (first, second)]
    values = [
        {name: {m: system[m] for m in METRICS} for name, system in content["systems"].items()}
        for content in reports
    ]
    assert values[0] == values[1]
    for system in reports[0]["systems"].values():
        assert all(system[cost]["value"] > 0 for cost in COSTS)


@pytest.mark.parametrize(
    "stage", [stage if stage in FEW else pytest.param(stage, marks=pytest.mark.slow) for stage in STAGES]
)
def test_a_run_stopped_at_any_stage_goes_on_to_the_same_end(uninterrupted, tmp_path, no_plots, stage):
    source, settings, whole = uninterrupted
    with pytest.raises(KeyboardInterrupt):
        fit(source, tmp_path / "run", settings, stages=stopping_at(stage))
    assert not Run(tmp_path / "run").finished
    with pytest.raises(RunFolderError, match="an unfinished run; give --resume"):
        fit(source, tmp_path / "run", settings)
    run = fit(source, tmp_path / "run", settings, resume=True)
    assert run.finished
    same_run(run.path, whole)


@pytest.mark.slow
def test_a_run_stopped_at_every_file_in_turn_goes_on_to_the_same_end(
    uninterrupted, tmp_path, no_plots, monkeypatch
):
    """Each try is stopped one file later than the last, so every file is once the one not written."""
    source, settings, whole = uninterrupted
    real, tried, stops = Path.replace, set(), 0

    def stopping(path, target):
        # Costs are written again and again, each time with more figures.
        costs = json.loads(path.read_text(encoding="utf-8")) if target.name == "costs.json" else {}
        written = (target, json.dumps({name: sorted(figures) for name, figures in costs.items()}))
        if written not in tried:
            tried.add(written)
            raise KeyboardInterrupt
        return real(path, target)

    monkeypatch.setattr(Path, "replace", stopping)
    while True:
        try:
            run = fit(source, tmp_path / "run", settings, resume=True)
            break
        except KeyboardInterrupt:
            stops += 1
    # Both networks' folders, of five files each, are moved as one; costs are written three times; the
    # manifest is not among its own files. Members and networks leave a checkpoint an epoch.
    recipe = Run(whole).recipe
    epochs = recipe.members.optimiser.epochs + 2 * recipe.distil.optimiser.epochs
    assert stops == len(Run(whole).manifest["files"]) - 2 * 4 + 2 + 1 + epochs
    same_run(run.path, whole)
    assert list(run.path.rglob(".*")) == []


def test_a_full_disk_stops_a_run_that_then_goes_on(uninterrupted, tmp_path, no_plots, monkeypatch):
    source, settings, whole = uninterrupted
    real = Path.write_bytes

    def full(path, content):
        if "student" in str(path):
            raise OSError(28, "No space left on device")
        return real(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(CrediblyError, match=r"no room on the disk for .*student.*--resume"):
        fit(source, tmp_path / "run", settings)
    monkeypatch.setattr(Path, "write_bytes", real)
    same_run(fit(source, tmp_path / "run", settings, resume=True).path, whole)


def test_a_run_is_not_resumed_with_another_recipe(uninterrupted, tmp_path):
    source, settings, _ = uninterrupted
    with pytest.raises(KeyboardInterrupt):
        fit(source, tmp_path / "run", settings, stages=stopping_at("embedding train"))
    with pytest.raises(
        RunFolderError, match=r"began with other settings of members, seed; go on with: credibly fit"
    ):
        fit(source, tmp_path / "run", {**settings, "seed": 3, "members.count": 2}, resume=True)


def test_a_run_is_not_resumed_with_changed_data(tmp_path, standin, no_plots):
    source, settings = small(tmp_path, standin())
    with pytest.raises(KeyboardInterrupt):
        fit(source, tmp_path / "run", settings, stages=stopping_at("tuning direct"))
    jsonl(source, made_rows(60)[:-1])
    with pytest.raises(
        RunFolderError, match="began with other data than the files hold now; give --overwrite"
    ):
        fit(source, tmp_path / "run", settings, resume=True)
    jsonl(source, made_rows(60))
    assert fit(source, tmp_path / "run", settings, resume=True).finished


def test_a_resumed_run_goes_on_with_the_precision_and_threads_it_began_with(
    uninterrupted, tmp_path, no_plots
):
    source, settings, whole = uninterrupted
    with pytest.raises(KeyboardInterrupt):
        fit(source, tmp_path / "run", settings, stages=stopping_at("tuning direct"))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        run = fit(source, tmp_path / "run", {**settings, "backbone.precision": "bf16"}, resume=True)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(threads)
    same_run(run.path, whole)


def test_a_finished_run_is_reused_and_not_trained_again(uninterrupted):
    source, settings, whole = uninterrupted
    before = {file: file.stat().st_mtime_ns for file in whole.rglob("*")}

    def stages(name):
        raise AssertionError(f"began with {name}")

    assert fit(source, whole, settings, resume=True, stages=stages).path == whole
    assert {file: file.stat().st_mtime_ns for file in whole.rglob("*")} == before
    with pytest.raises(RunFolderError, match="other settings of evaluation"):
        fit(source, whole, {**settings, "evaluation.resamples": 3}, resume=True)


def test_a_new_run_is_begun_where_there_is_none_to_resume(uninterrupted, tmp_path, no_plots):
    source, settings, whole = uninterrupted
    same_run(fit(source, tmp_path / "run", settings, resume=True).path, whole)


# An existing run


@pytest.fixture
def old(tmp_path, uninterrupted):
    import shutil

    shutil.copytree(uninterrupted[2], tmp_path / "old")
    return tmp_path / "old"


def content_of(folder):
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"data.train": "nowhere.jsonl"}, InputError),
        ({"data.label": "lable"}, InputError),
        ({"members.count": 1000}, InputError),
        ({"member.count": 1}, InputError),
        ({"backbone.name": "minilmm"}, AssetError),
        ({"backbone.name": "/nowhere/model"}, AssetError),
        ({"distil.blocks": 9}, InputError),
    ],
)
def test_an_old_run_stays_whole_where_the_new_one_cannot_begin(uninterrupted, old, wrong, error):
    source, settings, _ = uninterrupted
    before = content_of(old)
    with pytest.raises(error):
        fit(source, old, {**settings, **wrong}, overwrite=True)
    assert content_of(old) == before


def test_too_many_blocks_are_told_before_anything_is_trained(uninterrupted, tmp_path):
    source, settings, _ = uninterrupted
    with pytest.raises(
        InputError, match=r"expected distil.blocks from 1 to 3, .* got 9; tune fewer, or the whole"
    ):
        fit(source, tmp_path / "run", {**settings, "distil.blocks": 9})
    assert not (tmp_path / "run").exists()


def test_an_old_run_is_replaced_where_asked(uninterrupted, old, no_plots):
    source, settings, _ = uninterrupted
    (old / "notes.txt").write_text("mine", encoding="utf-8")
    run = fit(source, old, {**settings, "distil.enabled": False, "seed": 9}, overwrite=True)
    assert not (old / "student").exists()
    assert not (old / "predictions" / "student").exists()
    assert (old / "notes.txt").read_text(encoding="utf-8") == "mine"
    assert sorted(folder.name for folder in run.members_folder.iterdir()) == ["10", "11", "9"]
    assert run.finished


@pytest.mark.parametrize("broken", ["a.csv", "run"])
def test_a_folder_that_is_no_run_is_left_alone(uninterrupted, tmp_path, broken):
    source, settings, _ = uninterrupted
    folder = tmp_path / broken
    folder.mkdir()
    (folder / "thesis.txt").write_text("years", encoding="utf-8")
    for asked in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(RunFolderError, match="is not a run folder"):
            fit(source, folder, settings, **asked)
    assert content_of(folder) == {folder / "thesis.txt": b"years"}
