"""The run folder: files whole or not at all, the manifest last, damage noticed, nothing of others removed."""

import errno
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from subprocess import PIPE, Popen

import numpy as np
import pytest

from credibly import locks
from credibly.errors import InputError, RunBusyError, RunFolderError
from credibly.records import Examples, Predictions
from credibly.runs import (
    Run,
    predictions_bytes,
    read_predictions,
    sha256,
    write_bytes,
    write_json,
    write_text,
)
from credibly.settings import parse_recipe
from credibly.workflows import evaluate, fit, label, recalibrate
from credibly.workflows.common.contents import class_names_of
from credibly.workflows.evaluating.runs import histories_of
from workshop import CLASSES, jsonl, made_rows, quick

RECIPE = parse_recipe({"data": {"train": "a.csv"}})


def predictions(seed=0, M=2):
    generator = np.random.default_rng(seed)
    examples = Examples(
        ids=("plain", "日本語-1", "emoji 🙂", 'quote " \\ \n\x00'),
        texts=("a", "b", "c", "d"),
        class_names=("neg", "пол"),
        labels=np.array([0, 1, -1, 0]),
        label_probs=np.array([[0.7, 0.3], [0.0, 1.0], [0.5, 0.5], [1.0, 0.0]]),
    )
    return Predictions.from_logits(generator.normal(size=(M, 4, 2)), examples, source="heads", note="é")


def dirichlet():
    examples = Examples(("a", "b"), ("x", "y"), ("no", "yes"), np.array([1, 0]))
    return Predictions.from_log_concentrations([[0.3, 2.0], [-1.0, 4.0]], examples)


def grouped():
    return replace(predictions(), groups=np.array([3, 0, 3, 1]))


def begun(folder):
    run = Run(folder / "run")
    run.begin(RECIPE)
    return run


def finished(folder):
    run = begun(folder)
    run.save_predictions("members", "test", predictions())
    run.finish({"seeds": [0]})
    return run


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def same(first: Predictions, second: Predictions) -> bool:
    arrays = ("log_probs", "labels", "label_probs", "concentrations", "groups")
    return all(
        np.array_equal(getattr(first, name), getattr(second, name))
        and getattr(getattr(first, name), "dtype", None) == getattr(getattr(second, name), "dtype", None)
        for name in arrays
    ) and (first.ids, first.class_names, first.provenance) == (
        second.ids,
        second.class_names,
        second.provenance,
    )


# Predictions


@pytest.mark.parametrize("record", [predictions(), predictions(M=1), dirichlet(), grouped()])
def test_predictions_come_back_as_they_were(tmp_path, record):
    run = begun(tmp_path)
    run.save_predictions("members", "test", record)
    assert same(run.load_predictions("members", "test"), record)
    assert run.splits_of("members") == ["test"]
    assert run.splits_of("student") == []


def test_equal_predictions_make_equal_bytes():
    assert predictions_bytes(predictions()) == predictions_bytes(predictions())
    assert predictions_bytes(predictions()) != predictions_bytes(predictions(seed=1))


@pytest.mark.parametrize("damage", [b"", b"not safetensors", None])
def test_a_file_that_holds_no_predictions_is_told(tmp_path, damage):
    file = tmp_path / "x.safetensors"
    whole = predictions_bytes(predictions())
    write_bytes(file, whole[: len(whole) // 2] if damage is None else damage)
    with pytest.raises(
        RunFolderError, match=r"x.safetensors is damaged or not a predictions file .*--overwrite"
    ):
        read_predictions(file)


def test_weights_are_no_predictions(tmp_path):
    from safetensors.numpy import save

    write_bytes(tmp_path / "w.safetensors", save({"weight": np.zeros(3)}))
    with pytest.raises(RunFolderError, match="not a predictions file"):
        read_predictions(tmp_path / "w.safetensors")


# Finished, damaged, of another version


def test_a_run_is_finished_once_its_manifest_stands_and_not_before(tmp_path):
    run = begun(tmp_path)
    assert not run.finished
    with pytest.raises(RunFolderError, match="is unfinished"):
        Run.open(run.path)
    run.finish({})
    assert Run.open(run.path).finished


def test_the_advice_for_an_unfinished_run_names_its_own_folder(tmp_path):
    run = begun(tmp_path)
    with pytest.raises(RunFolderError) as caught:
        Run.open(run.path)
    assert f"credibly fit {run.recipe_file} --output {run.path} --resume" in str(caught.value)


def test_the_manifest_holds_every_file_and_is_written_after_them(tmp_path, monkeypatch):
    run = begun(tmp_path)
    run.save_predictions("members", "test", predictions())
    write_text(run.member_folder(3) / "history.jsonl", "{}\n")
    left_by_a_kill = run.path / ".student.123"
    left_by_a_kill.mkdir()
    (left_by_a_kill / "model.safetensors").touch()
    run.finish({"seeds": [3]})
    manifest = run.manifest
    assert manifest["format_version"] == 1
    assert manifest["seeds"] == [3]
    assert manifest["files"] == {
        name: sha256(run.path / name)
        for name in ("recipe.yaml", "members/3/history.jsonl", "predictions/members/test.safetensors")
    }


def test_what_others_put_into_a_run_is_not_the_runs(tmp_path):
    run = begun(tmp_path)
    write_text(run.path / "to_label.csv", "id,text\n")
    run.finish({})
    assert list(run.manifest["files"]) == ["recipe.yaml"]
    # Earlier manifests name it; it may change, and the run goes on all the same.
    write_json(run.manifest_file, {**run.manifest, "files": {**run.manifest["files"], "to_label.csv": "0"}})
    run.take_up(run.recipe)
    assert (run.path / "to_label.csv").is_file()


def test_what_a_killed_process_left_hidden_is_not_taken_for_damage(tmp_path):
    run = begun(tmp_path)
    write_text(run.member_folder(3) / "history.jsonl", "{}\n")
    write_text(run.members_folder / ".4.123" / "history.jsonl", "{}\n")
    run.finish({})
    assert run.check_folder(run.members_folder) == run.members_folder
    assert list(histories_of(run)) == ["members/3"]


def test_of_two_processes_that_claim_a_folder_the_second_does_not_replace_the_firsts_run(tmp_path):
    first, second = (Run.claim(tmp_path / "run") for _ in range(2))
    first.begin(begun(tmp_path / "other").recipe)
    write_text(first.member_folder(0) / "history.jsonl", "{}\n")
    with pytest.raises(RunFolderError, match="was begun by another process meanwhile; give another --output"):
        second.begin(first.recipe)
    assert first.member_folder(0).is_dir()
    with pytest.raises(RunFolderError, match="holds an unfinished run"):
        Run.claim(tmp_path / "run")
    again = Run.claim(tmp_path / "run", overwrite=True)
    again.begin(first.recipe)
    assert not first.member_folder(0).exists()


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    file = tmp_path / "data.csv"
    file.touch()
    with pytest.raises(RunFolderError, match=r"data.csv/run cannot be written: .*data.csv is no folder"):
        Run.claim(file / "run")
    with pytest.raises(InputError, match=r"data.csv/page.html cannot be written \(.*\); name a place"):
        write_text(file / "page.html", "")


def test_a_manifest_that_cannot_be_written_leaves_the_run_unfinished(tmp_path, monkeypatch):
    run = begun(tmp_path)
    with pytest.raises(ValueError, match="JSON compliant"):
        run.finish({"fact": float("inf")})
    assert not run.finished


def test_sha256_is_that_of_the_content(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_one_changed_byte_in_a_finished_run_is_noticed(tmp_path):
    run = finished(tmp_path)
    file = run.predictions_file("members", "test")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(RunFolderError, match=r"test.safetensors is damaged: its sha256 .*--overwrite"):
        run.load_predictions("members", "test")


def test_a_missing_file_is_told(tmp_path):
    run = finished(tmp_path)
    run.predictions_file("members", "test").unlink()
    with pytest.raises(RunFolderError, match=r"test.safetensors is missing"):
        run.load_predictions("members", "test")


def test_a_run_of_another_format_version_is_refused(tmp_path):
    run = finished(tmp_path)
    write_json(run.manifest_file, {**run.manifest, "format_version": 2})
    with pytest.raises(RunFolderError, match=r"has run format 2; this version of credibly reads format 1"):
        Run.open(run.path)


@pytest.mark.parametrize(
    "content", ["{", "", "[]", "{}", '{"format_version": 1}', '{"format_version": 1, "files": 3}']
)
def test_a_damaged_manifest_is_told(tmp_path, content):
    run = finished(tmp_path)
    run.manifest_file.write_text(content, encoding="utf-8")
    with pytest.raises(RunFolderError, match=r"manifest.json"):
        Run.open(run.path).load_predictions("members", "test")


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir(), lambda path: path.touch()])
def test_what_is_no_run_cannot_be_opened(tmp_path, make):
    make(tmp_path / "other")
    with pytest.raises(RunFolderError, match=r"there is no recipe\.yaml in it"):
        Run.open(tmp_path / "other")


# Claiming a folder


def test_a_new_or_empty_folder_can_be_claimed_and_is_left_alone(tmp_path):
    assert Run.claim(tmp_path / "new").path == tmp_path / "new"
    assert not (tmp_path / "new").exists()
    (tmp_path / "empty").mkdir()
    Run.claim(tmp_path / "empty")
    assert names_in(tmp_path / "empty") == []


@pytest.mark.parametrize("asked", [{}, {"resume": True}, {"overwrite": True}])
def test_a_run_killed_while_its_recipe_was_first_written_can_be_claimed(tmp_path, asked):
    (tmp_path / ".recipe.yaml.4711").write_text("backb", encoding="utf-8")
    Run.claim(tmp_path, **asked).begin(RECIPE)
    assert Run(tmp_path).recipe == RECIPE
    (tmp_path / "other" / ".git").mkdir(parents=True)
    with pytest.raises(RunFolderError, match="is not a run folder"):
        Run.claim(tmp_path / "other", **asked)


@pytest.mark.parametrize("asked", [{"resume": True}, {"overwrite": True}])
def test_a_run_that_a_process_works_on_is_left_to_it(tmp_path, asked):
    run = begun(tmp_path)
    second = Run.claim(run.path, **asked)  # as by a process that comes before the first one's lock
    with run.alone():
        with pytest.raises(RunFolderError, match=r"another process works on .*; wait for it, or stop it, or"):
            Run.claim(run.path, **asked)
        with pytest.raises(RunFolderError, match="another process works on"), second.alone():
            pass
    Run.claim(run.path, **asked)


def test_a_run_that_goes_on_is_not_replaced_by_one_that_was_claimed_before(tmp_path):
    run = begun(tmp_path)
    write_text(run.member_folder(3) / "history.jsonl", "{}\n")
    second = Run.claim(run.path, overwrite=True)
    with run.alone():
        with run.alone():
            pass  # as where a step takes the run up while another holds it for the same process
        for change in (second.begin, second.take_up):
            with pytest.raises(RunFolderError, match="another process works on"):
                change(run.recipe)
    assert run.member_folder(3).is_dir()


def test_the_lock_of_what_is_no_run_is_left_alone(tmp_path):
    (tmp_path / ".lock").write_text("another tool's", encoding="utf-8")
    (tmp_path / "code.py").touch()
    with pytest.raises(RunFolderError, match="is not a run folder"):
        Run.claim(tmp_path, overwrite=True)
    assert (tmp_path / ".lock").read_text(encoding="utf-8") == "another tool's"


def test_a_killed_process_lets_go_of_its_run(tmp_path):
    run = begun(tmp_path)
    code = (
        "import sys; from credibly.runs import Run\nwith Run(sys.argv[1]).alone(): print(flush=True); input()"
    )
    with Popen([sys.executable, "-c", code, run.path], stdin=PIPE, stdout=PIPE) as process:
        process.stdout.readline()
        with pytest.raises(RunFolderError, match="another process works on"):
            Run.claim(run.path, resume=True)
        process.kill()
        process.wait()
    Run.claim(run.path, resume=True)
    run.finish({})
    assert ".lock" not in run.manifest["files"]


def test_a_lock_that_was_removed_meanwhile_is_no_lock(tmp_path, monkeypatch):
    """A process that opened the file before its holder removed it holds a file of no name."""
    run, removed = begun(tmp_path), []

    def late(handle):
        if not removed:
            removed.append(run.lock.file.unlink())
        return False

    monkeypatch.setattr(locks, "_held_by_another", late)
    with run.alone():
        assert run.lock.file.exists()
    assert not run.lock.file.exists()


@pytest.mark.parametrize(("make", "state"), [(begun, "an unfinished run"), (finished, "a finished run")])
def test_an_existing_run_is_refused_unless_asked_for(tmp_path, make, state):
    run = make(tmp_path)
    with pytest.raises(RunFolderError, match=f"holds {state}; give --resume .* --overwrite .* --output"):
        Run.claim(run.path)
    for asked in ({"resume": True}, {"overwrite": True}):
        assert Run.claim(run.path, **asked).finished == run.finished
        assert run.recipe_file.is_file()


def test_a_folder_of_other_things_is_never_taken(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work", encoding="utf-8")
    for asked in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(RunFolderError, match="is not a run folder; choose another --output"):
            Run.claim(tmp_path, **asked)
        with pytest.raises(RunFolderError, match="is not a run folder"):
            Run.claim(tmp_path / "thesis.tex", **asked)


def test_beginning_anew_removes_what_a_run_writes_and_nothing_else(tmp_path):
    run = finished(tmp_path)
    for file in (run.report_json, run.report_html, run.calibration_file, run.costs_file):
        file.touch()
    for folder in (
        run.member_folder(0),
        run.model_folder("direct"),
        run.model_folder("student"),
        run.export_folder,
    ):
        folder.mkdir(parents=True)
        (folder / "model.safetensors").touch()
    (run.path / "notes.txt").write_text("mine", encoding="utf-8")
    (run.path / "figures").mkdir()
    run.begin(RECIPE)
    assert names_in(run.path) == ["figures", "notes.txt", "recipe.yaml"]
    assert run.recipe == RECIPE


def test_beginning_anew_takes_the_manifest_away_first(tmp_path, monkeypatch):
    """So that a run whose removal is interrupted does not look finished."""
    run = finished(tmp_path)
    removed = []
    real = Path.unlink
    monkeypatch.setattr(
        Path, "unlink", lambda path, missing_ok=False: (removed.append(path.name), real(path, missing_ok))[1]
    )
    run.begin(RECIPE)
    assert removed[0] == "manifest.json"


def test_old_weights_that_cannot_be_removed_are_not_taken_for_new_ones(tmp_path, monkeypatch):
    run = finished(tmp_path)

    def refused(path, ignore_errors=False):
        if not ignore_errors:
            raise PermissionError(errno.EACCES, "permission denied", str(path))

    monkeypatch.setattr("shutil.rmtree", refused)
    with pytest.raises(OSError, match="permission denied"):
        run.begin(RECIPE)
    assert not run.finished


def test_the_table_of_names():
    run = Run("r")
    assert run.model_folder("student") == Path("r/student")
    assert run.model_folder("direct") == Path("r/models/direct")
    assert run.member_folder(7) == Path("r/members/7")
    assert run.predictions_file("members", "test") == Path("r/predictions/members/test.safetensors")


def test_classes_are_those_of_the_calibration_record_and_a_missing_one_is_told(
    fitted, labels, tmp_path, monkeypatch
):
    read, load_predictions = [], Run.load_predictions

    def noted(run, system, split):
        read.append((system, split))
        return load_predictions(run, system, split)

    monkeypatch.setattr(Run, "load_predictions", noted)
    run = Run(shutil.copytree(fitted.run, tmp_path / "run"))
    # A shift set may have any name and any number of rows.
    shutil.copy(run.predictions_file("members", "papers"), run.predictions_file("members", "a-large-one"))
    assert set(class_names_of(run)) == set(class_names_of(labels)) == set(CLASSES)
    assert read == [("members", "calibration"), ("members", "unlabelled")]
    shutil.rmtree(run.predictions_folder / "members")
    with pytest.raises(RunFolderError, match=r"members/calibration\.safetensors is missing"):
        evaluate(run.path, fitted.test)


@pytest.mark.slow
def test_every_work_on_a_run_holds_it(standin, tmp_path, no_plots):
    """While fit, label and calibrate predict and score, nobody else may take up or replace their run."""

    def held(path):
        def stages(name):
            def told(done, total):
                if (path / ".lock").exists():
                    with pytest.raises(RunBusyError):
                        Run.claim(path, resume=True)
                    seen.add(name)

            return told

        seen = set()
        return seen, stages

    data, fitted = jsonl(tmp_path / "rows.jsonl", made_rows(90)), tmp_path / "fitted"
    seen, stages = held(fitted)
    fit(data, fitted, quick(standin()), stages=stages)
    assert seen
    seen, stages = held(fitted)
    recalibrate(fitted, "vector", stages=stages)
    assert seen
    settings = {
        "backbone.name": str(standin("llama", output_layer=True)), "backbone.precision": "fp32",
        "members.count": 1, "members.templates": ["so: {text} was:"],
        "labelling.classes": list(CLASSES), "labelling.lowest_mass": 0,
    }  # fmt: skip
    seen, stages = held(tmp_path / "labelled")
    label(data, tmp_path / "labelled", settings, stages=stages)
    assert seen
