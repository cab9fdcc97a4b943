"""Fit: texts in, a run folder out. Each step leaves its file whole, so a stopped run goes on from it."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import reduce
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from credibly.backbones import resolve_precision
from credibly.backbones.loading import best_device, count_blocks, label_words_head
from credibly.backbones.sources import source_of
from credibly.data import Splits, load_splits
from credibly.data.opinions import opinion_notes
from credibly.engines.jobs import train
from credibly.ensemble import Ensemble
from credibly.errors import InputError, RunFolderError, TrainingError
from credibly.members import LABELLERS
from credibly.passes import changed_rates, groups_of, member_seeds, missing_of
from credibly.progress import Stages, silent
from credibly.runs import Run, write_json
from credibly.settings import Recipe, ResolvedSettings
from credibly.settings.dotted import with_values
from credibly.training import HISTORY, Checkpoints, Trackers
from credibly.uncertainty.calibration.calibrate import Temperature
from credibly.workflows.calibrating import calibrate, check_calibrates, log_choices
from credibly.workflows.contents import (
    Calibration,
    folder_bytes,
    further_students,
    known_costs,
    network_systems,
    tuned_systems,
)
from credibly.workflows.evaluating import write_run_report
from credibly.workflows.learning import check_learning_curve, curve_notes, learn_on_parts
from credibly.workflows.lengths import cut_notes, readers_of
from credibly.workflows.networks import Material, tuned
from credibly.workflows.planning import check_room
from credibly.workflows.recipes import make_recipe
from credibly.workflows.reference import Embedder, keep_reference, strangeness
from credibly.workflows.soups import check_soups, make_soups, soup_notes
from credibly.workflows.transfer import with_made_texts
from credibly.workflows.work import Work, rate, some_of, store_answers
from credibly.workflows.zero_shot import ZERO_SHOT, starting_from_words, zero_shot_network

log = logging.getLogger(__name__)

PACKAGES = ("credibly", "torch", "transformers", "numpy", "scipy", "safetensors")


def fit(
    source: Recipe | str | Path | None,
    output: str | Path,
    settings: Mapping[str, object] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    stages: Stages = silent,
) -> Run:
    """Train members, distil them into one student, calibrate, evaluate and report: a finished run.

    Args:
        source: a recipe, the path of one, or a data file; None for the file that `data.labels_from` labelled.
        output: the run folder.
        settings: recipe values by dotted key, such as ``{"members.count": 5}``.
        resume: go on with an unfinished run; the recipe must be the one it began with, but for the learning
            rate of members that are missing: those are then trained with the new one.
        overwrite: replace an existing run.
        stages: told of progress.

    Raises:
        InputError: recipe, data or run folder cannot be used.
        AssetError: the model or the packaged data cannot be had.
        TrainingError: a loss is no longer finite.
    """
    run = Run.claim(output, resume, overwrite)
    recipe = make_recipe(source, settings)
    if resume and run.finished:
        check_same_recipe(run, recipe)
        return run
    splits = load_splits(recipe.data, recipe.seed, recipe.members.count)
    tell_opinions(recipe)
    work = begin(run, recipe, splits, stages, resume)
    try:
        return carry_out(work)
    except TrainingError as error:
        if advice := _lower_rates(work):
            raise TrainingError(f"{error}; {advice}") from None
        raise


def tell_opinions(recipe: Recipe) -> None:
    """Log what learning opinions in place of labels means, where they are."""
    for note in opinion_notes(recipe.data):
        log.warning(note)


def fit_splits(recipe: Recipe, splits: Splits, run: Run, stages: Stages = silent) -> Run:
    """Train on texts that are there already, and leave a finished run; as `fit`, which reads files.

    Args:
        recipe: what to train; its `data` is not looked at.
        splits: the texts. Without a test set there is no report, and nothing is timed.
        run: as `Run.claim` gives it; what it holds is replaced.
        stages: told of progress.

    Raises:
        InputError: the recipe does not fit the texts or the model.
        AssetError: the model cannot be had.
        TrainingError: a loss is no longer finite.
    """
    return carry_out(begin(run, recipe, splits, stages))


def begin(
    run: Run, recipe: Recipe, splits: Splits, stages: Stages, resume: bool = False, trained: bool = True
) -> Work:
    """Check that model, recipe and machine fit, and write the resolved recipe: the first file of the run.

    A run that goes on was checked for room when it began, and members that are not to be `trained` need none.
    """
    _check_blocks(recipe)
    _check_patience(recipe, splits)
    Trackers.of(run, recipe).check()
    splits = with_made_texts(splits, recipe)
    check_calibrates(recipe.calibration, splits.calibration)
    check_soups(recipe, splits)
    check_learning_curve(recipe, splits.train, tested=splits.test is not None)
    if not (resume and run.recipe_file.is_file()):
        check_room(recipe, splits, run.path, trained)
    for group in starting_from_words(recipe):
        label_words_head(group.backbone, splits.train.class_names, group.settings.words)
    splits = with_cut_notes(splits, recipe)
    return Work(run, _begin(run, recipe, splits, resume), splits, stages)


def carry_out(work: Work) -> Run:
    """Do each step that is not done yet, and finish the run."""
    run, recipe = work.run, work.recipe
    _zero_shot(work)
    _members(work)
    learn_on_parts(work)
    make_soups(work)
    _networks(work)
    fitted = [calibrate(run, source, recipe.calibration) for source in _calibrated(recipe)]
    fitted += [calibrate(run, source) for source in further_students(recipe)]
    calibration = reduce(Calibration.joined, fitted)
    log_choices(calibration)
    write_json(run.calibration_file, calibration.as_json())
    embedder = Embedder.of(recipe)
    reference = keep_reference(run, recipe, work.splits, embedder, work.stages)
    if work.splits.test is not None:
        strange = strangeness(reference, work.splits, embedder)
        noted = replace(work.splits, notes=(*work.splits.notes, *curve_notes(run), *soup_notes(run)))
        write_run_report(run, work.splits.test, noted, work.stages, strange)
    run.remove_checkpoints()
    run.finish(facts_of(recipe))
    return run


def _calibrated(recipe: Recipe) -> list[str]:
    """Return the sources that are calibrated: all, but for labellers whose own opinions are all there is."""
    networks = network_systems(recipe)
    labellers = all(group.settings.source in LABELLERS for group in groups_of(recipe))
    return networks if labellers and recipe.data.calibrated_by_opinions else ["members", *networks]


def with_cut_notes(splits: Splits, recipe: Recipe) -> Splits:
    """Return the splits with notes of the texts that are cut, which are logged too."""
    notes = cut_notes(readers_of(recipe), splits.named(), recipe.data)
    for note in notes:
        log.warning(note)
    return replace(splits, notes=splits.notes + notes)


def _check_blocks(recipe: Recipe) -> None:
    """Raise where the model cannot be had or has too few blocks, before anything is begun or replaced."""
    blocks, distil = count_blocks(recipe.student_backbone), recipe.distil
    if distil.enabled and distil.tune == "top_blocks" and distil.blocks > blocks:
        raise InputError(
            f"expected distil.blocks from 1 to {blocks}, the blocks of {recipe.student_backbone.name}, got "
            f"{distil.blocks}; tune fewer, or the whole with distil.tune: full"
        )


def _check_patience(recipe: Recipe, splits: Splits) -> None:
    """Raise InputError where training is to stop early, and there are no held-out texts to go by."""
    blocks = {f"{group.key}.optimiser": group.settings for group in groups_of(recipe)}
    if recipe.distil.enabled:
        blocks["distil.optimiser"] = recipe.distil
    stopping = [key for key, own in blocks.items() if getattr(getattr(own, "optimiser", None), "patience", 0)]
    if stopping and splits.validation is None:
        raise InputError(
            f"{stopping[0]}.patience goes by texts that are held out, and there are none; give some, for "
            "example: --set data.validation_share=0.1"
        )


def _begin(run: Run, recipe: Recipe, splits: Splits, resume: bool) -> Recipe:
    """Write the resolved recipe, or return the one that an unfinished run began with."""
    fingerprints = {name: examples.fingerprint() for name, examples in splits.named().items()}
    if resume and run.recipe_file.is_file():
        rates = changed_rates(run, recipe)
        check_same_recipe(run, recipe, rates)
        resolved = run.recipe.resolved
        if resolved is None or resolved.fingerprints != fingerprints:
            raise RunFolderError(
                f"{run.path} began with other data than the files hold now; give --overwrite"
            )
        torch.set_num_threads(resolved.threads)
        if rates:
            resolved = resolved.model_copy(update={"learning_rates": {**resolved.learning_rates, **rates}})
            run.save_recipe(run.recipe.model_copy(update={"resolved": resolved}))
        return run.recipe
    device = best_device()
    resolved = ResolvedSettings(
        precision=resolve_precision(recipe.backbone.precision, device),
        threads=torch.get_num_threads(),
        device=device.type,
        fingerprints=fingerprints,
    )
    backbone = recipe.backbone.model_copy(update={"precision": resolved.precision})
    distil = recipe.distil
    if own := distil.backbone:
        precision = resolve_precision(own.precision, device)
        distil = distil.model_copy(update={"backbone": own.model_copy(update={"precision": precision})})
    recipe = recipe.model_copy(update={"resolved": resolved, "backbone": backbone, "distil": distil})
    run.begin(recipe)
    return recipe


def check_same_recipe(run: Run, recipe: Recipe, rates: Mapping[int, float] | None = None) -> None:
    """Raise RunFolderError where a recipe is another than a run began with, but for these members' rates."""
    seeds = set(rates or ())
    allowed = {group.rate_key: group.learning_rate for group in groups_of(recipe) if seeds & {*group.seeds}}
    began, now = with_values(comparable(run.recipe), dict(allowed)), comparable(recipe)
    different = sorted(key for key in began if began[key] != now[key])
    if different:
        raise RunFolderError(
            f"{run.path} began with other settings of {', '.join(different)}; "
            f"go on with: credibly fit {run.recipe_file} --output {run.path} --resume, or give --overwrite"
        )


def comparable(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe's blocks without what was resolved at the start."""
    precision = {"precision"}
    chosen: Any = {"resolved": True, "backbone": precision, "distil": {"backbone": precision}}
    return recipe.model_dump(mode="json", exclude=chosen)


def _zero_shot(work: Work) -> None:
    """Store what the members' label words answer before any training, where they start from such."""
    groups, run = starting_from_words(work.recipe), work.run
    if not groups or all(run.predictions_file(ZERO_SHOT, split).is_file() for split in work.scored()):
        return
    network = zero_shot_network(work.recipe, work.splits.train.class_names)
    size = folder_bytes(Path(source_of(groups[0].backbone.name)))
    costs = {"parameters": network.parameters, "training_seconds": 0.0, "bytes": size}
    store_answers(work, ZERO_SHOT, network.predict, work.scored(), **costs)


def _lower_rates(work: Work) -> str:
    """Return the command that trains missing members again with a tenth of their rate; empty if none is."""
    run, recipe = work.run, work.recipe
    absent = set(missing_of(run, recipe))
    rates = {
        group.rate_key: recipe.other_rates.get(seed, began) / 10
        for group in groups_of(recipe)
        if (began := group.learning_rate) is not None
        for seed in group.seeds
        if seed in absent
    }
    changed = "".join(f" --set {key}={rate:g}" for key, rate in rates.items())
    command = f"credibly fit {run.recipe_file} --output {run.path} --resume{changed}"
    return f"train what is missing again with: {command}" if rates else ""


def _members(work: Work) -> None:
    """Train the members where they are not there yet, and store their predictions.

    What they say of the texts to train on is asked only where a student learns from it.
    """
    run, recipe = work.run, work.recipe
    splits = work.splits.named() if recipe.distil.enabled else work.scored()
    missing = [split for split in splits if not run.predictions_file("members", split).is_file()]
    measured = work.splits.test is None or "rows_per_second" in known_costs(run).get("members", {})
    if not missing_of(run, recipe) and not missing and measured:
        return
    began = time.perf_counter()
    train(run, recipe, work.splits.train, work.stages, work.splits.validation)
    seconds = time.perf_counter() - began
    ensemble = Ensemble.open(run, recipe, work.splits.train.class_names)
    told = work.stages("predicting with the members")
    for done, split in enumerate(missing, start=1):
        run.save_predictions("members", split, ensemble.predict(splits[split], cached=True))
        told(done, len(missing))
    if work.splits.test is None:
        return
    some = some_of(work.splits.test)
    work.note_cost(
        "members",
        training_seconds=seconds + known_costs(run).get("members", {}).get("training_seconds", 0.0),
        shared_parameters=sum(members.shared_parameters for members in ensemble.members),
        member_parameters=float(np.mean([members.member_parameters for members in ensemble.members])),
        shared_bytes=sum(folder_bytes(Path(source_of(name))) for name in backbones_of(recipe)),
        member_bytes=folder_bytes(run.members_folder) / recipe.members.count,
        rows_per_second=rate(lambda: ensemble.predict(some), len(some)),
    )


def backbones_of(recipe: Recipe) -> set[str]:
    """Return the names of the language models that members share."""
    return {group.backbone.name for group in groups_of(recipe) if group.settings.source != "full"}


def _networks(work: Work) -> None:
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


def facts_of(recipe: Recipe) -> dict[str, Any]:
    """Return what the manifest says beside its files."""
    return {
        "packages": {name: version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "machine": {
            "processor": platform.machine(),
            "device": recipe.resolved.device if recipe.resolved else "cpu",
        },
        "seeds": member_seeds(recipe),
        "fingerprints": recipe.resolved.fingerprints if recipe.resolved else {},
    }
