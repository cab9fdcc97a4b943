"""The recipes that come with the project: each is run, on tiny models and rows in its own columns."""

import json
import re
import sys
from pathlib import Path

import datasets
import pytest

from credibly.assets.models import packaged_models
from credibly.cli import main
from credibly.data.hub import hub_address
from credibly.runs import Run
from credibly.settings import Recipe, load_recipe
from credibly.workflows import plan
from standins import made_texts
from workshop import jsonl

ROOT = Path(__file__).parent.parent
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
OFFLINE = [path for path in RECIPES if path.stem.endswith("-offline")]

ARCHITECTURES = {
    "distilbert/distilbert-base-uncased": "distilbert",
    "google-bert/bert-base-uncased": "bert",
    "FacebookAI/roberta-base": "roberta",
    "meta-llama/Llama-3.2-1B": "llama",
    "openai-community/gpt2": "gpt2",
    "minilm": "bert",
    "smollm2": "llama",
}


def each(paths):
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.stem)


def fit(monkeypatch, capsys, *arguments):
    """Run the command and return its exit code and what it complained of."""
    monkeypatch.setattr(sys, "argv", ["credibly", "fit", *map(str, arguments)])
    capsys.readouterr()
    try:
        main()
    except SystemExit as stop:
        return stop.code, capsys.readouterr().err
    return 0, capsys.readouterr().err


def models_of(recipe: Recipe) -> set[str]:
    parts = recipe.members.parts if recipe.members.source == "mixed" else []
    return {recipe.backbone.name} | {part.backbone.name for part in parts if part.backbone}


def files_of(recipe: Recipe) -> list[str]:
    return [name for name in (recipe.data.train, recipe.data.test) if name]


@each(RECIPES)
def test_the_command_takes_every_recipe_and_goes_as_far_as_its_data(path, tmp_path, monkeypatch, capsys):
    def no_network(*arguments):
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", no_network)
    monkeypatch.chdir(tmp_path)
    train = load_recipe(path).data.train
    code, told = fit(monkeypatch, capsys, path, "--quiet")
    assert code == 2
    expected = f"a data file at {train}; there is none" if path in OFFLINE else f"{train}: .*no network"
    assert re.search(expected.replace("+", r"\+"), told), told
    assert list(tmp_path.iterdir()) == []


def test_every_recipe_has_a_twin_that_needs_no_hub():
    assert {path.stem.removesuffix("-offline").split("-")[1] for path in OFFLINE} == {
        path.stem.split("-")[1] for path in RECIPES
    }
    for path in OFFLINE:
        recipe = load_recipe(path)
        assert models_of(recipe) <= set(packaged_models())
        assert all(re.fullmatch(r"\w+\.jsonl", name) for name in files_of(recipe))
        header = path.read_text(encoding="utf-8").split("\n\n")[0]
        assert "# Cut: " in header
        assert all(name in header for name in files_of(recipe))


def test_every_recipe_stands_in_the_readme():
    listed = re.findall(r"^\| `recipes/([\w-]+\.yaml)`", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert sorted(listed) == [path.name for path in RECIPES if path not in OFFLINE]


def made_rows(recipe: Recipe, file: str, count: int = 80) -> list[dict]:
    """Return rows in the columns that a recipe names."""
    data, names = recipe.data, ("ham", "spam")
    labels = [number % 2 for number in range(count)]
    return [
        {
            **{column: f"{text} {file} {number} {column}" for column in data.text},
            data.label: bool(label) if data.label == "answer" else names[label],
        }
        for number, (label, text) in enumerate(zip(labels, made_texts(labels), strict=True))
    ]


@pytest.mark.slow
@each(RECIPES)
def test_every_recipe_runs_to_its_end(path, standin, no_plots, tmp_path, monkeypatch, capsys):
    recipe = load_recipe(path)

    def from_hub(name, config):
        splits = ("train", "validation", "test")
        return datasets.DatasetDict(
            {split: datasets.Dataset.from_list(made_rows(recipe, split)) for split in splits}
        )

    monkeypatch.setattr(datasets, "load_dataset", from_hub)
    monkeypatch.chdir(tmp_path)
    for file in files_of(recipe):
        if path in OFFLINE:
            lines = [json.dumps(row) + "\n" for row in made_rows(recipe, file)]
            (tmp_path / file).write_text("".join(lines), encoding="utf-8")
        else:
            hub_address(file)
    content = path.read_text(encoding="utf-8")
    for name in models_of(recipe):
        content = re.sub(rf"name: {re.escape(name)}\b", f"name: {standin(ARCHITECTURES[name])}", content)
    (tmp_path / path.name).write_text(content, encoding="utf-8")
    code, told = fit(monkeypatch, capsys, path.name, "--quiet", "--set", "evaluation.resamples=5")
    assert (code, told) == (0, "")
    run = Run(Path("runs") / path.stem)
    assert run.finished
    assert len(list(run.members_folder.iterdir())) == recipe.members.count
    assert run.student_folder.is_dir() == recipe.distil.enabled


@pytest.mark.assets
@each(OFFLINE)
def test_every_offline_recipe_is_planned_on_its_own_models(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe(path)
    for file in files_of(recipe):
        jsonl(tmp_path / file, made_rows(recipe, file))
    said = plan(path, tmp_path / "run")
    parts = said["groups"] + ([said["student"]] if said["student"] else [])
    assert sum(part["networks"] for part in said["groups"]) == recipe.members.count
    assert {part["backbone"] for part in parts} == models_of(recipe)
    assert all(part["parameters"] > 20_000_000 for part in parts)
    assert not (tmp_path / "run").exists()
