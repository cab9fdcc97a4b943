"""What a run's networks learn, and their tuning: the student, round after round, and its controls."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save

from credibly.data.opinions import weighing
from credibly.distil import (
    DirichletTargets,
    Lesson,
    Network,
    anchored,
    dirichlet_targets,
    lesson,
    transfer_texts,
    tune_network,
)
from credibly.progress import Progress
from credibly.records import normalised_log_probs
from credibly.runs import steady, write_bytes
from credibly.training import HISTORY, Checkpoints, History, Monitor, Trackers
from credibly.tuning import HeldOutTexts, TuningTexts
from credibly.uncertainty.calibration.calibrate import Temperature
from credibly.uncertainty.combine import combine
from credibly.workflows.common.contents import further_students, round_names, tuned_systems
from credibly.workflows.steps.calibrating import calibrate
from credibly.workflows.steps.work import Work, store_answers


@dataclass(frozen=True)
class Material:
    """The texts of all networks of a run, prepared once.

    Args:
        transfer: on which they are tuned: train first, then unlabelled.
        held_out: the validation texts; None where there are none.
    """

    transfer: TuningTexts
    held_out: TuningTexts | None

    @classmethod
    def of(cls, work: Work) -> Material:
        """Prepare the texts, the trunk run once."""
        validation = work.splits.validation
        transfer = _prepared(work, transferred(work), work.stages("running the frozen trunk"))
        return cls(transfer, None if validation is None else _prepared(work, validation.texts))


def tune_networks(work: Work) -> None:
    """Tune the student and its controls where they are not there yet, and store their predictions."""
    systems = _untuned(work)
    if not systems:
        return
    material = Material.of(work)
    for system in systems:
        _network(work, system, material)


def _untuned(work: Work) -> list[str]:
    """Return the networks that are not there yet: those that are saved, then students only scored."""
    run, recipe = work.run, work.recipe
    saved = [name for name in tuned_systems(recipe) if not (run.model_folder(name) / HISTORY).is_file()]
    scored = [
        name
        for name in further_students(recipe)
        if not all(run.predictions_file(name, split).is_file() for split in work.scored())
    ]
    return saved + scored


def _network(work: Work, system: str, material: Material) -> None:
    """Tune one network, store what it predicts, and save it with its calibration folded in, last.

    Of a student beside the first, which tells only how far students differ, no weights are kept.
    """
    recipe, run = work.recipe, work.run
    began = time.perf_counter()
    network, history = tuned(work, system, material)
    seconds = time.perf_counter() - began
    store_answers(
        work, system, network.predict, work.scored(), training_seconds=seconds, parameters=network.parameters
    )
    folded = calibrate(run, system, recipe.calibration).folded if system == "student" else Temperature()
    if system not in further_students(recipe):
        network.save(run.model_folder(system), history, folded)
    Checkpoints(run.checkpoints_folder / system).remove()


def _prepared(work: Work, texts: Sequence[str], told: Progress | None = None) -> TuningTexts:
    recipe = work.recipe
    names = work.splits.train.class_names
    return transfer_texts(texts, recipe.student_backbone, recipe.distil, names, told)


def transferred(work: Work) -> tuple[str, ...]:
    """Return the transfer texts: train first, then unlabelled."""
    unlabelled = work.splits.unlabelled
    return work.splits.train.texts + (() if unlabelled is None else unlabelled.texts)


def opinions_of(work: Work) -> DirichletTargets:
    """Return what the members say of the transfer texts."""
    parts = ["train"] if work.splits.unlabelled is None else ["train", "unlabelled"]
    opinions = [
        dirichlet_targets(work.run.load_predictions("members", part), work.recipe.distil.highest_precision)
        for part in parts
    ]
    return DirichletTargets.joined(opinions)


def lesson_of(work: Work, system: str, opinions: DirichletTargets) -> Lesson:
    """Return what a network learns on the transfer texts, by these opinions of them."""
    distil = work.recipe.distil
    control = system if system in distil.controls else None
    train = work.splits.train
    return lesson(control, train.targets(), opinions, distil, weighing(train, work.recipe.data))


def tuned(work: Work, system: str, material: Material) -> tuple[Network, History]:
    """Tune one network, and a student again on what it says itself as often as its recipe has it."""
    opinions = anchor = opinions_of(work)
    training = work.recipe.distil.self_training
    for name in round_names(system, work.recipe):
        said = _said(work, system, name, opinions, material)
        opinions = anchored(anchor, said, training.anchor_share)
    return _tuned(work, system, system, opinions, material)


def _said(
    work: Work, system: str, name: str, opinions: DirichletTargets, material: Material
) -> NDArray[np.float32]:
    """Return the probabilities, (N, C), that a round's student gives the transfer texts; it is not kept.

    What it says of the texts that are scored is stored, so that the report can tell what each round brought.
    """
    file = work.run.checkpoints_folder / "said" / f"{name}.safetensors"
    if not file.is_file():
        network, _ = _tuned(work, system, name, opinions, material)
        for split, examples in work.scored().items() if system == "student" else ():
            work.run.save_predictions(name, split, network.predict(examples, source=name))
        log_probs = normalised_log_probs(network.logits(transferred(work)))
        write_bytes(file, steady(save({"probs": np.exp(log_probs)})))
    said: NDArray[np.float32] = load_file(file)["probs"]
    return said


def _tuned(
    work: Work, system: str, name: str, opinions: DirichletTargets, material: Material
) -> tuple[Network, History]:
    """Tune one network once, under a name by which its progress and its checkpoints are known."""
    recipe, run = work.recipe, work.run
    learned = lesson_of(work, system, opinions)
    with Trackers.of(run, recipe).told(name) as log:
        return tune_network(
            material.transfer,
            learned.loss,
            recipe.student_backbone,
            recipe.distil,
            work.splits.train.class_names,
            seed=further_students(recipe).get(system, recipe.seed),
            emits_dirichlet=system not in recipe.distil.controls,
            rows=learned.rows,
            monitor=Monitor(work.stages(f"tuning {name}"), Checkpoints(run.checkpoints_folder / name), log),
            heads=learned.heads,
            held_out=_held_out(work, learned, material),
        )


def _held_out(work: Work, learned: Lesson, material: Material) -> HeldOutTexts | None:
    """Return the held-out texts with what is learned of such: labels, or what the members say together."""
    if material.held_out is None or work.splits.validation is None:
        return None
    if learned.rows is not None:
        return HeldOutTexts(material.held_out, work.splits.validation.targets())
    said = combine(work.run.load_predictions("members", "validation"))
    return HeldOutTexts(material.held_out, said.astype(np.float32))
