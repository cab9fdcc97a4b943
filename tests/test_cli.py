"""The command line: what it prints where, its exit codes, and every bad input told with its fix."""

import csv
import io
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

import credibly
from credibly import workflows
from credibly.cli import main
from credibly.parted import filled
from credibly.runs import Run, write_json
from workshop import CLASSES, QUICK, jsonl, made_rows, quick


class Printed(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        """Standard output as one JSON document."""
        return json.loads(self.out)

    @property
    def rows(self):
        """Standard output as JSON Lines."""
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def command(monkeypatch, capfd):
    """Return a function that runs `credibly` in this process."""
    log = logging.getLogger("credibly")
    before = log.level, log.handlers[:]

    def run(*arguments, stdin=None):
        monkeypatch.setattr(sys, "argv", ["credibly", *map(str, arguments)])
        if stdin is not None:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capfd.readouterr()
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        return Printed(code, *capfd.readouterr())

    yield run
    log.handlers = before[1]
    log.setLevel(before[0])


@pytest.fixture
def fit_options(standin):
    """Options with which a stand-in's run takes a second."""
    settings = {**quick(standin()), **{"members.optimiser.epochs": 5, "distil.optimiser.epochs": 1}}
    del settings["backbone.name"], settings["members.count"], settings["members.optimiser.epochs"]
    return [
        "--backbone", standin(), "--members", 3, "--epochs", 5, "--source", "heads",
        *(part for key, value in settings.items() for part in ("--set", f"{key}={json.dumps(value)}")),
    ]  # fmt: skip


def with_keys(rows):
    return [{**row, "key": f"key {n}", "by": n // 2} for n, row in enumerate(rows)]


def csv_file(file, rows, text="review", label="stars"):
    with file.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow([text, label])
        writer.writerows([row["text"], row["label"]] for row in rows)
    return file


# Help and version


ALL = [
    "demo",
    "fit",
    "label",
    "predict",
    "serve",
    "evaluate",
    "shift",
    "suggest",
    "report",
    "fetch",
    "doctor",
]
WITHOUT_TORCH = """
import sys
sys.path.insert(0, sys.argv[1])
sys.argv = ["credibly", *sys.argv[2:]]
from credibly.cli import main
from credibly.parted import filled
try:
    main()
finally:
    heavy = {"torch", "transformers", "scipy", "matplotlib", "pandas", "datasets"} & set(sys.modules)
    print(sorted(heavy), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def no_torch(tmp_path_factory):
    """A folder whose torch and transformers cannot be imported."""
    folder = tmp_path_factory.mktemp("no_torch")
    for name in ("torch", "transformers"):
        (folder / f"{name}.py").write_text(f"raise ImportError('no {name} here')\n", encoding="utf-8")
    return folder


def without_torch(folder, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, folder, *arguments], capture_output=True, text=True, check=False
    )
    return Printed(done.returncode, done.stdout, done.stderr)


def test_version_needs_no_torch(no_torch):
    assert without_torch(no_torch, "--version") == (0, f"credibly {credibly.__version__}\n", "[]\n")


@pytest.mark.parametrize("verb", ALL)
def test_help_needs_nothing_heavy(no_torch, verb):
    printed = without_torch(no_torch, verb, "--help")
    assert (printed.code, printed.err) == (0, "[]\n")
    assert f"Usage: credibly {verb}" in printed.out


def test_help_lists_every_command(no_torch):
    printed = without_torch(no_torch, "--help")
    assert (printed.code, printed.err) == (0, "[]\n")
    assert re.findall(r"^  (\w+)  ", printed.out.partition("Commands:")[2], re.MULTILINE) == ALL


def test_a_missing_torch_is_told_with_the_extra_that_mends_it(no_torch, tmp_path):
    for arguments in (("fit", "a.csv"), ("predict", tmp_path, "a.csv"), ("evaluate", tmp_path, "a.csv")):
        printed = without_torch(no_torch, *arguments)
        assert printed.code == 1
        assert 'pip install "credibly[train]"' in printed.err
        assert "no torch here" in printed.err
        assert "Traceback" not in printed.err


def test_doctor_needs_no_torch(no_torch):
    printed = without_torch(no_torch, "doctor", "--json")
    assert printed.code == 0
    assert printed.json["processor"]["cores"] == os.cpu_count()
    assert "precision" not in printed.json["processor"]


@pytest.mark.parametrize(
    "arguments",
    [("fly",), ("fit",), ("fit", "a.csv", "--nope"), ("predict", "run"), ("fit", "a", "--members", "x"), ()],
)
def test_wrong_usage_is_exit_code_two(command, arguments):
    printed = command(*arguments)
    assert printed.code == 2
    assert "Usage: credibly" in printed.err + printed.out
    assert "Traceback" not in printed.err


# Fit


def test_fit_ends_with_the_table_and_the_path_of_the_page(command, fit_options, tmp_path, no_plots):
    data = csv_file(tmp_path / "reviews.csv", made_rows(90))
    printed = command(
        "fit", data, "--text", "review", "--label", "stars", "--output", tmp_path / "run", *fit_options
    )
    assert printed.code == 0
    for name in ("ensemble+temperature", "student+temperature", "majority_vote", "direct"):
        assert name in printed.out
    assert printed.out.splitlines()[-1] == f"Report: {tmp_path / 'run' / 'report.html'}"
    assert printed.err == ""
    assert max(map(len, printed.out.splitlines()[:-1])) <= 100


def test_fit_prints_json_alone(command, fit_options, tmp_path, no_plots):
    data = jsonl(tmp_path / "a.jsonl", made_rows(90))
    printed = command("fit", data, "--output", tmp_path / "run", "--json", *fit_options)
    assert (printed.code, printed.err) == (0, "")
    assert printed.json == json.loads((tmp_path / "run" / "report.json").read_text(encoding="utf-8"))
    manifest = Run(tmp_path / "run").manifest["files"]
    assert "report.json" in manifest


def test_options_reach_the_recipe(command, fit_options, tmp_path, no_plots):
    train, calibration, test, unlabelled, tweets = (
        jsonl(tmp_path / f"{name}.jsonl", with_keys(made_rows(60, seed)))
        for seed, name in enumerate(("train", "calibration", "test", "unlabelled", "tweets"))
    )
    printed = command(
        "fit", train, "--calibration", calibration, "--test", test, "--unlabelled", unlabelled,
        "--shift", f"tweets={tweets}", "--id", "key", "--group", "by", "--seed", 3,
        "--output", tmp_path / "run", "-q", "--set", "data.text=[text]", *fit_options,
    )  # fmt: skip
    assert printed.code == 0
    recipe = Run(tmp_path / "run").recipe
    files = (recipe.data.train, recipe.data.calibration, recipe.data.test, recipe.data.unlabelled)
    assert files == tuple(map(str, (train, calibration, test, unlabelled)))
    assert recipe.data.shift == {"tweets": str(tweets)}
    assert (recipe.data.id, recipe.data.group, recipe.data.text, recipe.seed) == ("key", "by", ["text"], 3)
    assert (recipe.members.count, recipe.members.optimiser.epochs, recipe.members.source) == (3, 5, "heads")
    assert recipe.members.optimiser.batch_size == QUICK["members.optimiser.batch_size"]
    assert "tweets" in printed.out


def asked(rows):
    """Rows whose text stands in a passage beside a question; every sixth passage is far too long."""
    return [
        {
            "question": "is it so",
            "passage": row["text"] + " film" * (90 if n % 6 == 0 else 0),
            "label": row["label"],
        }
        for n, row in enumerate(rows)
    ]


@pytest.mark.slow
def test_a_template_is_fitted_and_predicted_and_cut_texts_are_counted(
    command, fit_options, tmp_path, no_plots, monkeypatch
):
    data = jsonl(tmp_path / "a.jsonl", asked(made_rows(90)))
    template = "this {passage} and {question}"
    printed = command(
        "fit", data, "--template", template, "--set", "data.cut=passage", "--output", tmp_path / "run",
        "--json", *fit_options,
    )  # fmt: skip
    assert printed.code == 0
    run = Run(tmp_path / "run")
    assert (run.recipe.data.template, run.recipe.data.text) == (template, ["passage", "question"])
    counts = 0
    for split in ("train", "calibration", "test"):
        (note,) = [note for note in printed.json["notes"] if note.startswith(f"{split}: ")]
        (cut, total) = re.fullmatch(
            split
            + ": ([0-9]+) of ([0-9]+) texts were longer than 64 tokens and were cut in column 'passage'",
            note,
        ).groups()
        assert note in " ".join(printed.err.split())
        assert int(total) == len(run.load_predictions("members", split).ids)
        counts += int(cut)
    assert counts == 15
    # Predicting makes the texts of the run's template, and counts over all batches.
    monkeypatch.setattr("credibly.workflows.predicting.BATCH_ROWS", 4)
    new = asked(made_rows(13, seed=1))
    answers = command("predict", run.path, jsonl(tmp_path / "new.jsonl", new))
    assert " ".join(answers.err.split()).count("3 of 13 texts were longer than 64 tokens and were cut") == 1
    assert answers.err.count("longer than") == 1
    texts = [filled(template, row, "passage") for row in new]
    direct = workflows.load(run.path).predict(texts)
    assert [row["probability"] for row in answers.rows] == pytest.approx(
        [answer["probability"] for answer in direct], abs=1e-6
    )
    # What is asked for behind a long passage is still read.
    said = workflows.load(run.path, "ensemble").predict(
        [{**new[0], "question": word} for word in ("bad", "good")]
    )
    assert abs(said[0]["probability"] - said[1]["probability"]) > 1e-4
    lacking = command("predict", run.path, jsonl(tmp_path / "b.jsonl", [{"question": "a", "pasage": "b"}]))
    assert lacking.code == 2
    told = " ".join(lacking.err.split())
    assert "b.jsonl:1: expected template column 'passage' (did you mean 'pasage'?)" in told
    assert "the columns are 'question', 'pasage';" in told
    assert command("predict", run.path, tmp_path / "new.jsonl", "--text", "passage").code == 2


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--template", "{question} {context}"], "expected template column 'context'"),
        (["--template", "{question!r}"], "data.template: expected plain column names"),
        (
            ["--template", "{question}", "--text", "passage"],
            "expected the columns of the template (question)",
        ),
        (["--text", "question", "--set", "data.pair=true"], "data.pair: expected two text columns"),
        (["--template", "{passage} {label}"], "column 'label' is named both as text and as label"),
    ],
)
def test_inputs_that_do_not_go_together_are_told(command, tmp_path, options, told):
    data = jsonl(tmp_path / "a.jsonl", asked(made_rows(20)))
    printed = command("fit", data, "--output", tmp_path / "run", *options)
    assert printed.code == 2
    assert told in printed.err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_columns_of_probabilities_need_no_label(command, fit_options, tmp_path, no_plots):
    rows = [
        # A column that happens to be called label, and says the opposite, was not asked for.
        {"text": row["text"], "p.no": 1 - share, "p.yes": share, "label": "no" if share > 0.5 else "yes"}
        for row, share in ((row, 0.9 if row["label"] == "good" else 0.2) for row in made_rows(90, C=2))
    ]
    data = jsonl(tmp_path / "a.jsonl", rows)
    printed = command(
        "fit", data, "--probabilities", "p.no", "--probabilities", "p.yes", "--output", tmp_path / "run",
        "--json", *fit_options,
    )  # fmt: skip
    assert printed.code == 0
    assert printed.json["classes"] == ["no", "yes"]
    assert printed.json["systems"]["student"]["nll_raters"]["value"] > 0
    stored = Run(tmp_path / "run").load_predictions("members", "test")
    assert (stored.labels == stored.label_probs.argmax(axis=1)).all()


def test_the_run_folder_is_named_after_the_file(command, fit_options, tmp_path, no_plots, monkeypatch):
    monkeypatch.chdir(tmp_path)
    jsonl(tmp_path / "mine.jsonl", made_rows(90))
    printed = command("fit", "mine.jsonl", "--set", "distil.enabled=false", *fit_options)
    assert printed.code == 0
    assert printed.out.splitlines()[-1] == "Report: runs/mine/report.html"
    assert Run("runs/mine").finished


def test_a_recipe_file_is_fitted_and_options_win_over_it(command, fit_options, tmp_path, no_plots, standin):
    import yaml

    data = jsonl(tmp_path / "a.jsonl", made_rows(60))
    recipe = tmp_path / "r.yaml"
    values = {
        "data": {"train": str(data)},
        "backbone": {"name": str(standin()), "precision": "fp32"},
        "members": {"count": 2, "optimiser": {"epochs": 2}},
        "distil": {"enabled": False},
        "evaluation": {"resamples": 5},
    }
    recipe.write_text(yaml.safe_dump(values), encoding="utf-8")
    assert command("fit", recipe, "--members", 4, "--output", tmp_path / "run").code == 0
    assert Run(tmp_path / "run").recipe.members.count == 4
    assert Run(tmp_path / "run").recipe.members.optimiser.epochs == 2


def test_the_files_of_a_fit_are_those_of_its_manifest(command, fitted):
    """The page is rendered anew for every showing, and must then still be the one that was signed."""
    from credibly.runs import sha256

    assert command("report", fitted.run, "--json").json == fitted.report
    run = Run(fitted.run)
    changed = [name for name, digest in run.manifest["files"].items() if sha256(run.path / name) != digest]
    assert changed == []


@pytest.mark.slow
def test_verbose_logs_the_stages_and_nothing_else_does(command, fit_options, tmp_path, no_plots):
    data = jsonl(tmp_path / "a.jsonl", made_rows(60))
    small = ("--set", "distil.enabled=false", *fit_options)
    printed = command("fit", data, "--output", tmp_path / "run", "-v", "--json", *small)
    for stage in ("embedding train", "training 3 heads", "scoring with intervals"):
        assert stage in printed.err
    assert printed.json["members"] == 3
    cut = (*small, "--set", "backbone.max_tokens=4", "--overwrite", "--json")
    told = " ".join(command("fit", data, "--output", tmp_path / "run", *cut).err.split())
    assert re.search("train: ([0-9]+) of \\1 texts were longer than 4 tokens and were cut", told)
    assert command("fit", data, "--output", tmp_path / "run", "--quiet", *cut).err == ""


def test_a_terminal_shows_progress_and_standard_output_stays_json(
    command, fit_options, tmp_path, no_plots, monkeypatch
):
    from rich.console import Console

    monkeypatch.setattr(Console, "is_terminal", True)
    data = jsonl(tmp_path / "a.jsonl", made_rows(60))
    small = ("--set", "distil.enabled=false", "--json", *fit_options)
    printed = command("fit", data, "--output", tmp_path / "run", *small)
    for stage in ("embedding train", "training 3 heads", "scoring with intervals"):
        assert stage in printed.err
    assert printed.json["members"] == 3
    quiet = command("fit", data, "--output", tmp_path / "quiet", "--quiet", *small)
    assert quiet.err == ""


def test_resume_and_overwrite(command, fit_options, tmp_path, no_plots, monkeypatch):
    data = jsonl(tmp_path / "a.jsonl", made_rows(60))
    base = (
        "fit",
        data,
        "--output",
        tmp_path / "run",
        "--json",
        "--set",
        "distil.enabled=false",
        *fit_options,
    )
    first = command(*base)
    assert first.code == 0
    again = command(*base)
    assert (again.code, again.out) == (2, "")
    assert "holds a finished run; give --resume to go on with it, --overwrite to replace it" in again.err
    assert command(*base, "--resume").out == first.out
    assert command(*base, "--overwrite", "--seed", 4).json["recipe"]["seed"] == 4


def test_the_demo_is_fitted_once_and_shown_again(command, fitted, tmp_path, monkeypatch):
    run = tmp_path / "demo"
    shutil.copytree(fitted.run, run)
    monkeypatch.setattr(workflows, "demo_recipe", lambda: Run(run).recipe, raising=False)
    printed = command("demo", "--output", run, "--json")
    assert (printed.code, printed.err) == (0, "")
    assert printed.json == fitted.report


# Predict


def rows_of(file):
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_predict_prints_one_json_object_a_text_in_order(command, fitted):
    printed = command("predict", fitted.run, fitted.test)
    assert (printed.code, printed.err) == (0, "")
    rows, given = printed.rows, rows_of(fitted.test)
    assert [row["id"] for row in rows] == [row["id"] for row in given]
    expected = workflows.load(fitted.run).predict([row["text"] for row in given])
    for row, answer in zip(rows, expected, strict=True):
        assert list(row) == ["id", "label", "probability", "probabilities", "total", "aleatoric", "epistemic"]
        assert row["label"] == answer["label"]
        assert row["probabilities"] == pytest.approx(answer["probabilities"])
        assert sum(row["probabilities"].values()) == pytest.approx(1)
        assert row["total"] == pytest.approx(row["aleatoric"] + row["epistemic"])


@pytest.mark.parametrize(
    "system",
    [
        "majority_vote", "mean_logits", "mean_logits+temperature", "ensemble", "ensemble+temperature",
        "direct", "direct+temperature", "soft_labels", "soft_labels+temperature", "student",
        "student+temperature",
    ],
)  # fmt: skip
def test_predict_answers_with_the_system_asked_for(command, fitted, system):
    printed = command("predict", fitted.run, fitted.test, "--system", system)
    assert printed.code == 0
    texts = [row["text"] for row in rows_of(fitted.test)]
    expected = workflows.load(fitted.run, system).predict(texts)
    assert [row["probabilities"] for row in printed.rows] == [
        pytest.approx(row["probabilities"]) for row in expected
    ]
    if system != "student+temperature":
        assert printed.out != command("predict", fitted.run, fitted.test).out


def test_predict_reads_standard_input(command, fitted):
    lines = fitted.test.read_bytes()
    from_file = command("predict", fitted.run, fitted.test)
    assert command("predict", fitted.run, "-", stdin=lines).out == from_file.out
    table = b"id,text\na,good film\na,bad film\n"
    rows = command("predict", fitted.run, "-", stdin=table).rows
    assert [row["id"] for row in rows] == ["a", "a"]


def test_predict_writes_csv_that_reads_back(command, fitted, tmp_path):
    given = [
        {"id": "1", "text": 'a "quoted", text'},
        {"id": "2", "text": "two\nlines"},
        {"id": "3", "text": "a carriage\rreturn"},
        {"id": 'q"4', "text": "good film 你好 🙂"},
    ]
    file = jsonl(tmp_path / "a.jsonl", given)
    printed = command("predict", fitted.run, file, "--format", "csv", "--keep-text")
    table = list(csv.DictReader(io.StringIO(printed.out, newline="")))
    # The header, four rows and one line break in a text; the only return is the one in a text.
    assert (printed.out.count("\n"), printed.out.count("\r")) == (6, 1)
    assert [(row["id"], row["text"]) for row in table] == [(row["id"], row["text"]) for row in given]
    for row, answer in zip(table, command("predict", fitted.run, file).rows, strict=True):
        assert row["label"] == answer["label"]
        for name in CLASSES:
            assert float(row[f"probability.{name}"]) == answer["probabilities"][name]
        for part in ("probability", "total", "aleatoric", "epistemic"):
            assert float(row[part]) == answer[part]


def test_predict_keeps_text_columns_on_request(command, fitted):
    printed = command("predict", fitted.run, fitted.test, "--keep-text")
    assert [row["text"] for row in printed.rows] == [row["text"] for row in rows_of(fitted.test)]


def test_predict_reads_other_columns(command, fitted, tmp_path):
    file = jsonl(tmp_path / "a.jsonl", [{"title": "good", "body": "film", "n": 7}])
    printed = command("predict", fitted.run, file, "--text", "title", "--text", "body", "--id", "n")
    (row,) = printed.rows
    assert row["id"] == "7"
    assert row["label"] == workflows.load(fitted.run).predict(["good\nfilm"])[0]["label"]


def test_predict_takes_a_text_of_a_million_characters(command, fitted, tmp_path):
    file = jsonl(
        tmp_path / "a.jsonl", [{"id": "long", "text": "good film " * 100_000}, {"id": "b", "text": "x"}]
    )
    printed = command("predict", fitted.run, file)
    assert printed.code == 0
    assert [row["id"] for row in printed.rows] == ["long", "b"]


def test_predict_gives_the_answers_before_a_bad_row_and_then_its_error(command, fitted, tmp_path):
    file = jsonl(tmp_path / "a.jsonl", [{"id": "1", "text": "film"}, {"id": "2", "text": 3}])
    printed = command("predict", fitted.run, file)
    assert printed.code == 2
    assert [row["id"] for row in printed.rows] == ["1"]
    assert f"{file}:2: column 'text' holds a number 3" in printed.err


ANSWERING = """
import itertools
import sys
from credibly import workflows
class Anything:
    data = promises = property(lambda self: self)
    abstention = None
    model_copy = lambda self, update: self
workflows.load = lambda run, system, wanted: Anything()
workflows.Wanted = lambda *given: given
numbers = itertools.islice(itertools.count(), int(sys.argv[1]) or None)
workflows.predict_file = lambda *given: ({"id": str(number)} for number in numbers)
workflows.answer_lines = lambda rows, form: (str(row) for row in rows)
sys.argv = ["credibly", "predict", "run", "file"]
from credibly.cli import main
from credibly.parted import filled
main()
"""


# Unbuffered output would have nothing left to flush at exit, which is where it goes wrong.
BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


def test_a_reader_that_goes_away_is_no_failure():
    command = [sys.executable, "-c", ANSWERING, "0"]
    with subprocess.Popen(command, env=BUFFERED, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"{'id': '0'}\n"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=60) == 0


def test_a_reader_that_was_never_there_is_no_failure():
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-c", ANSWERING, "3"]
    done = subprocess.run(command, env=BUFFERED, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


# Evaluate, report, doctor, fetch


def test_evaluate_prints_the_runs_own_figures_on_its_test_rows(command, fitted, no_plots):
    printed = command("evaluate", fitted.run, fitted.test, "--json")
    assert (printed.code, printed.err) == (0, "")
    for name, system in fitted.report["systems"].items():
        found = printed.json["systems"][name]
        for metric in ("accuracy", "nll", "ece_debiased", "mean_epistemic"):
            assert found[metric]["value"] == pytest.approx(system[metric]["value"], abs=1e-4)


def test_evaluate_prints_a_table_and_writes_a_page_on_request(command, fitted, tmp_path, no_plots):
    printed = command("evaluate", fitted.run, fitted.test, "--html", tmp_path / "page.html")
    assert printed.code == 0
    assert "student+temperature" in printed.out
    assert printed.out.splitlines()[-1] == f"Report: {tmp_path / 'page.html'}"
    assert (tmp_path / "page.html").is_file()
    assert "Report:" not in command("evaluate", fitted.run, fitted.test).out


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_what_predict_writes_is_scored_without_the_run(command, fitted, tmp_path, no_plots, form):
    file = tmp_path / f"predictions.{form}"
    file.write_text(command("predict", fitted.run, fitted.test, "--format", form).out, encoding="utf-8")
    printed = command("evaluate", fitted.test, "--predictions", file, "--id", "id", "--json")
    assert (printed.code, printed.err) == (0, "")
    found, shipped = printed.json["systems"]["ensemble"], fitted.report["systems"]["student+temperature"]
    for metric in ("accuracy", "nll", "ece_debiased"):
        assert found[metric]["value"] == pytest.approx(shipped[metric]["value"], abs=1e-4)
    alone = command("evaluate", "--predictions", file)
    assert alone.code == 2
    assert f"credibly evaluate FILE --predictions {file}" in alone.err
    assert "label is what was predicted" in alone.err


def test_evaluate_needs_a_run_and_a_file_or_predictions(command, fitted):
    for given in ([], [fitted.run], [fitted.run, fitted.test, "--predictions", fitted.test]):
        printed = command("evaluate", *given)
        assert printed.code == 2
        assert "expected a run folder and a labelled file, or --predictions FILE" in printed.err


def test_saved_predictions_are_cross_fitted_with_the_calibrator_asked_for(command, fitted, tmp_path):
    rows = [
        f"{row},{label},{p},{1 - p}"
        for row, label, p in zip(range(120), "nyy" * 40, [0.8, 0.3, 0.6] * 40, strict=True)
    ]
    file = tmp_path / "p.csv"
    file.write_text("\n".join(["id,label,probability.n,probability.y", *rows]), encoding="utf-8")
    printed = command("evaluate", "--predictions", file, "--calibrator", "isotonic", "--json")
    assert "cross_fitted_isotonic" in printed.json["systems"]
    assert command("evaluate", "--predictions", file, "--calibrator", "platt").code == 2
    refused = command("evaluate", fitted.run, fitted.test, "--calibrator", "vector")
    assert refused.code == 2
    assert "--predictions FILE (with --calibrator)" in refused.err


def test_the_command_prints_answers_and_says_what_is_promised(command, fitted):
    printed = command("predict", fitted.run, fitted.test, "--coverage", 0.6, "--sets", 0.8)
    assert printed.code == 0
    assert printed.err.startswith("A new text is answered with a chance of 60 % or more")
    rows = [json.loads(line) for line in printed.out.splitlines()]
    assert {row["answered"] for row in rows} == {True, False}
    quiet = command(
        "predict", fitted.run, fitted.test, "--coverage", 0.6, "--sets", 0.8, "-q", "--format", "csv"
    )
    assert quiet.err == ""
    table = list(csv.DictReader(io.StringIO(quiet.out)))
    assert [row["answered"] == "True" for row in table] == [row["answered"] for row in rows]
    assert [json.loads(row["set"]) for row in table] == [row["set"] for row in rows]
    assert [row["label"] or None for row in table] == [row["label"] for row in rows]
    assert command("predict", fitted.run, fitted.test, "--risk", 2).code == 2


def test_report_shows_the_table_again(command, fitted, no_plots, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(fitted.run, run)
    printed = command("report", run)
    assert printed.code == 0
    assert "student+temperature" in printed.out
    assert printed.out.splitlines()[-1] == f"Report: {run / 'report.html'}"


def test_doctor_tells_versions_processor_and_assets(command):
    facts = command("doctor", "--json").json
    assert facts["versions"]["credibly"] == credibly.__version__
    assert facts["processor"]["precision"] in ("bf16", "fp32")
    assert {"minilm", "reviews"} <= {asset["name"] for asset in facts["assets"]}
    assert facts["cache"]["folder"] == os.environ["CREDIBLY_HOME"]
    table = command("doctor").out
    assert "credibly fetch minilm" in table
    assert facts["versions"]["torch"] in table


def test_fetching_an_unknown_asset_is_told_with_the_nearest(command):
    printed = command("fetch", "minilmm")
    assert printed.code == 1
    assert "did you mean 'minilm'?" in printed.err


# Failures


@pytest.mark.parametrize(
    ("raised", "code", "told"),
    [
        (KeyboardInterrupt(), 130, "stopped; a run folder goes on from here with --resume"),
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
    assert err.strip().endswith("credibly: stopped; a run folder goes on from here with --resume")
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
