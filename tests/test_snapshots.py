"""Snapshots: each member goes on from the one before it, also after a kill; a failure spares those before."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import standins
from credibly.ensemble import train_members
from credibly.errors import RecipeError
from credibly.members import TrainingData, snapshots
from credibly.members.top_blocks import upper_weights
from credibly.members.tuned import open_for_tuning
from credibly.progress import silent
from credibly.records import Examples
from credibly.runs import Run
from credibly.settings import BackboneSettings, SnapshotsSettings, parse_recipe
from credibly.training import Checkpoints, Monitor
from credibly.tuning import target_loss, tune

CLASSES = ("bad", "even", "good")
LABELS = np.arange(24) % 3
TEXTS = tuple(standins.made_texts(LABELS, seed=5, words=4))
SETTINGS = SnapshotsSettings(
    count=3, blocks=1, optimiser={"epochs": 2, "batch_size": 8, "learning_rate": 0.01}
)
SEEDS = (4, 5, 6)


@pytest.fixture
def material(standin):
    backbone = BackboneSettings(name=str(standin()), precision="fp32")
    data = TrainingData(TEXTS, np.eye(3, dtype=np.float32)[LABELS], CLASSES)
    return snapshots.prepare(data, backbone, SETTINGS, silent)


def equal(own, other):
    return own.keys() == other.keys() and all(torch.equal(own[name], other[name]) for name in own)


def test_each_member_is_the_one_before_it_tuned_once_more(material):
    members, histories = snapshots.fit(material, SETTINGS, SEEDS)
    network = open_for_tuning(material, SETTINGS, SEEDS[0])
    for weights, seed, history in zip(members.weights, SEEDS, histories, strict=True):
        alone = tune(network, material.texts, target_loss(material.targets), SETTINGS.optimiser, seed)
        assert equal(weights, upper_weights(network))
        assert [record.loss for record in history.records] == [record.loss for record in alone.records]
    assert not equal(members.weights[0], members.weights[1])


def test_the_rate_falls_to_nothing_and_rises_again_in_every_cycle(material):
    _, histories = snapshots.fit(material, SETTINGS, SEEDS)
    for history in histories:
        rates = [record.learning_rate for record in history.records]
        assert max(rates) > 0.9 * SETTINGS.optimiser.learning_rate
        assert rates[-1] < 0.2 * SETTINGS.optimiser.learning_rate
    assert SETTINGS.optimiser.schedule == SnapshotsSettings().optimiser.schedule == "cosine"


def test_progress_and_log_tell_of_all_cycles(material):
    told, logged = [], []
    monitor = Monitor(
        progress=lambda done, total: told.append((done, total)),
        log=lambda member, record: logged.append((member, record.step)),
    )
    _, histories = snapshots.fit(material, SETTINGS, SEEDS, monitor)
    assert told == [(step, 18) for step in range(1, 19)]
    # A tracker drops a step that is not above the one before it.
    assert logged == [(member, 6 * member + step) for member in range(3) for step in range(1, 7)]
    assert [[record.step for record in own.records] for own in histories] == [[*range(1, 7)]] * 3


def test_a_training_that_goes_on_tunes_no_cycle_again(material, tmp_path):
    expected, _ = snapshots.fit(material, SETTINGS, SEEDS)
    steps = []

    def dying(done, total):
        if done == 15:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        snapshots.fit(material, SETTINGS, SEEDS, Monitor(dying, Checkpoints(tmp_path / "kept")))
    resumed, histories = snapshots.fit(
        material,
        SETTINGS,
        SEEDS,
        Monitor(lambda done, total: steps.append(done), Checkpoints(tmp_path / "kept")),
    )
    assert steps == list(range(13, 19))
    assert all(map(equal, resumed.weights, expected.weights))
    assert [len(history.records) for history in histories] == [6, 6, 6]


def test_where_a_cycle_fails_the_members_before_it_live(material, standin, tmp_path, monkeypatch):
    tuned = snapshots.tune

    def failing(classifier, texts, loss, optimiser, seed, **more):
        history = tuned(classifier, texts, loss, optimiser, seed, **more)
        return replace(history, failure="no number") if seed == SEEDS[1] else history

    monkeypatch.setattr(snapshots, "tune", failing)
    run = Run(tmp_path / "run")
    recipe = parse_recipe(
        {
            "data": {"train": "unused"},
            "backbone": {"name": str(standin()), "precision": "fp32"},
            "members": SETTINGS.model_dump(),
            "seed": SEEDS[0],
        }
    )
    run.begin(recipe)
    examples = Examples(tuple(map(str, range(24))), TEXTS, CLASSES, LABELS)
    failures = train_members(run, recipe, examples)
    assert failures == {5: "no number", 6: "the cycle before it failed: no number"}
    assert [folder.name for folder in run.members_folder.iterdir()] == ["4"]


def test_members_of_one_training_have_one_set_of_rows():
    with pytest.raises(RecipeError, match="bootstrap"):
        parse_recipe({"data": {"train": "x"}, "members": {"source": "snapshots", "bootstrap": True}})
