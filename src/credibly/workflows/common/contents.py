"""What a run folder holds: its networks, classes, calibrations and costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from credibly.runs import Run
from credibly.settings import SOUPS, Recipe
from credibly.uncertainty.calibration.calibrate import Temperature
from credibly.uncertainty.calibration.calibrators import Calibrator, calibrator_from_json
from credibly.uncertainty.systems import CALIBRATED, Choices

CHOICES = "choices"
"""The key of calibration.json beside the systems' names; not there where every system has its temperature."""

NOT_SCORED = ("train", "unlabelled")
"""Splits by which nothing is judged or calibrated."""

HYDRA = "hydra"
"""The control with one head a member: a network whose record has M members."""


@dataclass(frozen=True)
class Calibration:
    """What was fitted on a run's calibration split.

    Args:
        calibrators: by system.
        choices: the form in which each system answers, where more than a temperature was asked for.
    """

    calibrators: Mapping[str, Calibrator]
    choices: Choices = field(default_factory=dict)

    @property
    def folded(self) -> Temperature:
        """What the student's last layer holds: its temperature, whatever else it answers with."""
        folded = self.calibrators[f"student{CALIBRATED}"]
        assert isinstance(folded, Temperature)
        return folded

    def joined(self, other: Calibration) -> Calibration:
        """Return both in one."""
        return Calibration({**self.calibrators, **other.calibrators}, {**self.choices, **other.choices})

    def as_json(self) -> dict[str, Any]:
        """Return what calibration.json holds."""
        fitted = {name: calibrator.as_json() for name, calibrator in self.calibrators.items()}
        return {**fitted, CHOICES: self.choices} if self.choices else fitted

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Calibration:
        """Return what `as_json` wrote, or a run before it, which has temperatures alone.

        Raises:
            InputError: a calibrator cannot be read.
        """
        fitted = {name: own for name, own in content.items() if name != CHOICES}
        return cls(
            {name: calibrator_from_json(own) for name, own in fitted.items()}, content.get(CHOICES, {})
        )


def network_systems(recipe: Recipe) -> list[str]:
    """Return the networks of a run: the untrained one first, the student last."""
    from credibly.workflows.common.zero_shot import ZERO_SHOT, starting_from_words  # brings torch with it

    zero_shot = [ZERO_SHOT] if starting_from_words(recipe) else []
    return [*zero_shot, *made_systems(recipe)]


def made_systems(recipe: Recipe) -> list[str]:
    """Return the networks that a run made beside the members: controls first, the student last."""
    return [*recipe.distil.controls, "student"] if recipe.distil.enabled else []


def tuned_systems(recipe: Recipe) -> list[str]:
    """Return those of them that were tuned."""
    return [name for name in made_systems(recipe) if name not in SOUPS]


def soups_of(recipe: Recipe) -> list[str]:
    """Return those of them that are means of the members' weights."""
    return [name for name in made_systems(recipe) if name in SOUPS]


def further_students(recipe: Recipe) -> dict[str, int]:
    """Return the seeds of the students beside the first, by the name under which their answers are stored."""
    count = recipe.distil.seeds if recipe.distil.enabled else 1
    return {f"student_seed_{seed}": seed for seed in range(recipe.seed + 1, recipe.seed + count)}


def round_names(system: str, recipe: Recipe) -> list[str]:
    """Return the names under which a student's rounds of self-training before its last are known."""
    rounds = recipe.distil.self_training.rounds if recipe.distil.enabled else 0
    return [] if system in recipe.distil.controls else [f"{system}_round_{turn}" for turn in range(rounds)]


def known_costs(run: Run) -> dict[str, dict[str, float]]:
    """Return what each source of the run is known to cost so far."""
    return run.read_json(run.costs_file) if run.costs_file.is_file() else {}


def calibration_in(run: Run) -> Calibration:
    """Return what was fitted on a run's calibration split."""
    return Calibration.from_json(run.read_json(run.check(run.calibration_file)))


def calibrators_in(run: Run) -> Mapping[str, Calibrator]:
    """Return a run's fitted calibrators by system."""
    return calibration_in(run).calibrators


def class_names_of(run: Run) -> tuple[str, ...]:
    """Return a run's class names.

    Raises:
        RunFolderError: the members' predictions are missing or damaged.
    """
    split = "unlabelled" if run.labels_file.is_file() else "calibration"
    return run.load_predictions("members", split).class_names


def folder_bytes(folder: Path) -> int:
    """Return the bytes of all weight files below a folder; 0 for a hub id."""
    return sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
