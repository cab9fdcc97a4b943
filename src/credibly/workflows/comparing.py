"""Compare: several recipes on one data set and one split, and which of what they made to use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from credibly.data import Splits, load_splits
from credibly.ensemble import Ensemble
from credibly.errors import InputError, RunFolderError
from credibly.progress import Stages, silent
from credibly.records import UNKNOWN, Examples, Predictions
from credibly.report.candidates.build import Candidate, build_comparison
from credibly.report.candidates.page import render_comparison
from credibly.runs import Run, write_json, write_text
from credibly.settings import Recipe
from credibly.settings.comparison import load_comparison
from credibly.uncertainty.calibration.calibrate import Temperature
from credibly.uncertainty.calibration.calibration_rows import targets_of
from credibly.uncertainty.calibration.calibrators import Calibrator, On, cross_fitted
from credibly.uncertainty.combine import combine
from credibly.uncertainty.numerics import FloatArray, log_of
from credibly.uncertainty.systems import CALIBRATED, ON_MEAN, answers, bare_name, chosen_form, source_of
from credibly.workflows.answering.opening import open_source
from credibly.workflows.common.contents import Calibration, calibration_in, class_names_of, network_systems
from credibly.workflows.common.provenance import check_same_texts
from credibly.workflows.evaluating.runs import costs_by_system, scored_predictions
from credibly.workflows.fitting.fit import fit
from credibly.workflows.steps.learning import check_learning_curve
from credibly.workflows.steps.work import rate, some_of

RUNS, CONTENT, PAGE = "runs", "comparison.json", "comparison.html"
ONE_MEMBER = "one member"
JUDGED = ("calibration", "test")
"""The splits that must be the same for all systems, beside the shift sets."""


@dataclass(frozen=True)
class Form:
    """One way in which a run can answer.

    Args:
        label: how it is called.
        system: the run's system that it is.
        stored: raw records by split.
        calibrators: by system.
        cost: what it costs, but for its speed.
        first: whether the first member answers alone.
    """

    label: str
    system: str
    stored: Mapping[str, Predictions]
    calibrators: Mapping[str, Calibrator]
    cost: Mapping[str, float | None]
    first: bool = False


def compare(
    source: str | Path,
    output: str | Path,
    settings: Mapping[str, object] | None = None,
    overwrite: bool = False,
    stages: Stages = silent,
) -> dict[str, Any]:
    """Fit every system of a comparison, score all that they can answer by, and recommend one.

    What is recommended is chosen on the calibration texts: of the forms whose cross-fitted NLL there is not
    truly above the least, the one that answers most texts a second; of those less than a tenth slower, the
    one of the least NLL. The test texts have no part in it.

    Args:
        source: the comparison's recipe, see `load_comparison`.
        output: a folder; each system's run stands whole under ``runs/NAME``. Runs that are there are gone on
            with, and finished ones are used as they are.
        settings: recipe values by dotted key that all systems share.
        overwrite: fit every system anew.
        stages: told of progress.

    Returns:
        What comparison.json holds; comparison.html beside it shows it.

    Raises:
        InputError: the recipe, the data or a run folder cannot be used, the systems' calibration, test or
            shift texts are not the same, or a finished run's texts are others by now.
        TrainingError: a loss is no longer finite.
    """
    recipes = load_comparison(Path(source), settings)
    found = {name: load_splits(own.data, own.seed, own.members.count) for name, own in recipes.items()}
    splits = _same_splits(recipes, found)
    folder = _claimed(Path(output))
    for name, own in found.items() if not overwrite else ():
        # A finished run is taken before its data are read, so that nothing else would look at them.
        if (run := Run(folder / RUNS / name)).finished:
            check_same_texts(run, own, "put the files back as they were, or give --overwrite")
    runs = {
        name: fit(
            recipe,
            folder / RUNS / name,
            resume=not overwrite and (folder / RUNS / name).is_dir(),
            overwrite=overwrite,
            stages=_within(stages, name),
        )
        for name, recipe in recipes.items()
    }
    candidates = [
        candidate for name, run in runs.items() for candidate in _candidates(name, run, splits, stages)
    ]
    told = stages("scoring with intervals")
    first = next(iter(recipes.values()))
    content = build_comparison(
        name=folder.resolve().name,
        candidates=candidates,
        test=_test_of(splits),
        rows={name: len(part) for name, part in splits.named().items()},
        recipes={name: recipe.model_dump(mode="json") for name, recipe in recipes.items()},
        resamples=first.evaluation.resamples,
        confidence=first.evaluation.confidence,
        seed=first.seed,
        groups=splits.calibration.take(splits.calibration.labels != UNKNOWN).groups,
    )
    write_json(folder / CONTENT, content)
    write_text(folder / PAGE, render_comparison(content))
    told(1, 1)
    return content


def _same_splits(recipes: Mapping[str, Recipe], found: Mapping[str, Splits]) -> Splits:
    """Return the splits, after making sure that all can be fitted, and are judged on the same texts."""
    (first, splits), *others = found.items()
    if splits.test is None:
        raise InputError("expected a test set to compare systems on; give data.test or data.test_share")
    for name, recipe in recipes.items():
        check_learning_curve(recipe, found[name].train, tested=True)
    for name, own in others:
        for split in (*JUDGED, *splits.shift, *own.shift):
            one, other = splits.named().get(split), own.named().get(split)
            if one is None or other is None or one.fingerprint() != other.fingerprint():
                raise InputError(
                    f"expected the same {split} texts for all systems; "
                    f"those of {name} are not those of {first}"
                )
    return splits


def _claimed(folder: Path) -> Path:
    """Return the folder of a comparison, made if it is not there; nothing else's folder is written to."""
    if folder.exists() and not folder.is_dir():
        raise RunFolderError(f"expected a folder at {folder}, and there is a file")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / RUNS).is_dir():
        raise RunFolderError(f"{folder} exists and holds no comparison; choose another --output")
    (folder / RUNS).mkdir(parents=True, exist_ok=True)
    return folder


def _within(stages: Stages, name: str) -> Stages:
    """Return stages whose names say which system they are of."""
    return lambda stage: stages(f"{name}: {stage}")


def _test_of(splits: Splits) -> Examples:
    assert splits.test is not None  # `_same_splits` has seen to it
    return splits.test


def _candidates(name: str, run: Run, splits: Splits, stages: Stages) -> Iterator[Candidate]:
    """Yield every form in which a run can answer, with its losses, its answers and its speed measured."""
    calibration, some = calibration_in(run), some_of(_test_of(splits))
    told = stages(f"{name}: measuring speed")
    forms = list(_forms(run, calibration))
    for done, form in enumerate(forms, start=1):
        losses, by_label = _losses(form)
        yield Candidate(
            name=f"{name}: {form.label}",
            kind="single" if form.first else bare_name(form.system),
            losses=losses,
            by_label=by_label,
            answers={
                split: answers(form.system, record, form.calibrators)[0]
                for split, record in form.stored.items()
                if split != "calibration"
            },
            costs={**form.cost, "rows_per_second": _speed(run, form, some)},
        )
        told(done, len(forms))


def _forms(run: Run, calibration: Calibration) -> Iterator[Form]:
    """Yield one member with its temperature, the ensemble where there are several, and every network."""
    costs = costs_by_system(run)
    members = scored_predictions(run, "members")
    alone = {split: record.member(0) for split, record in members.items()}
    system = f"ensemble{CALIBRATED}"
    temperature = {system: Temperature.fit(alone["calibration"])}
    yield Form(ONE_MEMBER, system, alone, temperature, costs.get("single", {}), first=True)
    several = ["ensemble"] if members["test"].shape[0] > 1 else []
    for bare in [*several, *network_systems(run.recipe)]:
        form = chosen_form(bare, [bare, *calibration.calibrators], calibration.choices) or bare
        stored = scored_predictions(run, source_of(bare))
        if stored["calibration"].ids != members["calibration"].ids:
            continue  # a greedy soup chosen on some of these texts cannot be judged by them
        yield Form(bare.replace("_", " "), form, stored, calibration.calibrators, costs.get(bare, {}))


def _losses(form: Form) -> tuple[FloatArray, FloatArray]:
    """Return each calibration text's NLL, (N,) and by label (N, C), under a calibrator fitted without it."""
    record, truth = targets_of(form.stored["calibration"], "labels")
    _, calibrated, kind = form.system.partition("+")
    if calibrated:
        on: On = "mean" if kind.endswith(ON_MEAN) else "members"
        record = cross_fitted(record, kind.removesuffix(ON_MEAN), on=on)
    by_label = np.asarray(-log_of(combine(record)))
    return (truth * by_label).sum(axis=1), by_label


def _speed(run: Run, form: Form, some: Examples) -> float:
    """Return the texts a second that a form answers, measured now: all forms under the same conditions."""
    if form.first:
        source = Ensemble.open(run, run.recipe, class_names_of(run), first=True)
        return rate(lambda: source.predict(some), len(some))
    opened = open_source(run, source_of(form.system))
    return rate(lambda: opened.predict(some), len(some))
