"""What a run folder holds: its networks, classes, calibrations and costs."""

from __future__ import annotations

from pathlib import Path

from credibly.runs import Run
from credibly.settings import Recipe
from credibly.uncertainty.calibrate import Temperature
from credibly.workflows.zero_shot import ZERO_SHOT, starting_from_words


def network_systems(recipe: Recipe) -> list[str]:
    """Return the networks of a run: the untrained one first, the student last."""
    zero_shot = [ZERO_SHOT] if starting_from_words(recipe) else []
    return [*zero_shot, *tuned_systems(recipe)]


def tuned_systems(recipe: Recipe) -> list[str]:
    """Return the networks of a run that were tuned beside the members: controls first, the student last."""
    return [*recipe.distil.controls, "student"] if recipe.distil.enabled else []


def known_costs(run: Run) -> dict[str, dict[str, float]]:
    """Return what each source of the run is known to cost so far."""
    return run.read_json(run.costs_file) if run.costs_file.is_file() else {}


def calibrators_in(run: Run) -> dict[str, Temperature]:
    """Return a run's fitted calibrations by system."""
    content = run.read_json(run.check(run.calibration_file))
    return {name: Temperature.from_json(values) for name, values in content.items()}


def class_names_of(run: Run) -> tuple[str, ...]:
    """Return a run's class names."""
    return run.load_predictions("members", "calibration").class_names


def folder_bytes(folder: Path) -> int:
    """Return the bytes of all weight files below a folder; 0 for a hub id."""
    return sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
