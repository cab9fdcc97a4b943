"""The command line: failures and bad input, each told with its place and its fix; plans and shift."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from credibly import workflows
from credibly.runs import Run, write_json
from workshop import CLASSES, jsonl, made_rows

STOPPED = "stopped; the same command goes on from here, or says how (fit, label and distil: with --resume)"

# Failures


@pytest.mark.parametrize(
    ("raised", "code", "told"),
    [
        (KeyboardInterrupt(), 130, STOPPED),
        (MemoryError(), 1, "out of memory; lower backbone.token_budget"),
    ],
)
def test_what_stops_a_command_is_told_without_a_traceback(command, monkeypatch, raised, code, told):
    def stopped(*given, **named):
        raise raised

    monkeypatch.setattr(workflows, "fit", stopped, raising=False)
    printed = command("fit", "a.csv")
    assert (printed.code, printed.out) == (code, "")
    assert told in printed.err
    assert "Traceback" not in printed.err


def test_a_failure_of_ours_is_not_hidden(command, monkeypatch):
    def broken(*given, **named):
        raise ZeroDivisionError("a fault")

    monkeypatch.setattr(workflows, "fit", broken, raising=False)
    with pytest.raises(ZeroDivisionError):
        command("fit", "a.csv")


def test_a_training_that_fails_is_exit_code_one(command, fit_options, tmp_path):
    data = jsonl(tmp_path / "a.jsonl", made_rows(60))
    wild = ("--set", "members.optimiser.learning_rate=1e30")
    printed = command("fit", data, "--output", tmp_path / "run", *fit_options, *wild)
    assert (printed.code, printed.out) == (1, "")
    for seed in (0, 1, 2):
        assert f"member {seed}: the loss" in printed.err
    assert "lower the learning rate" in printed.err


@pytest.mark.slow
def test_ctrl_c_stops_cleanly_and_the_run_goes_on(command, fit_options, tmp_path, no_plots):
    data = jsonl(tmp_path / "a.jsonl", made_rows(60))
    arguments = ["fit", data, "--output", tmp_path / "run", *fit_options]
    arguments += ["--set", "distil.optimiser.epochs=20000"]
    program = "from credibly.cli import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Where the tests themselves run in the background, Ctrl-C is ignored, and a child inherits that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        for _ in range(600):
            if (tmp_path / "run" / "predictions" / "members" / "test.safetensors").is_file():
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        try:
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, out) == (130, "")
    assert err.strip().endswith(f"credibly: {STOPPED}")
    assert not Run(tmp_path / "run").finished
    told = command("predict", tmp_path / "run", data)
    assert told.code == 2
    assert f"credibly fit {tmp_path / 'run' / 'recipe.yaml'} --output {tmp_path / 'run'} --resume" in told.err


# Bad input, each told by file, line or column, with the fix


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


GOOD = lines(*made_rows(60))
ONE, TWO = {"text": "good film", "label": "good"}, {"text": "bad film", "label": "bad"}

P = ["--probabilities", "p.a", "--probabilities", "p.b"]

BAD_FILES = {
    "empty file": ("", [], "a.jsonl: expected rows, got an empty file"),
    "missing column": (GOOD, ["--label", "lable"], "a.jsonl:1: .*'lable'.*did you mean 'label'.* data.label"),
    "missing text column": (GOOD, ["--text", "review"], "a.jsonl:1: .*'review'.*columns are .*data.text"),
    "one class only": (lines(ONE, ONE), [], "a.jsonl: expected two classes.* 'label', got only 'good'; add"),
    "several labels": (lines(ONE, {**TWO, "label": ["a"]}), [], "a.jsonl:2: column 'label' .*multi-label is"),
    "empty text": (lines(ONE, {**TWO, "text": " "}), [], "a.jsonl:2: column 'text' is empty; fill or remove"),
    "no string": (lines(ONE, {**TWO, "text": 5}), [], "a.jsonl:2: .*'text' holds a number 5; .* be a string"),
    "missing label": (
        lines(ONE, {"text": "x", "label": None}),
        [],
        "a.jsonl:2: .*'label' has no label; fill",
    ),
    "no JSON": (lines(ONE) + "{text\n", [], "a.jsonl:2: expected one JSON object a line, got broken JSON"),
    "invalid UTF-8": (
        lines(ONE).encode() + b'{"text": "caf\xe9", "label": "bad"}\n',
        [],
        "a.jsonl:2: .*UTF-8, got 0xe9 at byte 14 of the line; save the file as UTF-8",
    ),
    "NaN in probabilities": (
        '{"text": "a", "p.a": NaN, "p.b": 0.5}\n',
        P,
        "a.jsonl:1: column 'p.a' holds nan; .*numbers from 0 to 1",
    ),
    "probabilities that do not sum to one": (
        '{"text": "a", "p.a": 0.9, "p.b": 0.5}\n',
        P,
        "a.jsonl:1: columns 'p.a', 'p.b' sum to 1.4; .*must sum to one",
    ),
    "fewer rows than members": (GOOD, ["--members", "500"], r"as many rows .*\(500\).* take fewer members"),
    "fewer rows than classes": (lines(ONE, TWO), [], "a.jsonl: expected 2 rows or more of every class"),
    "duplicate ids": (
        lines({**ONE, "key": "k1"}, {**TWO, "key": "k1"}),
        ["--id", "key"],
        "a.jsonl:2: id 'k1' stands already at .*a.jsonl:1; ids must differ",
    ),
    "an unknown key": (GOOD, ["--set", "members.cuont=3"], "key members.cuont .did you mean 'count'"),
    "no YAML": (GOOD, ["--set", "members.count=["], r"--set members.count: expected a value .*, got '\['"),
    "no value": (GOOD, ["--set", "members.count"], "expected --set KEY=VALUE, got 'members.count'"),
    "a key below a value": (GOOD, ["--set", "seed.x=1", "--seed", "3"], "seed.x: seed is a value"),
    "a shift set without name": (GOOD, ["--shift", "a.jsonl"], "expected --shift NAME=FILE, got 'a.jsonl'"),
    "no shift file": (GOOD, ["--shift", "x=nowhere.jsonl"], "a data file at nowhere.jsonl; there is none"),
    "too many blocks": (GOOD, ["--set", "distil.blocks=8"], "distil.blocks from 1 to 3, .*tune fewer"),
    "an unknown source": (GOOD, ["--source", "loar"], "members.source: .* got 'loar'"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_input_to_fit_is_told_with_place_and_fix(command, tmp_path, standin, case):
    content, options, told = BAD_FILES[case]
    file = tmp_path / "a.jsonl"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    printed = command("fit", file, "--backbone", standin(), "--output", tmp_path / "run", *options)
    assert (printed.code, printed.out) == (2, "")
    assert re.search(told, printed.err), printed.err
    assert printed.err.startswith("credibly: ")
    assert "Traceback" not in printed.err
    assert not (tmp_path / "run").exists()


def test_a_missing_file_is_told_with_the_nearest(command, tmp_path):
    jsonl(tmp_path / "reviews.jsonl", made_rows(3))
    printed = command("fit", tmp_path / "review.jsonl", "--output", tmp_path / "run")
    assert printed.code == 2
    assert "there is none (did you mean 'reviews.jsonl'?)" in printed.err


def test_an_unknown_model_is_told_with_the_nearest(command, tmp_path):
    data = jsonl(tmp_path / "a.jsonl", made_rows(60))
    printed = command("fit", data, "--backbone", "minilmm", "--output", tmp_path / "run")
    assert printed.code == 1
    assert "no model is called 'minilmm' (did you mean 'minilm'?)" in printed.err
    assert not (tmp_path / "run").exists()


def test_an_unknown_label_at_evaluation_is_told(command, fitted, tmp_path):
    file = jsonl(tmp_path / "a.jsonl", [{"id": "1", **ONE}, {"id": "2", **TWO, "label": "awful"}])
    printed = command("evaluate", fitted.run, file)
    assert (printed.code, printed.out) == (2, "")
    assert f"{file}:2: column 'label' holds the unknown label 'awful'" in printed.err
    assert "the known classes are bad, even, good" in printed.err


@pytest.fixture
def copied(fitted, tmp_path):
    shutil.copytree(fitted.run, tmp_path / "run")
    return tmp_path / "run"


def test_a_damaged_weight_file_is_told(command, fitted, copied):
    file = copied / "student" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    printed = command("predict", copied, fitted.test)
    assert (printed.code, printed.out) == (2, "")
    assert (
        f"{file} is damaged: its sha256 is not the one in manifest.json; run again with --overwrite"
        in printed.err
    )


def test_a_run_of_another_format_version_is_told(command, fitted, copied):
    write_json(copied / "manifest.json", {**Run(copied).manifest, "format_version": 99})
    for verb in (("predict", copied, fitted.test), ("evaluate", copied, fitted.test), ("report", copied)):
        printed = command(*verb)
        assert (printed.code, printed.out) == (2, "")
        assert f"{copied} has run format 99; this version of credibly reads format 1" in printed.err


def test_an_unfinished_run_is_told_with_the_command_that_goes_on(command, fitted, copied):
    (copied / "manifest.json").unlink()
    printed = command("predict", copied, fitted.test)
    assert (printed.code, printed.out) == (2, "")
    assert (
        f"is unfinished; go on with: credibly fit {copied / 'recipe.yaml'} --output {copied} --resume"
        in printed.err
    )


@pytest.mark.slow
def test_the_advice_for_an_unfinished_run_works(command, copied, fitted, no_plots):
    (copied / "manifest.json").unlink()
    printed = command("fit", copied / "recipe.yaml", "--output", copied, "--resume", "--json")
    assert printed.code == 0
    assert Run(copied).finished
    assert printed.json["systems"]["student"]["nll"] == fitted.report["systems"]["student"]["nll"]


def test_a_full_disk_is_told(command, fit_options, tmp_path, monkeypatch):
    data = jsonl(tmp_path / "a.jsonl", made_rows(60))
    real = Path.write_bytes

    def full(path, content):
        if "members" in str(path):
            raise OSError(28, "No space left on device")
        return real(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    printed = command("fit", data, "--output", tmp_path / "run", *fit_options)
    assert (printed.code, printed.out) == (1, "")
    assert re.search(r"no room on the disk for .*members.*; free some and go on with --resume", printed.err)


@pytest.mark.parametrize(
    "content", ["data: {train: a.csv}\nmembres: {}\n", "data: {train: a.csv}\nseed: x\n"]
)
def test_a_wrong_recipe_is_told_by_file_and_key(command, tmp_path, content):
    recipe = tmp_path / "r.yaml"
    recipe.write_text(content, encoding="utf-8")
    printed = command("fit", recipe, "--output", tmp_path / "run")
    assert (printed.code, printed.out) == (2, "")
    assert printed.err.startswith(f"credibly: {recipe}: ")
    assert "(did you mean 'members'?)" in printed.err or "seed: " in printed.err


def test_messages_are_not_read_as_markup(command, tmp_path):
    printed = command("fit", tmp_path / "[bold]a[/bold].csv")
    assert "[bold]a[/bold].csv" in printed.err


@pytest.mark.slow
def test_a_plan_is_printed_and_nothing_is_written(command, standin, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = jsonl(tmp_path / "rows.jsonl", made_rows(60))
    arguments = ("fit", file, "--plan", "--backbone", standin(), "--source", "lora", "--members", 3)
    printed = command(*arguments)
    assert printed.code == 0
    assert re.search(r"trainable of one +│ +\d", printed.out)
    assert re.search(r"\nMemory: .* at the peak; .* free\nDisk: .*\nTime: about .*\nIt fits\.\n", printed.out)
    content = json.loads(command(*arguments, "--json").out)
    assert (content["fits"], content["change"], content["groups"][0]["networks"]) == (True, None, 3)
    assert list(tmp_path.iterdir()) == [file]


# Shift


def test_shift_says_in_words_and_tables_whether_a_file_is_like_the_runs_texts(command, fitted, tmp_path):
    rows = [{"id": n, "text": f"\x1b[31m[red]世界 {'x!' * n} {n}"} for n in range(30)]
    printed = command("shift", fitted.run, jsonl(tmp_path / "new.jsonl", rows), "--top", 3, "--quiet")
    assert printed.code == 0
    assert "These texts are of another kind than those that the run was trained on" in printed.out
    assert max(map(len, printed.out.splitlines())) <= 100
    assert "\x1b" not in printed.out
    assert printed.out.count("[red]世界") == 3
    assert "Nearest neighbours" in printed.out
    assert all(name in printed.out for name in CLASSES)


def test_shift_prints_json_alone(command, fitted):
    printed = command("shift", fitted.run, fitted.test, "--json", "--system", "ensemble", "--id", "id")
    assert printed.json["rows"] == {"file": 60, "calibration": 24, "train": 136}
    assert printed.json["system"] == "ensemble"
    assert printed.json["texts"][0]["id"].startswith("test/")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--text", "body"], "body"),
        (["--top", "-1"], "expected a number of texts to show, 0 or more, got -1"),
        (["--system", "stud"], "the run has no system 'stud'"),
    ],
)
def test_what_shift_cannot_do_ends_with_exit_code_2(command, fitted, options, told):
    printed = command("shift", fitted.run, fitted.test, *options)
    assert printed.code == 2
    assert told in printed.err
    assert printed.out == ""
