"""A run's systems, run by torch."""

from __future__ import annotations

from credibly.distil import Network
from credibly.ensemble import Ensemble
from credibly.errors import RunFolderError
from credibly.records import Predictions
from credibly.runs import Run
from credibly.settings import SOUPS
from credibly.uncertainty.calibration.calibrate import Temperature
from credibly.uncertainty.systems import forms_of, shipped_system, source_of
from credibly.workflows.answering.loading import check_known
from credibly.workflows.answering.predicting import Predictor
from credibly.workflows.answering.promises import Promises, Wanted
from credibly.workflows.common.contents import calibration_in, class_names_of, made_systems, network_systems
from credibly.workflows.common.zero_shot import ZERO_SHOT, zero_shot_network
from credibly.workflows.steps.soups import open_soup


def open_run(run: Run, system: str | None, wanted: Wanted) -> Predictor:
    """Return a finished run's predictor.

    Raises:
        RunFolderError: a file is missing or damaged.
        InputError: the run has no such system, or too few calibration rows for a promise.
    """
    known = systems_of(run)
    system = check_known(system or known[-1], known, "the run")
    promises = Promises.of(run, system, wanted)
    source = open_source(run, source_of(system))
    return Predictor(
        system=system,
        class_names=class_names_of(run),
        record=source.predict,
        calibrators=calibration_in(run).calibrators,
        data=run.recipe.data,
        readers=source.readers,
        promises=promises,
        calibration=lambda: _calibration_of(run, system),
    )


def _calibration_of(run: Run, system: str) -> Predictions | None:
    """Return the record of the calibration texts; None where it was taken away."""
    try:
        return run.load_predictions(source_of(system), "calibration")
    except RunFolderError:
        return None


def systems_of(run: Run) -> list[str]:
    """Return the systems of a run that can answer, the one to ship last."""
    made = made_systems(run.recipe)
    untrained = [name for name in network_systems(run.recipe) if name not in made]
    bare = [*untrained, "majority_vote", "mean_logits", "ensemble", *made]
    calibration = calibration_in(run)
    forms = [form for name in bare for form in forms_of(name, calibration.calibrators)]
    shipped = shipped_system(forms, calibration.choices)
    return [*(form for form in forms if form != shipped), shipped]


def open_source(run: Run, source: str) -> Network | Ensemble:
    """Return a source, whose `predict` gives the raw record of examples, as the run stores it.

    Raises:
        RunFolderError: a weight file is missing or damaged.
    """
    if source == "members":
        return Ensemble.open(run, run.recipe, class_names_of(run))
    if source == ZERO_SHOT:
        return zero_shot_network(run.recipe, class_names_of(run))
    folder = run.model_folder(source)
    run.check(folder / "model.safetensors")
    if source in SOUPS:
        return open_soup(run, source)
    student = source == "student"
    folded = calibration_in(run).folded if student else Temperature()
    return Network.open(folder, run.recipe.student_backbone, emits_dirichlet=student, folded=folded)
