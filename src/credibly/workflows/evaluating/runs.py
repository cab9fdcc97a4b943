"""Evaluate and report: stored predictions, or a further file, scored with intervals."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from credibly.data import Splits, read_examples
from credibly.data.containment import grouped
from credibly.data.leaks import unshown
from credibly.data.opinions import shown_to
from credibly.errors import RunFolderError
from credibly.passes import member_names
from credibly.progress import Stages, silent
from credibly.reading import Reader
from credibly.records import Examples, Predictions
from credibly.report import build_report, render_html, write_plots, write_report
from credibly.runs import Run, refuse_folder, write_text
from credibly.settings import with_columns
from credibly.training import HISTORY
from credibly.uncertainty.unknown.shift import Scores
from credibly.workflows.answering.opening import open_source
from credibly.workflows.common.contents import (
    NOT_SCORED,
    Calibration,
    calibration_in,
    class_names_of,
    folder_bytes,
    further_students,
    known_costs,
    network_systems,
)
from credibly.workflows.common.lengths import cut_notes
from credibly.workflows.evaluating.rounds import round_notes
from credibly.workflows.labelling.labelled import judged_labellers, mean_notes
from credibly.workflows.steps.learning import learned_on_parts


def write_run_report(
    run: Run,
    test: Examples,
    splits: Splits,
    stages: Stages = silent,
    strangeness: Mapping[str, Scores] | None = None,
) -> dict[str, Any]:
    """Score every system of a run on its stored splits, and write report.json and report.html.

    Args:
        run: whose predictions are stored.
        test: the test set.
        splits: all sets.
        stages: told of progress.
        strangeness: embedding scores of the test and shift sets, by set; see `build_report`.
    """
    told = stages("scoring with intervals")
    told(0, 1)
    recipe, calibration = run.recipe, calibration_in(run)
    stored, students = (
        {source: scored_predictions(run, source) for source in sources}
        for sources in (["members", *network_systems(recipe)], further_students(recipe))
    )
    report = build_report(
        run_name=run.path.resolve().name,
        recipe=recipe.model_dump(mode="json"),
        stored=stored,
        calibrators=calibration.calibrators,
        choices=calibration.choices,
        costs=costs_by_system(run),
        test=test,
        notes=list(dict.fromkeys([*splits.notes, *round_notes(run)])),
        resamples=recipe.evaluation.resamples,
        confidence=recipe.evaluation.confidence,
        seed=recipe.seed,
        shift_splits=list(splits.shift),
        histories=histories_of(run),
        strangeness=strangeness,
        students=students,
        learning=learned_on_parts(run, len(splits.train)),
        member_names=member_names(recipe),
        calibrated_by_opinions=recipe.data.calibrated_by_opinions,
    )
    write_report(run, report)
    told(1, 1)
    return report


def scored_predictions(run: Run, source: str) -> dict[str, Predictions]:
    """Return a source's predictions on the splits by which systems are judged or calibrated."""
    return {
        split: run.load_predictions(source, split)
        for split in run.splits_of(source)
        if split not in NOT_SCORED
    }


def report(path: str | Path, plots: Path | None = None) -> dict[str, Any]:
    """Return a finished run's report, and render report.html anew from it.

    Args:
        path: the run folder.
        plots: a folder for every plot as SVG, PNG and CSV.

    Raises:
        InputError: the folder for plots is a file, or cannot be made.
        RunFolderError: the run is unfinished or its report damaged, or it had no test set to report on.
    """
    run = Run.open(path)
    if "test" not in run.splits_of("members"):
        raise RunFolderError(f"{path} had no test set, so it has no report; score it on a file: evaluate")
    content = run.read_json(run.check(run.report_json))
    write_text(run.report_html, render_html(content))
    if plots is not None:
        write_plots(content, plots)
    return content


def evaluate(
    path: str | Path,
    file: str | Path,
    settings: Mapping[str, Any] | None = None,
    html: Path | None = None,
    stages: Stages = silent,
) -> dict[str, Any]:
    """Score every system of a finished run on a further labelled file.

    Of a run that `label` left these are the labellers, their bias taken off as it was there and, as
    ``with_bias``, as their model says it; texts that they were shown are left out.

    Args:
        path: the run folder; it is left as it is.
        file: with the columns of the run's recipe.
        settings: data settings that differ for this file, such as ``{"label": "stars"}``.
        html: where to write the page, if anywhere.
        stages: told of progress.

    Returns:
        A report as report.json holds it; the file stands where the test split does.

    Raises:
        DataError: the file cannot be used, or has a label that the run does not know.
        RunFolderError: the run is unfinished or damaged.
    """
    if html is not None:
        refuse_folder(html)
    labelled = Run(path).labels_file.is_file()
    run = Run.open(path, labels=labelled)
    recipe, calibration = run.recipe, Calibration({}) if labelled else calibration_in(run)
    data = with_columns(recipe.data, settings or {}).model_copy(update={"weight": None})
    examples, notes = read_examples(file, data, class_names_of(run)), list[str]()
    if labelled:
        examples = unshown("test", examples, shown_to(run), notes)
        notes += mean_notes(recipe, "judged")
    examples = grouped(examples) if data.group is None else examples
    stored: dict[str, dict[str, Predictions]] = {}
    readers: list[Reader] = []
    for source in ["members", *network_systems(recipe)]:
        told = stages(f"predicting with {source}")
        opened = open_source(run, source)
        readers += opened.readers
        stored[source] = {"test": opened.predict(examples)}
        told(1, 1)
    if labelled:
        stored = judged_labellers(run, stored["members"]["test"], examples.texts)
    content = build_report(
        run_name=f"{run.path.resolve().name} on {Path(file).name}",
        recipe=recipe.model_dump(mode="json"),
        stored=stored,
        calibrators=calibration.calibrators,
        choices=calibration.choices,
        costs={},
        test=examples,
        notes=[*notes, *cut_notes(readers, {"test": examples}, data)],
        resamples=recipe.evaluation.resamples,
        confidence=recipe.evaluation.confidence,
        seed=recipe.seed,
        shift_splits=[],
        member_names=member_names(recipe),
    )
    if html is not None:
        write_text(html, render_html(content))
    return content


def histories_of(run: Run) -> dict[str, list[dict[str, float]]]:
    """Return every training history of a run: "members/SEED" and the networks' names."""
    folders = {
        f"members/{folder.name}": folder for folder in sorted(run.members_folder.glob("[!.]*"), key=_number)
    }
    folders |= {system: run.model_folder(system) for system in network_systems(run.recipe)}
    return {
        name: [json.loads(line) for line in (folder / HISTORY).read_text(encoding="utf-8").splitlines()]
        for name, folder in folders.items()
        if (folder / HISTORY).is_file()
    }


def costs_by_system(run: Run) -> dict[str, dict[str, float | None]]:
    """Return seconds to train, parameters, bytes and rows a second by system.

    A single member's seconds are its even share of what training all of them took.
    """
    costs = known_costs(run)
    count = run.recipe.members.count
    result: dict[str, dict[str, float | None]] = {}
    if members := costs.get("members"):
        for system, number in (("single", 1), ("ensemble", count), ("majority_vote", count)):
            result[system] = {
                "seconds": members["training_seconds"] * number / count,
                "parameters": members["shared_parameters"] + number * members["member_parameters"],
                "bytes": members["shared_bytes"] + number * members["member_bytes"],
                "rows_per_second": members["rows_per_second"],
            }
    for system in network_systems(run.recipe):
        if figures := costs.get(system):
            result[system] = {
                "seconds": figures["training_seconds"],
                "parameters": figures["parameters"],
                "bytes": figures.get("bytes") or folder_bytes(run.model_folder(system)),
                "rows_per_second": figures["rows_per_second"],
            }
    return result


def _number(folder: Path) -> int:
    return int(folder.name) if folder.name.isdigit() else -1
