"""Opinions weighed, held out to stop by, and learned again from what the student itself says of the texts."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, strategies
from hypothesis.extra.numpy import arrays
from typer.testing import CliRunner

from credibly.cli.main import app
from credibly.data import load_splits
from credibly.data.opinions import certainty, weighing
from credibly.distil import DirichletTargets, anchored, lesson
from credibly.ensemble import Ensemble, train_members
from credibly.errors import InputError, RecipeError, RunFolderError, TrainingError
from credibly.members.opinions import Bias
from credibly.records import Examples
from credibly.runs import Run, sha256
from credibly.runtime.contents import Columns
from credibly.settings import CONTROLS, DataSettings, DistilSettings, parse_recipe
from credibly.training import HISTORY
from credibly.uncertainty.calibration.calibrate import Temperature
from credibly.uncertainty.combine import combine
from credibly.workflows import Wanted, distil, fit, label, load, make_recipe, plan
from credibly.workflows.answering.promises import Promises, check_promises
from credibly.workflows.common.contents import calibrators_in
from credibly.workflows.steps import networks
from workshop import CLASSES, jsonl, made_rows, quick

pytestmark = pytest.mark.slow

FEW = {"distil.optimiser.epochs": 2, "distil.optimiser.batch_size": 16, "distil.blocks": 1}
OPINIONS = DirichletTargets(
    mean=np.array([[1.0, 0.0], [0.5, 0.5], [0.8, 0.2]], np.float32),
    precision=np.array([50.0, 2.0, 10.0], np.float32),
)
LABELS = np.array([[1.0, 0.0], [0.5, 0.5]], np.float32)
Z = torch.tensor([[1.0, -0.5], [0.3, 0.2], [-1.0, 2.0]])
ROWS = torch.arange(3)


def on_standin(model, **changed):
    given = {name.replace("__", "."): value for name, value in changed.items()}
    return {"distil.backbone.name": str(model), "distil.backbone.precision": "fp32", **FEW, **given}


def probs_in(run, system, split):
    return np.exp(run.load_predictions(system, split).log_probs.astype(np.float64))


# Weights


def test_a_rows_weight_is_what_its_entropy_leaves_of_the_largest():
    """Of two classes at 0.8, 0.50 of 0.69 nats are left out: 0.278; the mean of the three is made one."""
    left = 1 + (0.8 * np.log(0.8) + 0.2 * np.log(0.2)) / np.log(2)
    expected = np.array([1, 0, left]) * 3 / (1 + left)
    np.testing.assert_allclose(certainty(OPINIONS.mean), expected, rtol=1e-6)
    assert left == pytest.approx(0.2781, abs=1e-4)
    np.testing.assert_array_equal(certainty(np.full((4, 3), 1 / 3)), np.ones(4))
    np.testing.assert_array_equal(certainty(np.eye(3)), np.ones(3))


@given(arrays(np.float64, (7, 3), elements=strategies.floats(0.01, 1.0)))
def test_weights_are_of_mean_one_and_rise_as_entropy_falls(raw):
    probs = raw / raw.sum(axis=1, keepdims=True)
    weights, entropy = certainty(probs), -(probs * np.log(probs)).sum(axis=1)
    assert weights.mean() == pytest.approx(1)
    assert (weights >= 0).all()
    order = np.argsort(entropy)
    assert (np.diff(weights[order]) <= 1e-9).all()


LABELLED = ("direct", "label_smoothing")


@pytest.mark.parametrize("control", [None, *(own for own in CONTROLS if own != "hydra")])
def test_every_network_weighs_each_row_by_what_it_learns_of_it(control):
    """The weighted loss is the weighted mean of the rows' own losses."""
    settings = DistilSettings(soft_share=0.3, temperature=2.0)
    seen = ROWS[: len(LABELS)] if control in LABELLED else ROWS
    weights = certainty(OPINIONS.mean if len(seen) == 3 else LABELS)
    plain, weighed = (lesson(control, LABELS, OPINIONS, settings, own) for own in (None, certainty))
    each = [plain.loss(Z[row][None], row[None]).item() for row in seen]
    assert plain.loss(Z[seen], seen).item() == pytest.approx(np.mean(each), rel=1e-6)
    assert weighed.loss(Z[seen], seen).item() == pytest.approx(np.mean(weights * each), rel=1e-5)


def test_every_head_of_hydra_weighs_a_row_alike():
    members = np.stack([OPINIONS.mean, OPINIONS.mean[:, ::-1]])
    opinions, z = replace(OPINIONS, members=members), torch.cat([Z, -Z], dim=1)
    plain, weighed = (lesson("hydra", LABELS, opinions, DistilSettings(), own) for own in (None, certainty))
    each = [plain.loss(z[row][None], row[None]).item() for row in ROWS]
    expected = np.mean(certainty(OPINIONS.mean) * each)
    assert weighed.loss(z, ROWS).item() == pytest.approx(expected, rel=1e-5)


def test_a_network_with_heads_stops_by_the_mean_of_their_probabilities(labels, tmp_path, standin, no_plots):
    settings = on_standin(
        standin(), data__validation_share=0.2, distil__controls="all", distil__optimiser__patience=1
    )
    run = distil(labels.path, tmp_path / "run", settings)
    history = (run.model_folder("hydra") / HISTORY).read_text(encoding="utf-8").splitlines()
    measured = [own["validation_loss"] for own in map(json.loads, history) if "validation_loss" in own]
    record = run.load_predictions("hydra", "validation")
    said = combine(run.load_predictions("members", "validation"))
    last = -(said * np.log(combine(record))).sum(axis=1).mean()
    assert min(measured) == pytest.approx(last, abs=1e-3)


def test_true_labels_beside_the_members_opinion_are_weighed_by_themselves():
    settings = DistilSettings(label_share=1.0)
    weighed = lesson(None, LABELS, OPINIONS, settings, certainty)
    expected = -(certainty(LABELS)[0] * torch.log_softmax(Z[0], dim=0)[0]).item() / 3
    assert weighed.loss(Z, ROWS).item() == pytest.approx(expected, rel=1e-5)


def test_rows_of_no_weight_teach_members_nothing(standin, tmp_path):
    """Uncertain rows that contradict the sure ones are as good as not there."""
    sure = [row["text"] for row in made_rows(60, noise=0)]
    names = [row["label"] for row in made_rows(60, noise=0)]
    probs = np.eye(3)[[CLASSES.index(name) for name in names]]
    torn = np.full((60, 3), 1 / 3)
    examples = Examples(
        tuple(map(str, range(120))), (*sure, *(f"{text} torn" for text in sure)), CLASSES,
        np.r_[probs.argmax(axis=1), np.full(60, -1)], np.concatenate([probs, torn]),
    )  # fmt: skip

    def heads(name, examples, **data):
        recipe = parse_recipe({
            "data": {"train": "unused", **data},
            "backbone": {"name": str(standin()), "precision": "fp32"},
            "members": {"source": "laplace", "count": 2, "prior_precision": 1.0},
        })  # fmt: skip
        run = Run(tmp_path / name)
        run.begin(recipe)
        train_members(run, recipe, examples)
        return Ensemble.open(run, recipe, CLASSES).predict(examples.take(np.arange(60))).log_probs

    plain = heads("plain", examples)
    weighed = heads("weighed", examples, row_weights="certainty")
    # 120 rows, half of them with all the weight, are the 60 sure ones twice over.
    labels = probs.argmax(axis=1)
    double = Examples(tuple(map(str, range(120))), (*sure, *sure), CLASSES, np.tile(labels, 2))
    np.testing.assert_allclose(weighed, heads("double", double), atol=1e-3)
    # What a text loses of its weight at one place and has more at the other changes nothing.
    first = np.random.default_rng(0).uniform(0, 2, 60)
    uneven = replace(double, weights=np.r_[first, 2 - first])
    np.testing.assert_allclose(heads("uneven", uneven), heads("double", double), atol=1e-3)
    lopsided = replace(double, weights=np.r_[first, first])
    assert np.abs(heads("lopsided", lopsided) - weighed).max() > 0.1
    assert np.abs(plain - weighed).max() > 0.1


def test_rows_count_by_their_own_weights_and_other_rows_as_these_do_in_the_mean():
    train = Examples(tuple("abcd"), tuple("efgh"), CLASSES, np.arange(4) % 3, weights=[0.0, 1.0, 1.0, 6.0])
    assert weighing(replace(train, weights=None), DataSettings(train="a")) is None
    weigh = weighing(train, DataSettings(train="a"))
    np.testing.assert_allclose(weigh(train.targets()), [0, 0.5, 0.5, 3])
    np.testing.assert_allclose(weigh(np.eye(3)[[0] * 6]), [0, 0.5, 0.5, 3, 1, 1])
    both = weighing(train, DataSettings(train="a", row_weights="certainty"))
    probs = np.array([[1, 0], [0.5, 0.5], [1, 0], [1, 0]])
    np.testing.assert_allclose(both(probs), np.array([0, 0, 1, 6]) * 4 / 7)
    nothing = weighing(replace(train, weights=np.zeros(4)), DataSettings(train="a"))
    np.testing.assert_array_equal(nothing(train.targets()), np.ones(4))


def test_weights_are_told_and_refused_where_labels_alone_are_learned(labels):
    recipe = make_recipe(None, {"data.labels_from": str(labels.path), "data.row_weights": "certainty"})
    splits = load_splits(recipe.data)
    weights = certainty(splits.train.targets())
    worth = weights.sum() ** 2 / (weights**2).sum()
    assert any(f"{len(splits.train)} rows count as much as {worth:,.0f}" in note for note in splits.notes)
    weigh = weighing(splits.train, recipe.data)
    np.testing.assert_allclose(weigh(splits.train.targets()), weights, rtol=1e-5)
    with pytest.raises(RecipeError, match=r"data\.row_weights.*expected data\.targets: shares"):
        make_recipe("a.jsonl", {"data.row_weights": "certainty", "data.targets": "labels"})


def test_opinions_are_learned_by_the_weights_of_a_column_that_labelling_did_not_know(labels, tmp_path):
    lines = Path(labels.recipe.data.train).read_text(encoding="utf-8").splitlines()
    file = jsonl(tmp_path / "a.jsonl", [{**json.loads(line), "w": 1 + n % 2} for n, line in enumerate(lines)])
    settings = {"data.labels_from": str(labels.path), "data.train": str(file), "data.weight": "w"}
    splits = load_splits(make_recipe(None, settings).data)
    assert set(splits.train.weights.tolist()) == {1.0, 2.0}
    assert splits.train.label_probs is not None
    assert any("weighted by column 'w'" in note for note in splits.notes)


# Stopping early without labels


def test_stopping_early_needs_texts_to_go_by(labels, tmp_path, standin):
    for key in ("members.optimiser.patience", "distil.optimiser.patience"):
        settings = quick(standin(), data__labels_from=str(labels.path)) | {key: 1}
        with pytest.raises(InputError, match=rf"{key} goes by texts that are held out.*validation_share"):
            fit(None, tmp_path / "run", settings)
    assert not (tmp_path / "run" / "recipe.yaml").exists()


def test_a_student_stops_by_what_the_members_say_of_held_out_texts(labels, tmp_path, standin):
    changed = {
        "distil.optimiser.epochs": 30, "distil.optimiser.patience": 1, "distil.optimiser.learning_rate": 0.01,
        "distil.controls": ["soft_labels", "direct"], "data.validation_share": 0.2,
    }  # fmt: skip
    run = distil(labels.path, tmp_path / "run", on_standin(standin()) | changed)
    said = combine(run.load_predictions("members", "validation"))
    for system in ("student", "soft_labels", "direct"):
        lines = (run.model_folder(system) / "history.jsonl").read_text().splitlines()
        history = [json.loads(line) for line in lines]
        ends = [row["validation_loss"] for row in history if row.get("validation_loss") is not None]
        assert history[-1]["epoch"] < 30
        # The weights that are kept are those of the least loss on the members' mean.
        kept = -(said * run.load_predictions(system, "validation").log_probs[0]).sum(axis=1).mean()
        assert kept == pytest.approx(min(ends), abs=1e-3)


# Self-training


def test_what_is_learned_next_is_the_members_mean_and_the_students_mixed():
    said = np.array([[0.0, 1.0], [0.5, 0.5], [0.2, 0.8]], np.float32)
    mixed = anchored(OPINIONS, said, 0.75)
    np.testing.assert_allclose(mixed.mean, [[0.75, 0.25], [0.5, 0.5], [0.65, 0.35]], rtol=1e-6)
    assert mixed.mean.dtype == np.float32
    assert mixed.precision is OPINIONS.precision


@pytest.fixture(scope="module")
def self_trained(labels, standin, tmp_path_factory):
    """Return a run of two rounds of self-training behind the first student, and what each learned."""
    learned, real = [], networks.lesson_of
    rounds = {"distil.self_training.rounds": 2, "distil.self_training.anchor_share": 0.25}
    settings = on_standin(standin()) | rounds

    def noted(work, system, opinions):
        learned.append(opinions)
        return real(work, system, opinions)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(networks, "lesson_of", noted)
        run = distil(labels.path, tmp_path_factory.mktemp("rounds") / "run", settings)
    return run, learned, settings


def test_each_round_learns_what_the_student_before_it_says(self_trained, labels, standin, tmp_path):
    run, learned, settings = self_trained
    assert len(learned) == 3
    anchor = combine(run.load_predictions("members", "train"))
    np.testing.assert_allclose(learned[0].mean, anchor, atol=1e-6)
    # The first student is that of a run without rounds.
    plain = {**settings, "distil.self_training.rounds": 0}
    first = load(distil(labels.path, tmp_path / "first", plain).path, "student")
    splits = load_splits(run.recipe.data, run.recipe.seed)
    said = first.answer(splits.train.texts).probs
    np.testing.assert_allclose(learned[1].mean, 0.25 * anchor + 0.75 * said, atol=1e-4)
    for turn in (1, 2):
        np.testing.assert_array_equal(learned[turn].precision, learned[0].precision)
    assert np.abs(learned[2].mean - learned[1].mean).max() > 1e-3


def test_what_each_round_says_of_scored_texts_is_kept_and_its_weights_are_not(self_trained):
    run, _, _ = self_trained
    records = [run.load_predictions(name, "calibration").log_probs for name in (
        "student_round_0", "student_round_1", "student",
    )]  # fmt: skip
    assert len({record.tobytes() for record in records}) == 3
    assert sorted(folder.name for folder in run.path.iterdir() if folder.is_dir()) == [
        "members", "predictions", "shift", "student",
    ]  # fmt: skip


def test_the_report_says_what_each_round_brought(labels, standin, tmp_path, no_plots):
    test = jsonl(tmp_path / "test.jsonl", made_rows(24, seed=5))
    rounds = {"distil.self_training.rounds": 1, "data.test": str(test), "evaluation.resamples": 20}
    run = distil(labels.path, tmp_path / "run", on_standin(standin()) | rounds)
    (note,) = (own for own in json.loads(run.report_json.read_text())["notes"] if "self-training" in own)
    for words, name in (("first student", "student_round_0"), ("round 1", "student")):
        record = run.load_predictions(name, "test")
        right = 100 * (record.log_probs[0].argmax(axis=1) == record.labels).mean()
        nll = -record.log_probs[0, np.arange(24), record.labels].mean()
        assert re.search(rf"{words} accuracy {right:.1f} % \[.*?\], NLL {nll:.3f} \[", note)


def test_a_killed_round_goes_on_to_the_same_student(self_trained, labels, tmp_path, monkeypatch):
    run, _, settings = self_trained
    real, tuned = networks.tune_network, []

    def dies(*arguments, **named):
        if len(tuned) == 2:
            raise TrainingError("stopped")
        tuned.append(1)
        return real(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(networks, "tune_network", dies)
        with pytest.raises(TrainingError):
            distil(labels.path, tmp_path / "run", settings)
    tuned.clear()
    monkeypatch.setattr(networks, "tune_network", lambda *a, **n: tuned.append(1) or real(*a, **n))
    again = distil(labels.path, tmp_path / "run", settings, resume=True)
    assert len(tuned) == 1
    files = [one.student_folder / "model.safetensors" for one in (again, run)]
    assert sha256(files[0]) == sha256(files[1])


def test_rounds_are_planned_as_the_networks_they_are(labels, tmp_path, standin):
    few, many = (
        plan(None, tmp_path / "run", quick(standin(), data__labels_from=str(labels.path)) | rounds)["student"]
        for rounds in ({}, {"distil.self_training.rounds": 3, "distil.seeds": 2})
    )
    assert few["networks"] == 2 + 1
    assert many["networks"] == 2 + 2 * (1 + 3)
    assert many["seconds"]["training"] > 2 * few["seconds"]["training"]


# Labellers distilled


@pytest.fixture(scope="module")
def distilled(labels, standin, tmp_path_factory):
    folder = tmp_path_factory.mktemp("distilled")
    test = jsonl(folder / "test.jsonl", made_rows(24, seed=5))
    settings = on_standin(standin(), data__test=str(test), evaluation__resamples=20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("credibly.report.render_html", lambda content: "<html></html>")
        return distil(labels.path, folder / "run", settings)


def test_the_labellers_are_the_members_and_their_stored_opinions_are_learned(labels, distilled):
    lines = [json.loads(line) for line in labels.labels_file.read_text(encoding="utf-8").splitlines()]
    probs = {line["id"]: list(line["probabilities"].values()) for line in lines}
    for split in ("train", "calibration"):
        record = distilled.load_predictions("members", split)
        assert record.shape[0] == 3
        expected = [probs[name] for name in record.ids]
        np.testing.assert_allclose(np.exp(record.log_probs).mean(axis=0), expected, atol=1e-5)
        np.testing.assert_allclose(record.label_probs, expected, atol=1e-6)
    assert distilled.recipe.labelling is None
    assert distilled.recipe.distil.controls == []


def test_labellers_say_of_any_text_what_they_would_have_said_as_members(labels, distilled):
    """Bias and class shares are theirs now: asked again, they say what is stored."""
    record = distilled.load_predictions("members", "train")
    texts = load_splits(distilled.recipe.data, 0).train.texts
    again = load(distilled.path, "ensemble").answer(texts[:10]).probs
    np.testing.assert_allclose(again, np.exp(record.log_probs).mean(axis=0)[:10], atol=1e-4)
    before = {file: file.read_bytes() for file in labels.path.rglob("*") if file.is_file()}
    assert all("bias" in content.decode() for file, content in before.items() if file.name == "prompt.json")


def test_student_and_labellers_are_scored_where_true_labels_are_given(distilled):
    report = json.loads(distilled.report_json.read_text(encoding="utf-8"))
    assert {"ensemble", "single", "student", "student+temperature"} <= set(report["systems"])
    assert any("the labellers of run" in note for note in report["notes"])
    assert load(distilled.path).system == "student+temperature"


def test_labellers_are_not_calibrated_to_what_they_say_themselves(labels, distilled, tmp_path, standin):
    """Their own likeliest class is always right by their own labels, so that the best temperature is none."""
    report = json.loads(distilled.report_json.read_text(encoding="utf-8"))
    assert set(calibrators_in(distilled)) == {"student", "student+temperature"}
    assert not [name for name in report["systems"] if name.startswith("ensemble+")]
    assert any("have no temperature, which only true labels could show" in note for note in report["notes"])
    assert load(distilled.path, "ensemble").answer(["film good"]).probs.shape == (1, 3)

    truth = str(jsonl(tmp_path / "truth.jsonl", made_rows(30, seed=8)))
    known = on_standin(standin(), data__calibration=truth, data__label="label")
    run = distil(labels.path, tmp_path / "run", known)
    record = run.load_predictions("members", "calibration")
    calibrator = calibrators_in(run)["ensemble+temperature"]
    assert calibrator == Temperature.fit(record)
    assert run.recipe.data.calibrated_by_opinions is False


def test_opinions_are_no_truth_to_promise_by(distilled):
    report = json.loads(distilled.report_json.read_text(encoding="utf-8"))
    assert report["promises"] == {"abstention": [], "sets": []}
    assert report["curves"]["set_sizes"] == []
    # Not for want of rows: were these labels true, they would do.
    record = distilled.load_predictions("student", "calibration")
    would = Promises.fit(record, "student", calibrators_in(distilled), Wanted(sets=0.5))
    assert would.sets is not None
    for wanted in ({"risk": 0.5}, {"sets": 0.5}):
        with pytest.raises(InputError, match=r"needs true labels.*--coverage in place.*--calibration file"):
            load(distilled.path, wanted=Wanted(**wanted))
    answered = load(distilled.path, wanted=Wanted(coverage=0.5)).predict(["film good", "film bad"])
    assert {"answered", "reason"} <= set(answered[0])
    columns = Columns.of(distilled.recipe.data)
    assert columns.calibrated_by_opinions
    assert columns.data.text == distilled.recipe.data.text
    with pytest.raises(InputError, match="needs true labels"):
        check_promises(Wanted(sets=0.9), Columns.model_validate_json(columns.model_dump_json()), record)


def test_votes_that_were_weighed_are_said_not_to_be_learned(labels, distilled, tmp_path, standin, no_plots):
    recipe = labels.recipe.model_dump(mode="json", exclude={"resolved"})
    recipe["labelling"]["combine"] = "dawid_skene"
    weighed = label(parse_recipe(recipe), tmp_path / "weighed")
    settings = on_standin(standin(), data__test=str(distilled.recipe.data.test), evaluation__resamples=20)
    run = distil(weighed.path, tmp_path / "run", settings)
    told = "; learned is the mean of the labellers; labels.jsonl weighs their votes (dawid_skene): to learn "
    told += f"these, credibly fit --labels-from {weighed.path}"
    for one, count in ((run, 1), (distilled, 0)):
        notes = json.loads(one.report_json.read_text(encoding="utf-8"))["notes"]
        assert sum(told in note for note in notes) == count
        assert sum("labels.jsonl" in note for note in notes) == count


def test_labellers_of_other_ranges_of_lengths_are_not_one_run():
    one = {"bias": [[0.1, -0.1], [0.2, -0.2]], "longest": [40.0]}
    own = Bias.read(one, 2)
    np.testing.assert_array_equal(Bias.joined([own, own]).values, [one["bias"]] * 2)
    for other in ({"bias": [0.0, 0.0]}, one | {"longest": [50.0]}):
        with pytest.raises(RunFolderError, match="the same ranges of lengths, got 2 kinds"):
            Bias.joined([own, Bias.read(other, 2)])
    with pytest.raises(ValueError, match=r"expected a bias of 2 classes"):
        Bias.read(one | {"longest": [40.0, 50.0]}, 2)


def test_opinions_are_left_out_by_how_sure_they_are_here_too(labels, distilled, tmp_path, standin):
    settings = on_standin(standin(), data__keep_share=0.5, data__row_weights="certainty")
    half = distil(labels.path, tmp_path / "half", settings)
    kept, whole = (set(run.load_predictions("members", "train").ids) for run in (half, distilled))
    assert kept < whole
    assert abs(len(kept) - len(whole) / 2) <= 2


def test_a_student_of_a_causal_labeller_starts_from_an_encoder(labels):
    from credibly.workflows.distilling.labellers import labelled_recipe

    assert labelled_recipe(labels, {}).distil.backbone.name == "minilm"
    assert labelled_recipe(labels, {"distil.backbone.name": "mpnet"}).distil.backbone.name == "mpnet"
    with pytest.raises(InputError, match=r"expected settings of data, distil.*got members.count; label"):
        labelled_recipe(labels, {"members.count": 2})
    with pytest.raises(InputError, match=r"got data.labels_from"):
        labelled_recipe(labels, {"data.labels_from": "other"})


def test_unfinished_or_damaged_labels_are_not_distilled(labels, tmp_path, standin):
    settings = on_standin(standin())
    copy = Run(shutil.copytree(labels.path, tmp_path / "copy"))
    content = copy.labelling_file.read_text()
    copy.labelling_file.write_text(content.replace("bias", "bais"))
    with pytest.raises(InputError, match="damaged"):
        distil(copy.path, tmp_path / "out", settings)
    copy.manifest_file.unlink()
    with pytest.raises(InputError, match="unfinished; go on with: credibly label"):
        distil(copy.path, tmp_path / "out", settings)


def test_the_command_makes_a_student_of_labels_and_scores_it_by_a_file(labels, tmp_path, standin, no_plots):
    test = jsonl(tmp_path / "test.jsonl", made_rows(24, seed=5))
    arguments = ["distil", str(labels.path), "--test", str(test), "--output", str(tmp_path / "run"), "--json"]
    for key, value in (on_standin(standin()) | {"evaluation.resamples": 20}).items():
        arguments += ["--set", f"{key}={json.dumps(value)}"]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exception is None
    report = json.loads(shown.stdout)
    assert report["rows"]["test"] == 24
    assert {"ensemble", "student+temperature"} <= set(report["systems"])
    refused = CliRunner().invoke(app, [*arguments[:2], "--set", "members.count=2"])
    assert isinstance(refused.exception, InputError)
    assert "label again with other settings" in str(refused.exception)
