"""The recipes that label, and those that learn from the labels: each is run, on tiny models."""

import json
import re
from pathlib import Path

import datasets
import pytest

import standins
from console import command  # noqa: F401
from credibly.assets.models import packaged_models
from credibly.runs import Run
from credibly.settings import load_recipe
from workshop import jsonl

ROOT = Path(__file__).parent.parent
RECIPES = sorted((ROOT / "recipes" / "labelling").glob("*.yaml"))
LABELLERS = [path for path in RECIPES if load_recipe(path).labelling]
STUDENTS = [path for path in RECIPES if path not in LABELLERS]
STANDINS = {
    "google/electra-base-discriminator": ("electra", {}),
    "google/gemma-2b-it": ("llama", {"output_layer": True}),
    "smollm2": ("llama", {"output_layer": True}),
    "mpnet": ("mpnet", {}),
}


def each(paths):
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.stem)


def rows_of(name, count=60):
    labels = [number % 2 for number in range(count)]
    return [
        {"text": text, "sentence": text, "label": label, "label_name": ("negative", "positive")[label]}
        for label, text in zip(
            labels, (f"{text} {name}" for text in standins.made_texts(labels)), strict=True
        )
    ]


@pytest.fixture
def world(monkeypatch, tmp_path, standin):
    """A working folder with files, a hub with data sets, and a function that lays a recipe there."""

    def from_hub(name, config):
        features = datasets.Features(
            {
                "text": datasets.Value("string"),
                "sentence": datasets.Value("string"),
                "label": datasets.ClassLabel(names=["negative", "positive"]),
                "label_name": datasets.Value("string"),
            }
        )
        splits = ("train", "validation", "test")
        return datasets.DatasetDict(
            {split: datasets.Dataset.from_list(rows_of(split), features=features) for split in splits}
        )

    monkeypatch.setattr(datasets, "load_dataset", from_hub)
    monkeypatch.chdir(tmp_path)
    for name in ("sst2_train", "sst2_validation", "imdb_test"):
        jsonl(tmp_path / f"{name}.jsonl", rows_of(name))

    def folder_of(model):
        if "mnli" in model:
            return standins.save_inference_model(tmp_path / "inference", "deberta")
        architecture, options = STANDINS[model]
        return standin(architecture, **options)

    def laid(path):
        content, model = path.read_text(encoding="utf-8"), load_recipe(path).backbone.name
        content = content.replace(f"name: {model}\n", f"name: {folder_of(model)}\n")
        (tmp_path / path.name).write_text(content.replace("chat: true", "chat: false"), encoding="utf-8")
        return path.name

    return laid


QUICK = ["--quiet", "--set", "backbone.precision=fp32"]
SHORT = ["{text} is", "{text} was", "so: {text}", "the film: {text}", "{text} then"]


def for_standins(path, rows):
    """Options with which a tiny model labels a few rows: it reads 64 tokens, and leans to one class."""
    more = [
        "--set",
        f"data.limit.train={rows}",
        "--set",
        "labelling.lowest_mass=0",
        "--set",
        "labelling.bias=batch",
    ]
    prompts = load_recipe(path).members.source == "prompts"
    return [*QUICK, *more, *(["--set", f"members.templates={json.dumps(SHORT)}"] if prompts else [])]


@pytest.mark.slow
@each(LABELLERS)
def test_every_labelling_recipe_runs_to_its_end(path, world, command):  # noqa: F811
    assert load_recipe(path).data.limit["train"] > 60
    printed = command("label", world(path), *for_standins(path, 24))
    assert (printed.code, printed.err) == (0, ""), printed.err
    run = Run.open(Path("runs") / path.stem, labels=True)
    lines = [json.loads(line) for line in run.labels_file.read_text(encoding="utf-8").splitlines()]
    assert len(lines) == 24
    assert set(lines[0]["probabilities"]) == {"negative", "positive"}


@pytest.mark.slow
@each(STUDENTS)
def test_every_student_learns_from_its_labeller(path, world, command, no_plots):  # noqa: F811
    recipe = load_recipe(path)
    labeller = next(own for own in LABELLERS if f"runs/{own.stem}" == recipe.data.labels_from)
    assert load_recipe(labeller).data.train == recipe.data.train
    assert command("label", world(labeller), *for_standins(labeller, 40)).code == 0
    printed = command("fit", world(path), *QUICK, "--set", "evaluation.resamples=5")
    assert (printed.code, printed.err) == (0, ""), printed.err
    report = json.loads(Run(Path("runs") / path.stem).report_json.read_text(encoding="utf-8"))
    assert report["rows"]["test"] == 60


@each([path for path in RECIPES if path.stem.endswith("-offline")])
def test_a_twin_is_of_packaged_models_and_says_what_it_needs(path):
    recipe, header = load_recipe(path), path.read_text(encoding="utf-8").split("\n\n")[0]
    assert recipe.backbone.name in packaged_models()
    assert path.with_name(path.name.replace("-offline", "")).is_file() or recipe.labelling
    assert all(name in header for name in (recipe.data.train, recipe.data.test) if name)


def test_every_labelling_recipe_stands_in_the_readme():
    told = set(re.findall(r"recipes/labelling/([\w-]+\.yaml)", (ROOT / "README.md").read_text()))
    assert told == {path.name for path in RECIPES}
