"""What every member source must hold to. A new source joins `SOURCES` and inherits the whole battery."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import standins
from credibly.backbones import load_backbone
from credibly.ensemble import Ensemble, member_seeds, trained
from credibly.errors import InputError, RecordError, RunFolderError
from credibly.records import UNKNOWN, Examples
from credibly.runs import Run
from credibly.settings import parse_recipe
from credibly.training import HISTORY

SOURCES = [
    pytest.param(
        {
            "source": "heads",
            "hidden": [16],
            "optimiser": {"epochs": 15, "batch_size": 16, "learning_rate": 0.01},
        },
        id="heads",
    ),
]
"""Settings of each member source that train within a second on a stand-in."""

pytestmark = pytest.mark.parametrize("source", SOURCES)

CLASSES = ("bad", "good", "even")
TRAIN, HELD_OUT = 150, 120


def made(rows=TRAIN, seed=0, C=3, **changed):
    labels = np.arange(rows) % C
    values = {
        "ids": tuple(f"{seed}-{row}" for row in range(rows)),
        "texts": tuple(standins.made_texts(labels, seed=seed, words=3)),
        "class_names": CLASSES[:C],
        "labels": labels,
    }
    return Examples(**{**values, **changed})


@pytest.fixture(scope="module")
def backbone(standin):
    return load_backbone(recipe_of({"source": "heads"}, standin()).backbone)


def recipe_of(source, folder, seed=0, count=3, **changed):
    return parse_recipe(
        {
            "data": {"train": "unused"},
            "backbone": {"name": str(folder), "precision": "fp32"},
            "members": {**source, "count": count, **changed},
            "seed": seed,
        }
    )


@pytest.fixture
def trained_on(backbone):
    """Return a function that trains an ensemble of a source."""

    def fit(source, examples=None, seed=0, count=3, **changed):
        recipe = recipe_of(source, backbone.source, seed, count, **changed)
        return Ensemble.train(recipe, backbone, made() if examples is None else examples)[0]

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
    assert predictions.provenance["source"] == source["source"]


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
    predictions = trained_on(source).predict(held_out)
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
    examples = made(C=2, label_probs=np.tile([probability, 1 - probability], (TRAIN, 1)))
    found = probs_of(trained_on(source, examples).predict(made(HELD_OUT, seed=1, C=2)))
    assert abs(found[:, :, 0].mean() - probability) < 0.05
    assert found[:, :, 0].std() < 0.1


def test_balanced_class_weights_raise_the_recall_of_a_rare_class(source, trained_on):
    """One row in fifteen is of the rare class, and its words are wrong more often than right."""
    generator = np.random.default_rng(0)
    said = np.r_[np.zeros(500, int), np.ones(100, int)]
    labels = np.where(said == 1, generator.random(600) < 0.4, 0).astype(np.int64)
    texts = tuple(standins.made_texts(said, seed=2, words=2))
    examples = made(600, C=2, texts=texts, labels=labels)
    told = made(60, seed=3, C=2, texts=tuple(standins.made_texts(np.ones(60, int), seed=4, words=2)))
    plain, balanced = (
        probs_of(trained_on(source, examples, class_weights=weights).predict(told))[:, :, 1]
        for weights in ("none", "balanced")
    )
    assert (balanced.mean(axis=1) > plain.mean(axis=1) + 0.2).all()
    assert (balanced > 0.5).mean() > 0.6 > 0.2 > (plain > 0.5).mean()


# Members and their seeds


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


@pytest.mark.parametrize(
    "changed", [{}, {"bootstrap": True}, {"dropout": 0.5}, {"class_weights": "balanced"}]
)
def test_what_a_member_becomes_does_not_depend_on_those_beside_it(source, trained_on, changed):
    examples = made(40, seed=9)
    together = trained_on(source, seed=5, count=3, **changed).predict(examples).log_probs
    for member in range(3):
        alone = trained_on(source, seed=5 + member, count=1, **changed).predict(examples).log_probs
        np.testing.assert_allclose(together[member], alone[0], atol=1e-5)


def test_each_member_bootstraps_rows_of_its_own(source, trained_on):
    """On labels that are noise, members that see other rows disagree more."""
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


def test_a_prediction_does_not_depend_on_the_texts_beside_it(source, trained_on):
    ensemble, examples = trained_on(source), made(30, seed=9)
    together = ensemble.predict(examples).log_probs
    small = replace(ensemble, backbone=replace(ensemble.backbone, token_budget=1))
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


def test_the_backbone_is_left_as_it_was(source, trained_on, backbone):
    before = {name: tensor.clone() for name, tensor in backbone.model.state_dict().items()}
    trained_on(source).predict(made(5, seed=9))
    assert not any(module.training for module in backbone.model.modules())
    assert not any(parameter.requires_grad for parameter in backbone.model.parameters())
    after = backbone.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


# What is refused


def test_fewer_rows_than_members_are_refused(source, trained_on):
    with pytest.raises(InputError, match=r"as many training rows as members \(4\), got 3"):
        trained_on(source, made(3), count=4)
    assert trained_on(source, made(3), count=3).predict(made(2, seed=9)).shape == (3, 2, 3)


def test_rows_without_label_are_refused(source, trained_on):
    with pytest.raises(RecordError, match="1 have none"):
        trained_on(source, made(3, labels=np.array([0, 1, UNKNOWN])))


# Saved and loaded


@pytest.fixture
def saved(backbone, tmp_path):
    """Return a function that trains and saves a run's members."""

    def save(source, folder="run", seed=2):
        recipe = recipe_of(source, backbone.source, seed)
        run = Run(tmp_path / folder)
        run.begin(recipe)
        assert not trained(run, recipe)
        ensemble, histories = Ensemble.train(recipe, backbone, made())
        ensemble.save(run, recipe, histories)
        assert trained(run, recipe)
        return run, ensemble

    return save


def test_saved_members_predict_exactly_as_before(source, saved, backbone):
    run, ensemble = saved(source)
    opened = Ensemble.open(run, backbone)
    examples = made(30, seed=9)
    np.testing.assert_array_equal(opened.predict(examples).log_probs, ensemble.predict(examples).log_probs)
    assert opened.class_names == CLASSES
    assert opened.member_parameters == ensemble.member_parameters > 0
    assert opened.backbone_parameters == sum(p.numel() for p in backbone.model.parameters())


def test_the_same_training_writes_the_same_bytes(source, saved):
    first, second = (saved(source, folder)[0] for folder in ("first", "second"))
    for seed in (2, 3, 4):
        files = [run.member_folder(seed) / "model.safetensors" for run in (first, second)]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_every_member_has_a_folder_with_weights_and_history(source, saved):
    run, _ = saved(source)
    assert sorted(folder.name for folder in run.members_folder.iterdir()) == ["2", "3", "4"]
    histories = [(run.member_folder(seed) / HISTORY).read_text(encoding="utf-8") for seed in (2, 3, 4)]
    assert len(set(histories)) == 3
    assert all(history.count("\n") > 10 for history in histories)


def test_a_missing_or_damaged_member_is_told_by_file(source, saved, backbone):
    run, _ = saved(source)
    file = next(run.member_folder(3).glob("*.safetensors"))
    content = file.read_bytes()
    file.write_bytes(content[:-20])
    with pytest.raises(RunFolderError, match=r"members/3/.*damaged.*--overwrite"):
        Ensemble.open(run, backbone)
    file.unlink()
    with pytest.raises(RunFolderError, match=r"members/3/.*is missing"):
        Ensemble.open(run, backbone)
    assert not trained(run, run.recipe)
