"""Every kind of labels, data and settings makes a run."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import standins
from credibly.data import load_splits
from credibly.progress import silent
from credibly.runs import Run
from credibly.workflows import evaluate, fit, load
from credibly.workflows.answering.opening import open_source
from credibly.workflows.steps.networks import lesson_of, opinions_of
from credibly.workflows.steps.work import Work
from test_workflows import SYSTEMS, report_in
from workshop import jsonl, made_rows, predictions_in, quick

# Other data and other recipes


def binary(folder):
    rows = [{"text": row["text"], "label": n % 2} for n, row in enumerate(made_rows(110, C=2))]
    return jsonl(folder / "a.jsonl", rows), {}, ("0", "1")


def rated(folder):
    rows = made_rows(110, C=2)
    for row in rows:
        good = 0.9 if row.pop("label") == "good" else 0.2
        row |= {"share.bad": 1 - good, "share.good": good}
    settings = {"data.label": None, "data.probabilities": ["share.bad", "share.good"]}
    return jsonl(folder / "a.jsonl", rows), settings, ("bad", "good")


def table(folder):
    lines = [
        "review\tstars\tproduct",
        *(f"{row['text']}\t{row['label']}\t{n // 2}" for n, row in enumerate(made_rows(110))),
    ]
    (folder / "a.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    settings = {"data.text": "review", "data.label": "stars", "data.group": "product"}
    return folder / "a.tsv", settings, ("bad", "even", "good")


@pytest.mark.slow
@pytest.mark.parametrize("data", [binary, rated, table])
def test_all_kinds_of_labels_make_a_run(tmp_path, standin, no_plots, data):
    file, settings, names = data(tmp_path)
    run = fit(file, tmp_path / "run", {**quick(standin()), **settings})
    content, members = report_in(run.path), run.load_predictions("members", "test")
    assert content["classes"] == list(names)
    assert members.class_names == names
    assert [name for name in content["systems"] if name in SYSTEMS] == SYSTEMS
    assert (members.label_probs is not None) == (data is rated)
    assert (content["systems"]["student"]["nll_raters"]["value"] is not None) == (data is rated)
    assert content["systems"]["ensemble"]["accuracy"]["value"] > 0.6
    assert set(load(run.path).predict(["good film"])[0]["probabilities"]) == set(names)
    assert any("cut by" in note for note in content["notes"])


@pytest.mark.slow
@pytest.mark.parametrize("architecture", standins.DECODERS)
def test_a_language_model_makes_a_student_that_answers_as_it_was_measured(
    tmp_path, standin, no_plots, architecture
):
    file = jsonl(tmp_path / "a.jsonl", made_rows(90))
    run = fit(file, tmp_path / "run", quick(standin(architecture), distil__controls=[]))
    system = report_in(run.path)["shipped"]
    assert system.startswith("student")
    stored, splits = run.load_predictions("student", "test"), load_splits(run.recipe.data, run.recipe.seed, 3)
    again = open_source(run, "student").predict(splits.test)
    np.testing.assert_allclose(again.concentrations, stored.concentrations, rtol=1e-3)
    uncertainty = report_in(run.path)["systems"][system]
    answers = load(run.path).predict(list(splits.test.texts))
    epistemic = np.mean([answer["epistemic"] for answer in answers])
    assert epistemic == pytest.approx(uncertainty["mean_epistemic"]["value"], rel=1e-3)


@pytest.mark.slow
def test_of_a_model_that_reads_images_too_what_reads_texts_is_tuned_and_stored(tmp_path, no_plots):
    folder = standins.save_model(tmp_path / "model", standins.READS_IMAGES)
    settings = quick(folder, distil__controls=[], backbone__precision="fp32")
    file = jsonl(tmp_path / "a.jsonl", made_rows(90))
    optimiser = {"epochs": 10, "batch_size": 8, "learning_rate": 5e-3}
    members = {"source": "top_blocks", "count": 2, "blocks": 1, "optimiser": optimiser}
    run = fit(file, tmp_path / "run", {**settings, "members": members})
    one, other = (load_file(file) for file in sorted(run.members_folder.rglob("*.safetensors")))
    tuned = [name for name in one if not torch.equal(one[name], other[name])]
    assert any("language_model.layers.2" in name for name in tuned)
    assert not any("vision" in name or "layers.1" in name for name in one)


@pytest.mark.slow
def test_label_probabilities_teach_members_and_networks(tmp_path, standin, no_plots):
    file, settings, _ = rated(tmp_path)
    run = fit(file, tmp_path / "run", {**quick(standin(), **{"distil.label_share": 0.5}), **settings})
    for system in ("members", "direct", "student"):
        stored = run.load_predictions(system, "test")
        good = np.exp(stored.log_probs)[:, :, 1].mean(axis=0)
        # Raters say 0.9 at most: what learns from their shares is not surer than they are.
        assert good[stored.labels == 1].mean() == pytest.approx(0.85, abs=0.12)
        assert good[stored.labels == 0].mean() == pytest.approx(0.25, abs=0.12)


@pytest.mark.slow
def test_a_run_that_learned_probabilities_is_scored_on_a_file_of_labels(tmp_path, standin, no_plots):
    file, settings, _ = rated(tmp_path)
    run = fit(file, tmp_path / "run", {**quick(standin()), **settings, "distil.enabled": False})
    rows = [{"text": row["text"], "gold": row["label"]} for row in made_rows(60, 1, C=2)]
    report = evaluate(run.path, jsonl(tmp_path / "gold.jsonl", rows), {"label": "gold"})
    assert report["rows"]["test"] == 60
    assert report["systems"]["ensemble"]["accuracy"]["value"] > 0.6


@pytest.mark.slow
@pytest.mark.parametrize(
    "changed",
    [
        {"members__bootstrap": True, "members__class_weights": "balanced", "members__count": 1},
        {"backbone__precision": "bf16", "backbone__max_tokens": 8, "members__hidden": []},
        {"distil__tune": "full", "distil__controls": []},
        {"distil__label_share": 1.0, "distil__controls": ["soft_labels"], "backbone__pooling": "cls"},
    ],
)
def test_every_setting_of_a_recipe_makes_a_run(tmp_path, standin, no_plots, changed):
    run = fit(jsonl(tmp_path / "a.jsonl", made_rows(90)), tmp_path / "run", quick(standin(), **changed))
    systems = report_in(run.path)["systems"]
    controls = changed.get("distil__controls", ["direct", "soft_labels"])
    assert {name for name in ("direct", "soft_labels", "student") if name in systems} == {
        *controls,
        "student",
    }
    assert systems["ensemble"]["accuracy"]["value"] > 0.5
    assert len(run.manifest["seeds"]) == changed.get("members__count", 3)
    fresh = load(run.path, "student").answer(load_splits(run.recipe.data, 0).test.texts).probs
    stored = np.exp(run.load_predictions("student", "test").log_probs[0])
    np.testing.assert_allclose(fresh, stored, atol=1e-5)


def test_each_network_minimises_its_own_loss_on_train_and_unlabelled_texts(fitted):
    run = Run(fitted.run)
    recipe = run.recipe
    splits = load_splits(recipe.data, recipe.seed, recipe.members.count)
    work = Work(run, recipe, splits, silent)
    opinions = opinions_of(work)
    members = [np.exp(run.load_predictions("members", part).log_probs) for part in ("train", "unlabelled")]
    mean = torch.from_numpy(np.concatenate(members, axis=1).mean(axis=0))
    labels = torch.tensor(splits.train.labels)
    train, last = len(splits.train), len(splits.train) + len(splits.unlabelled) - 1
    rows = torch.tensor([0, 7, train - 1, train, last])
    z = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    soft = torch.nn.functional.cross_entropy(z, mean[rows])
    torch.testing.assert_close(
        lesson_of(work, "soft_labels", opinions).loss(z, rows), soft, atol=1e-5, rtol=0
    )
    known = torch.nn.functional.cross_entropy(z[:3], labels[rows[:3]])
    torch.testing.assert_close(
        lesson_of(work, "direct", opinions).loss(z[:3], rows[:3]), known, atol=1e-5, rtol=0
    )
    # The student's loss is least where softmax(z) is the members' mean.
    student = lesson_of(work, "student", opinions).loss
    target = torch.log(mean[rows]) + 3
    precisions = torch.linspace(-4, 6, 60)
    best = min(student(target + shift, rows).item() for shift in precisions)
    wrong = torch.log(mean[rows].roll(1, dims=0)) + 3
    assert best < min(student(wrong + shift, rows).item() for shift in precisions)


@pytest.mark.slow
def test_a_student_of_labels_alone_is_the_direct_network(tmp_path, standin, no_plots):
    """Same start, texts, order and steps: with all weight on the labels nothing is left to differ."""
    data = jsonl(tmp_path / "a.jsonl", made_rows(90))
    runs = [
        fit(data, tmp_path / str(share), quick(standin(), distil__label_share=share)) for share in (1.0, 0.5)
    ]
    for run, equal in zip(runs, (True, False), strict=True):
        direct, student = (run.load_predictions(name, "test").log_probs for name in ("direct", "student"))
        assert np.allclose(direct, student, atol=1e-4) == equal
    soft = runs[0].load_predictions("soft_labels", "test").log_probs
    assert np.abs(soft - runs[0].load_predictions("direct", "test").log_probs).max() > 0.01


@pytest.mark.slow
def test_class_weights_and_bootstrap_change_the_members(tmp_path, standin, no_plots):
    data = jsonl(tmp_path / "a.jsonl", made_rows(90)[:75])
    changes = ({}, {"members__bootstrap": True}, {"seed": 5}, {"members__dropout": 0.5})
    found = set()
    for number, changed in enumerate(changes):
        run = fit(data, tmp_path / str(number), quick(standin(), distil__enabled=False, **changed))
        found.add(run.load_predictions("members", "test").log_probs.tobytes())
    assert len(found) == 4


@pytest.mark.slow
def test_a_run_from_a_recipe_file_is_the_run_from_settings(tmp_path, standin, no_plots, fitted):
    data = jsonl(tmp_path / "a.jsonl", made_rows(60))
    first = fit(data, tmp_path / "first", quick(standin(), distil__enabled=False))
    second = fit(first.recipe_file, tmp_path / "second")
    third = fit(first.recipe, tmp_path / "third", {"evaluation.resamples": 5})
    assert predictions_in(first.path) == predictions_in(second.path) == predictions_in(third.path)


@pytest.mark.slow
def test_the_same_recipe_gives_the_same_bytes(fitted, tmp_path, no_plots):
    again = fit(fitted.run / "recipe.yaml", tmp_path / "run")
    assert predictions_in(again.path) == predictions_in(fitted.run)
    for name in ("calibration.json", "student/model.safetensors", "members/0/model.safetensors"):
        assert (again.path / name).read_bytes() == (fitted.run / name).read_bytes()
