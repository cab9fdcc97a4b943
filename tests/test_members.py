"""What every member source must hold to. A new source joins `SOURCES` and inherits the whole battery."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

import standins
from credibly.ensemble import Ensemble, train_members
from credibly.errors import CrediblyError, InputError, RecipeError, RecordError, RunFolderError
from credibly.passes import groups_of, member_seeds, missing_of
from credibly.records import UNKNOWN, Examples
from credibly.runs import Run
from credibly.settings import ResolvedSettings, parse_recipe
from credibly.training import HISTORY

TUNING = {"epochs": 6, "batch_size": 16, "learning_rate": 2e-3}

SOURCES = [
    pytest.param(
        {
            "source": "heads",
            "hidden": [16],
            "optimiser": {"epochs": 15, "batch_size": 16, "learning_rate": 0.01},
        },
        id="heads",
    ),
    pytest.param(
        {"source": "top_blocks", "dropout": 0.0, "optimiser": TUNING | {"learning_rate": 3e-3}},
        id="top_blocks",
        marks=pytest.mark.slow,
    ),
    pytest.param({"source": "full", "dropout": 0.0, "optimiser": TUNING}, id="full", marks=pytest.mark.slow),
    pytest.param(
        {"source": "snapshots", "dropout": 0.0, "optimiser": TUNING | {"learning_rate": 3e-3}},
        id="snapshots",
        marks=pytest.mark.slow,
    ),
    pytest.param(
        {"source": "dropout", "dropout": 0.05, "optimiser": TUNING | {"learning_rate": 3e-3}},
        id="dropout",
        marks=pytest.mark.slow,
    ),
    pytest.param({"source": "laplace"}, id="laplace"),
    pytest.param(
        {"source": "lora", "lora_dropout": 0.0, "optimiser": TUNING | {"epochs": 10, "learning_rate": 1e-2}},
        id="lora",
        marks=pytest.mark.slow,
    ),
]
"""Settings of each member source that train within a second on a stand-in."""
ONE_TRAINING = ("dropout", "laplace")
"""All members of these come out of one training, with one history."""
OWN_ROWS = ("heads", "top_blocks", "full", "lora")
"""Members of these can each have a resample of the rows."""

pytestmark = pytest.mark.parametrize("source", SOURCES)

CLASSES = ("bad", "good", "even")
TRAIN, HELD_OUT = 150, 120


def rows_for(source):
    """Return how many rows teach each member: a draw from a posterior is as far off as they leave open."""
    return 4 * TRAIN if source["source"] == "laplace" else TRAIN


def made(rows=TRAIN, seed=0, C=3, **changed):
    labels = np.arange(rows) % C
    values = {
        "ids": tuple(f"{seed}-{row}" for row in range(rows)),
        "texts": tuple(standins.made_texts(labels, seed=seed, words=3)),
        "class_names": CLASSES[:C],
        "labels": labels,
    }
    return Examples(**{**values, **changed})


def recipe_of(source, folder, seed=0, count=3, **changed):
    return parse_recipe(
        {
            "data": {"train": "unused"},
            "backbone": {"name": str(folder), "precision": "fp32"},
            "members": {**source, "count": count, **changed},
            "seed": seed,
        }
    )


@pytest.fixture(scope="module")
def run_of(standin, tmp_path_factory):
    """Return a function that trains a run's members, each only once a module."""
    known = {}

    def run_of(source, examples=None, seed=0, count=3, **changed):
        examples = made() if examples is None else examples
        recipe = recipe_of(source, standin(), seed, count, **changed)
        key = (recipe.model_dump_json(), examples.fingerprint())
        if key not in known:
            run = Run(tmp_path_factory.mktemp("members") / "run")
            run.begin(recipe)
            assert missing_of(run, recipe)
            train_members(run, recipe, examples)
            assert not missing_of(run, recipe)
            known[key] = run
        return known[key]

    return run_of


@pytest.fixture
def trained_on(run_of):
    """Return a function that trains an ensemble of a source."""

    def fit(source, examples=None, seed=0, count=3, **changed):
        run = run_of(source, examples, seed, count, **changed)
        return Ensemble.open(run, run.recipe, CLASSES[:3] if examples is None else examples.class_names)

    return fit


def probs_of(predictions):
    return np.exp(predictions.log_probs.astype(np.float64))


def accuracy(predictions):
    return (predictions.log_probs.argmax(axis=-1) == predictions.labels).mean(axis=1)


def nll(predictions):
    known = np.arange(len(predictions.ids))
    return -predictions.log_probs[:, known, predictions.labels].mean(axis=1)


# The record


def test_members_make_one_record(source, trained_on):
    shares = np.full((4, 3), 1 / 3)
    examples = made(4, seed=9, label_probs=shares)
    predictions = trained_on(source).predict(examples)
    assert predictions.shape == (3, 4, 3)
    assert predictions.log_probs.dtype == np.float32
    assert predictions.ids == examples.ids
    assert predictions.class_names == CLASSES
    np.testing.assert_array_equal(predictions.labels, examples.labels)
    np.testing.assert_allclose(predictions.label_probs, shares)
    assert predictions.provenance["members"].startswith(f"3 {source['source']} on ")


def test_labels_are_not_looked_at_when_predicting(source, trained_on):
    ensemble, examples = trained_on(source), made(20, seed=9)
    blind = replace(examples, labels=np.full(20, UNKNOWN))
    np.testing.assert_array_equal(ensemble.predict(examples).log_probs, ensemble.predict(blind).log_probs)


def test_no_texts_make_an_empty_record(source, trained_on):
    assert trained_on(source).predict(made().take([])).shape == (3, 0, 3)


def test_cached_and_fresh_predictions_are_equal(source, trained_on):
    ensemble, examples = trained_on(source), made(20, seed=9)
    fresh, cached = ensemble.predict(examples), ensemble.predict(examples, cached=True)
    np.testing.assert_array_equal(fresh.log_probs, cached.log_probs)


# Learning


def test_members_learn_a_separable_problem(source, trained_on):
    held_out = made(HELD_OUT, seed=1)
    predictions = trained_on(source, made(rows_for(source))).predict(held_out)
    assert (accuracy(predictions) > 0.95).all()
    assert (nll(predictions) < np.log(3) / 3).all()


def test_members_of_a_noisy_problem_beat_the_prior(source, trained_on):
    generator = np.random.default_rng(0)
    labels = np.arange(TRAIN) % 3
    noisy = np.where(generator.random(TRAIN) < 0.3, generator.integers(0, 3, TRAIN), labels)
    predictions = trained_on(source, made(labels=noisy)).predict(made(HELD_OUT, seed=1))
    assert (nll(predictions) < np.log(3)).all()
    assert (accuracy(predictions) > 0.6).all()


@pytest.mark.parametrize("probability", [0.5, 0.8])
def test_soft_targets_are_learned_and_hard_labels_beside_them_are_not(source, trained_on, probability):
    rows = rows_for(source)
    examples = made(rows, C=2, label_probs=np.tile([probability, 1 - probability], (rows, 1)))
    found = probs_of(trained_on(source, examples).predict(made(HELD_OUT, seed=1, C=2)))
    assert abs(found[:, :, 0].mean() - probability) < 0.05
    assert found[:, :, 0].std() < 0.1


@pytest.mark.slow
def test_balanced_class_weights_raise_the_recall_of_a_rare_class(source, trained_on):
    """One row in fifteen is of the rare class, and its words are wrong more often than right."""
    generator = np.random.default_rng(0)
    said = np.r_[np.zeros(500, int), np.ones(100, int)]
    labels = np.where(said == 1, generator.random(600) < 0.4, 0).astype(np.int64)
    texts = tuple(standins.made_texts(said, seed=2, words=2))
    examples = made(600, C=2, texts=texts, labels=labels)
    told = made(60, seed=3, C=2, texts=tuple(standins.made_texts(np.ones(60, int), seed=4, words=2)))
    changed = {}
    if source["source"] == "lora":
        # At the rate of the other tests, adapters of random weights mostly leave the rare words unlearned.
        changed = {"optimiser": {**source["optimiser"], "learning_rate": 5e-3}}
    plain, balanced = (
        probs_of(trained_on(source, examples, class_weights=weights, **changed).predict(told))[:, :, 1]
        for weights in ("none", "balanced")
    )
    assert balanced.mean() > plain.mean() + 0.2
    assert (balanced > 0.5).mean() > (plain > 0.5).mean() + 0.2


# Members and their seeds


@pytest.mark.slow
def test_the_same_seed_gives_the_same_members_and_another_gives_others(source, trained_on):
    examples = made(20, seed=9)
    first, again, other = (trained_on(source, seed=seed).predict(examples).log_probs for seed in (4, 4, 40))
    np.testing.assert_array_equal(first, again)
    for member in range(3):
        assert np.abs(first[member] - other[member]).max() > 1e-3
        for second in range(member):
            assert np.abs(first[member] - first[second]).max() > 1e-3


def test_training_leaves_the_random_state_of_others_alone(source, trained_on):
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002  (the global state is what is looked at)
    expected = torch.rand(1), np.random.rand()  # noqa: NPY002
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    trained_on(source)
    assert (torch.rand(1), np.random.rand()) == expected  # noqa: NPY002


@pytest.mark.slow
@pytest.mark.parametrize("changed", [{}, {"bootstrap": True}, {"class_weights": "balanced"}])
def test_what_a_member_becomes_does_not_depend_on_those_beside_it(source, trained_on, changed):
    examples = made(40, seed=9)
    if source["source"] not in OWN_ROWS and changed.get("bootstrap"):
        with pytest.raises(RecipeError, match="bootstrap"):
            trained_on(source, **changed)
        return
    # Few steps: adapters run through whole models in other batches, and rounding adds up with every step.
    if "optimiser" in source:
        changed = {**changed, "optimiser": {**source["optimiser"], "epochs": 4}}
    together = trained_on(source, seed=5, count=3, **changed).predict(examples).log_probs
    relative = 1e-4 if source["source"] == "lora" else 1e-7
    # The network that masks are laid over is its first member's, and a snapshot goes on from the one before.
    for member in range(1 if source["source"] in ("dropout", "snapshots") else 3):
        alone = trained_on(source, seed=5 + member, count=1, **changed).predict(examples).log_probs
        np.testing.assert_allclose(together[member], alone[0], atol=1e-5, rtol=relative)


def test_each_member_bootstraps_rows_of_its_own(source, trained_on):
    """On labels that are noise, members that see other rows disagree more."""
    if source["source"] not in OWN_ROWS:
        with pytest.raises(RecipeError, match="bootstrap"):
            trained_on(source, bootstrap=True)
        return
    noise = np.random.default_rng(1).integers(0, 2, 60)
    examples, held_out = made(60, C=2, labels=noise), made(HELD_OUT, seed=1, C=2)
    spread = [
        probs_of(trained_on(source, examples, count=5, bootstrap=drawn).predict(held_out)).std(axis=0).mean()
        for drawn in (False, True)
    ]
    assert spread[1] > 1.5 * spread[0] > 0


def test_seeds_follow_the_recipes(source, standin):
    assert member_seeds(recipe_of(source, standin(), seed=42)) == [42, 43, 44]


# Texts and batches


@pytest.mark.slow
def test_a_prediction_does_not_depend_on_the_texts_beside_it(source, trained_on, run_of):
    ensemble, examples = trained_on(source), made(30, seed=9)
    together = ensemble.predict(examples).log_probs
    run = run_of(source)
    one_by_one = run.recipe.backbone.model_copy(update={"token_budget": 1})
    small = Ensemble.open(run, run.recipe.model_copy(update={"backbone": one_by_one}), CLASSES)
    np.testing.assert_allclose(small.predict(examples).log_probs, together, atol=1e-5)
    alone = np.concatenate([ensemble.predict(examples.take([row])).log_probs for row in range(5)], axis=1)
    np.testing.assert_allclose(alone, together[:, :5], atol=1e-5)


def test_the_order_of_texts_is_the_order_of_predictions(source, trained_on):
    ensemble, examples = trained_on(source), made(30, seed=9)
    order = np.random.default_rng(0).permutation(30)
    np.testing.assert_allclose(
        ensemble.predict(examples.take(order)).log_probs,
        ensemble.predict(examples).log_probs[:, order],
        atol=1e-5,
    )


# What is refused


def test_fewer_rows_than_members_are_refused(source, trained_on):
    with pytest.raises(InputError, match=r"as many training rows as members \(4\), got 3"):
        trained_on(source, made(3), count=4)
    assert trained_on(source, made(3), count=3).predict(made(2, seed=9)).shape == (3, 2, 3)


def test_rows_without_label_are_refused(source, trained_on):
    with pytest.raises(RecordError, match="1 have none"):
        trained_on(source, made(3, labels=np.array([0, 1, UNKNOWN])))


# Saved and loaded


def test_the_same_training_writes_the_same_bytes(source, run_of, standin, tmp_path):
    first = run_of(source)
    again = Run(tmp_path / "again")
    again.begin(first.recipe)
    train_members(again, first.recipe, made())
    for seed in (0, 1, 2):
        names = {file.name for file in first.member_folder(seed).iterdir()} - {HISTORY}
        assert any(name.endswith(".safetensors") for name in names)
        for name in names:
            files = [run.member_folder(seed) / name for run in (first, again)]
            assert files[0].read_bytes() == files[1].read_bytes()


def test_only_missing_members_are_trained_and_end_as_they_would_have(source, run_of, tmp_path):
    """A run that lost one member gets it back; those that are there are not touched."""
    whole = run_of(source)
    broken = Run(tmp_path / "broken")
    shutil.copytree(whole.path, broken.path)
    shutil.rmtree(broken.member_folder(1))
    train_members(broken, broken.recipe, made())
    examples = made(30, seed=9)
    found, expected = (Ensemble.open(run, run.recipe, CLASSES).predict(examples) for run in (broken, whole))
    np.testing.assert_array_equal(found.log_probs, expected.log_probs)


def test_a_member_trained_again_is_what_its_new_rate_makes_of_it_alone(source, run_of, standin, tmp_path):
    if "optimiser" not in source:
        (group,) = groups_of(recipe_of(source, standin()))
        assert group.learning_rate is None
        return
    again, alone = Run(tmp_path / "again"), Run(tmp_path / "alone")
    shutil.copytree(run_of(source).path, again.path)
    shutil.rmtree(again.member_folder(1))
    resolved = ResolvedSettings(precision="fp32", threads=1, device="cpu", learning_rates={1: 1e-4})
    train_members(again, again.recipe.model_copy(update={"resolved": resolved}), made())
    slow = {**source, "optimiser": {**source["optimiser"], "learning_rate": 1e-4}}
    train_members(alone, recipe_of(slow, standin(), seed=1, count=1), made())
    for file in alone.member_folder(1).glob("*.safetensors"):
        assert (again.member_folder(1) / file.name).read_bytes() == file.read_bytes()
    assert not missing_of(again, again.recipe)


def test_every_member_has_a_folder_with_weights_and_history(source, run_of):
    run = run_of(source)
    assert sorted(folder.name for folder in run.members_folder.iterdir()) == ["0", "1", "2"]
    histories = [(run.member_folder(seed) / HISTORY).read_text(encoding="utf-8") for seed in (0, 1, 2)]
    assert len(set(histories)) == (1 if source["source"] in ONE_TRAINING else 3)
    assert all(history.count("\n") > 10 for history in histories)


def test_a_missing_or_damaged_member_is_told_by_file(source, run_of, tmp_path):
    run = Run(tmp_path / "run")
    shutil.copytree(run_of(source).path, run.path)
    file = next(run.member_folder(1).glob("*.safetensors"))
    content = file.read_bytes()
    file.write_bytes(content[:-20])
    with pytest.raises(CrediblyError, match=r"members/1.*damaged"):
        Ensemble.open(run, run.recipe, CLASSES)
    shutil.rmtree(run.member_folder(1))
    with pytest.raises(RunFolderError, match=r"members/1 is missing"):
        Ensemble.open(run, run.recipe, CLASSES)
    assert missing_of(run, run.recipe)


def test_what_members_share_and_own_adds_up(source, trained_on):
    (members,) = trained_on(source).members
    assert members.count == 3
    assert members.member_parameters > 0
    assert (members.shared_parameters == 0) == (source["source"] == "full")
