"""Calibrate: a finished run anew, by what its systems said of the calibration texts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from credibly.progress import Stages, silent
from credibly.runs import Run
from credibly.workflows.common.provenance import splits_of
from credibly.workflows.common.recipes import make_recipe
from credibly.workflows.fitting.beginning import begin
from credibly.workflows.fitting.fit import carry_out


def recalibrate(path: str | Path, method: str = "auto", on: str = "members", stages: Stages = silent) -> Run:
    """Calibrate a finished run by another method, score it anew, and return it: nothing is trained.

    The run's recipe, calibration and report are replaced; its networks and what they said stay. The student's
    weights, if a temperature is folded into them, keep it. What was exported is removed.

    Args:
        path: the run folder; its data files must be there as they were.
        method: see `calibration.method` of a recipe.
        on: see `calibration.on`.
        stages: told of progress.

    Raises:
        InputError: an unknown method, or one that these calibration texts are too few for.
        RunFolderError: the run is unfinished or damaged, or its texts are others by now.
    """
    run = Run.open(path)
    recipe = make_recipe(run.recipe, {"calibration.method": method, "calibration.on": on})
    if recipe.calibration == run.recipe.calibration:
        return run
    known = run.read_json(run.check(run.report_json))["notes"] if run.report_json.is_file() else []
    work = begin(run, recipe, splits_of(run, run.recipe), stages, resume=True)
    notes = tuple(dict.fromkeys([*known, *work.splits.notes]))
    return carry_out(replace(work, splits=replace(work.splits, notes=notes)))
