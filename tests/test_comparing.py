"""`credibly compare`: systems on the same texts, a choice without the test texts, and what can go wrong."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from console import command  # noqa: F401
from credibly import workflows
from credibly.errors import InputError, RecipeError, RunFolderError
from credibly.runs import Run
from credibly.settings.comparison import laid_over, load_comparison
from credibly.uncertainty.calibration.calibrators import cross_fitted
from credibly.uncertainty.systems import answers
from workshop import CLASSES, QUICK, jsonl, made_rows

ROOT = Path(__file__).parent.parent
RECIPES = sorted((ROOT / "recipes" / "comparisons").glob("*.yaml"))


def nested(dotted):
    from credibly.settings.dotted import with_values

    return with_values({}, dotted)


@pytest.fixture(scope="module")
def files(tmp_path_factory, standin):
    """A comparison of two systems on files of their own; the folder and the recipe's values."""
    folder = tmp_path_factory.mktemp("comparison")
    for name, count, seed in (("train", 160, 0), ("test", 60, 1), ("elsewhere", 40, 2)):
        jsonl(folder / f"{name}.jsonl", made_rows(count, seed))
    values = nested({**QUICK, "backbone.name": str(standin())}) | {
        "data": {
            "train": str(folder / "train.jsonl"),
            "test": str(folder / "test.jsonl"),
            "shift": {"elsewhere": str(folder / "elsewhere.jsonl")},
        },
        "systems": {
            "heads": {"distil": {"controls": ["direct"]}},
            "one-head": {"members": {"count": 1}, "distil": {"enabled": False}},
        },
    }
    return folder, values


def written(folder, values, name="recipe.yaml"):
    file = folder / name
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def compared(files):
    """The finished comparison: its folder, and what it holds."""
    folder, values = files
    content = workflows.compare(written(folder, values), folder / "out")
    return folder / "out", content


CANDIDATES = [
    "heads: one member",
    "heads: ensemble",
    "heads: direct",
    "heads: student",
    "one-head: one member",
]


@pytest.mark.slow
def test_every_form_of_every_system_is_a_candidate(compared):
    folder, content = compared
    assert list(content["systems"]) == list(content["choice"]) == CANDIDATES
    assert [own["kind"] for own in content["choice"].values()] == [
        "single", "ensemble", "direct", "student", "single",
    ]  # fmt: skip
    assert json.loads((folder / "comparison.json").read_text(encoding="utf-8")) == content
    json.dumps(content, allow_nan=False)
    assert set(content["shift"]) == {"elsewhere"}
    assert all(own["rows_per_second"] > 0 for own in content["choice"].values())


@pytest.mark.slow
def test_ties_and_copies_do_not_stop_a_comparison(files, tmp_path):
    _, values = files
    shares = {name: f"share.{name}" for name in CLASSES}
    rows = []
    for number, row in enumerate(made_rows(160)):
        each = {column: 0.8 if name == row["label"] else 0.1 for name, column in shares.items()}
        tie = dict.fromkeys(shares.values(), 1 / 3)
        rows += [{"text": row["text"], **(tie if number % 8 == 0 else each)}] * (1 + number % 2)
    data = {"train": str(jsonl(tmp_path / "shares.jsonl", rows)), "probabilities": list(shares.values())}
    heads = {"distil": {"enabled": False}}
    systems = {"heads": heads, "one-head": {**heads, "members": {"count": 1}}}
    content = workflows.compare(
        written(tmp_path, {**values, "data": data, "systems": systems}), tmp_path / "out"
    )
    assert list(content["systems"]) == ["heads: one member", "heads: ensemble", "one-head: one member"]


@pytest.mark.slow
def test_figures_are_those_of_the_runs_records(compared):
    folder, content = compared
    run = Run.open(folder / "runs" / "heads")
    test = run.load_predictions("members", "test")
    calibrators = workflows.load(run.path, "ensemble+temperature").calibrators
    expected = answers("ensemble+temperature", test, calibrators)[0]
    found = content["systems"]["heads: ensemble"]
    assert found["accuracy"]["value"] == pytest.approx(np.mean(expected.predicted == expected.labels))
    stored = run.load_predictions("members", "calibration")
    mapped = cross_fitted(stored, "temperature", on="members")
    probs = np.exp(mapped.log_probs.astype(float)).mean(axis=0)
    own = -np.log(probs[np.arange(len(probs)), stored.labels]).mean()
    assert content["choice"]["heads: ensemble"]["nll"] == pytest.approx(own, abs=1e-6)
    first = Run.open(folder / "runs" / "one-head").load_predictions("members", "test").log_probs[0]
    assert content["systems"]["one-head: one member"]["accuracy"]["value"] == pytest.approx(
        np.mean(first.argmax(axis=1) == expected.labels)
    )


@pytest.mark.slow
def test_the_choice_is_the_fastest_of_those_as_good_on_the_calibration_texts(compared):
    _, content = compared
    least = min(content["choice"], key=lambda name: content["choice"][name]["nll"])
    assert content["best"] == least
    chosen = content["choice"][content["shipped"]]
    assert chosen["as_good"]
    speeds = [own["rows_per_second"] for own in content["choice"].values() if own["as_good"]]
    assert chosen["rows_per_second"] >= max(speeds) / 1.1


@pytest.mark.slow
def test_finished_runs_are_used_as_they_are(compared, files, monkeypatch):
    folder, content = compared
    monkeypatch.setattr("credibly.workflows.fitting.fit.carry_out", lambda work: pytest.fail("trained again"))
    again = workflows.compare(written(*files), folder)
    assert {name: own["nll"] for name, own in again["choice"].items()} == {
        name: own["nll"] for name, own in content["choice"].items()
    }


@pytest.mark.slow
@pytest.mark.parametrize(("name", "sets"), [("train", "calibration, train"), ("test", "test")])
def test_finished_runs_of_texts_that_are_others_by_now_are_refused(compared, files, tmp_path, name, sets):
    before = (compared[0] / "comparison.json").read_bytes()
    folder, values = files
    other = jsonl(tmp_path / f"{name}.jsonl", made_rows(100, 7))
    file = folder / f"{name}.jsonl"
    known = file.read_bytes()
    try:
        file.write_bytes(other.read_bytes())
        with pytest.raises(RunFolderError, match=f"heads was made from, got others in {sets}; .*--overwrite"):
            workflows.compare(written(folder, values), folder / "out")
    finally:
        file.write_bytes(known)
    assert (compared[0] / "comparison.json").read_bytes() == before


@pytest.mark.slow
def test_the_command_prints_a_recommendation_or_json(compared, files, command):  # noqa: F811
    folder, _ = compared
    printed = command("compare", written(*files), "--output", folder)
    assert printed.code == 0
    assert "Use " in printed.out
    assert all(name.split(":")[0] in printed.out for name in CANDIDATES)
    page = (folder / "comparison.html").read_text(encoding="utf-8")
    assert "http" not in page.replace("http-equiv", "")
    assert all(name in page.replace("<wbr>", "") for name in CANDIDATES)
    printed = command("compare", written(*files), "--output", folder, "--json")
    assert list(printed.json["systems"]) == CANDIDATES


# What cannot be compared


def test_systems_on_other_texts_are_refused_before_anything_is_trained(files, tmp_path):
    _, values = files
    jsonl(tmp_path / "other.jsonl", made_rows(60, 7))
    for data, split in (
        ({"test": str(tmp_path / "other.jsonl")}, "test"),
        ({"calibration_share": 0.3}, "calibration"),
        ({"shift": {"elsewhere": str(tmp_path / "other.jsonl")}}, "elsewhere"),
    ):
        other = {**values, "systems": {**values["systems"], "one-head": {"data": data}}}
        with pytest.raises(InputError, match=f"the same {split} texts .* one-head are not those of heads"):
            workflows.compare(written(tmp_path, other), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_learning_curve_that_cannot_be_had_is_refused_before_anything_is_trained(files, tmp_path):
    _, values = files
    curve = {"evaluation": {"learning_curve": [0.01]}}
    other = {**values, "systems": {**values["systems"], "one-head": curve}}
    with pytest.raises(InputError, match=r"got 0\.01: 1 of"):
        workflows.compare(written(tmp_path, other), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_left_alone(files, tmp_path):
    _, values = files
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(RunFolderError, match="holds no comparison"):
        workflows.compare(written(tmp_path, values), tmp_path / "mine")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="there is a file"):
        workflows.compare(written(tmp_path, values), tmp_path / "file")


@pytest.mark.parametrize(("systems", "said"), [
    (None, "two systems or more"),
    ({"only": {}}, "two systems or more"),
    ({"a": {}, "../b": {}}, "names of letters"),
    ({"a": {}, "b": 3}, "expected settings, got int"),
    ({"a": {}, "b": {"membres": {}}}, "b: .*did you mean 'members'"),
])  # fmt: skip
def test_a_wrong_recipe_is_told(files, tmp_path, systems, said):
    _, values = files
    with pytest.raises(RecipeError, match=said):
        load_comparison(written(tmp_path, {**values, "systems": systems}))


def test_a_block_of_another_source_takes_the_shared_ones_place():
    shared = {"members": {"source": "full", "count": 3, "optimiser": {"epochs": 2}}}
    assert laid_over(shared, {"members": {"source": "lora", "count": 2}}, "") == {
        "members": {"source": "lora", "count": 2}
    }
    assert laid_over(shared, {"members": {"optimiser": {"batch_size": 8}}}, "")["members"] == {
        "source": "full", "count": 3, "optimiser": {"epochs": 2, "batch_size": 8},
    }  # fmt: skip
    heads = {"members": {"count": 3}}
    assert laid_over(heads, {"members": {"source": "heads", "bootstrap": True}}, "")["members"]["count"] == 3


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_comparisons_that_come_with_the_project_are_read(path):
    recipes = load_comparison(path)
    assert len(recipes) >= 2
    assert len({own.data.test for own in recipes.values()}) == 1
    if path.stem.endswith("-offline"):
        from credibly.assets.models import packaged_models

        assert {own.backbone.name for own in recipes.values()} <= set(packaged_models())
