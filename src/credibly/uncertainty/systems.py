"""What every table calls a system, computed from stored predictions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from credibly.errors import InputError, listed
from credibly.records import IntArray, Predictions
from credibly.uncertainty.calibration.calibrate import Temperature
from credibly.uncertainty.calibration.calibrators import Calibrator, InTurn
from credibly.uncertainty.calibration.entropy_temperature import EntropyTemperature
from credibly.uncertainty.combine import combine
from credibly.uncertainty.decompose import Uncertainty, decompose

FloatArray = NDArray[np.float64]

CALIBRATED = "+temperature"
"""What the name of a system ends with when its temperature is applied first."""

ON_MEAN = "_on_mean"
"""What it ends with where the calibrator maps the members' combination: ``ensemble+vector_on_mean``."""

OF_MEMBERS = ("members", "hydra")
"""Sources whose answers are means of several."""

Choices = Mapping[str, Mapping[str, Any]]
"""By a bare system's name: the ``system`` as which it answers, and the ``candidates`` for it, if any."""

RULE_OF = {"ensemble": "mean_probs", "mean_logits": "mean_logits", "majority_vote": "majority_vote"}
"""How the systems that are computed from the members combine them."""


@dataclass(frozen=True)
class Answer:
    """What one system answers: probabilities, and how uncertain they are.

    Args:
        probs: float64, (N, C), probabilities, each row normalised.
        uncertainty: in nats, each part float64, (N,).
        labels: int64, (N,), -1 where unknown.
        label_probs: float64, (N, C), normalised: the raters' shares; None where there are none.
        ids: N unique names.
        class_names: C names.
        concentrations: (N, C), positive: of the Dirichlet that the system emits; None where it emits none.
        groups: int64, (N,): rows of one number belong together; None where none do.
    """

    probs: FloatArray
    uncertainty: Uncertainty
    labels: IntArray
    label_probs: FloatArray | None
    ids: tuple[str, ...]
    class_names: tuple[str, ...]
    concentrations: NDArray[np.float32] | None = None
    groups: IntArray | None = None

    @property
    def predicted(self) -> IntArray:
        """int64, (N,): the most probable class, the lowest index where several are."""
        return np.asarray(self.probs.argmax(axis=-1), dtype=np.int64)

    @property
    def confidence(self) -> FloatArray:
        """float64, (N,): the probability of the predicted class."""
        return np.asarray(self.probs.max(axis=-1))


def bare_name(name: str) -> str:
    """Return what a system is called before its calibrator.

    >>> bare_name("student+temperature"), bare_name("ensemble+vector_on_mean"), bare_name("ensemble")
    ('student', 'ensemble', 'ensemble')
    """
    return name.partition("+")[0]


def forms_of(name: str, calibrators: Iterable[str]) -> list[str]:
    """Return a system and its calibrated forms, the one with temperature first.

    >>> forms_of("student", ["student", "student+vector", "student+temperature", "direct+temperature"])
    ['student', 'student+temperature', 'student+vector']
    """
    forms = [form for form in calibrators if form.startswith(f"{name}+")]
    return [name, *sorted(forms, key=lambda form: form != name + CALIBRATED)]


def chosen_form(name: str, names: Iterable[str], choices: Choices | None = None) -> str | None:
    """Return the form in which a system answers: as was chosen, else with temperature, else bare, if any.

    >>> chosen_form("direct", ["direct", "direct+temperature"]), chosen_form("direct", ["student"])
    ('direct+temperature', None)
    >>> chosen_form("direct", ["direct", "direct+temperature"], {"direct": {"system": "direct"}})
    'direct'
    """
    known = set(names)
    wanted = ((choices or {}).get(name, {}).get("system"), name + CALIBRATED, name)
    return next((form for form in wanted if form in known), None)


def shipped_system(names: Iterable[str], choices: Choices | None = None) -> str:
    """Return the system that answers in use: the student where there is one, calibrated as was chosen.

    >>> shipped_system(["single", "ensemble", "ensemble+temperature"])
    'ensemble+temperature'
    """
    names = list(names)
    return next(form for name in ("student", "ensemble") if (form := chosen_form(name, names, choices)))


def keeps_labels(name: str, calibrators: Mapping[str, Calibrator]) -> bool:
    """Return whether a system's labels are those that it gives without its calibrator.

    So they are after z / T + c, but for means of members where two classes are all but equal, and after a
    temperature by entropy where there is one member.
    """
    calibrator = calibrators.get(name, Temperature())
    maps = calibrator.calibrators if isinstance(calibrator, InTurn) else (calibrator,)
    kept = Temperature if source_of(name) in OF_MEMBERS else Temperature | EntropyTemperature
    return all(isinstance(own, kept) for own in maps)


def source_of(name: str) -> str:
    """Return the name of the stored record that a system reads.

    >>> source_of("mean_logits+temperature"), source_of("student+temperature")
    ('members', 'student')
    """
    bare = bare_name(name)
    return "members" if bare == "single" or bare in RULE_OF else bare


def answers(name: str, predictions: Predictions, calibrators: Mapping[str, Calibrator]) -> tuple[Answer, ...]:
    """Return a system's answers: M for ``single``, one a member; exactly one for every other.

    ``X+temperature`` applies ``calibrators["X+temperature"]`` to every member first, and so does every
    other calibrator, but for those ``_on_mean``, which leave one member. A bare network that emits a
    Dirichlet applies ``calibrators["X"]`` where there is one: T = 1, with the offset that was fitted to
    the ensemble's mean mutual information. The uncertainty is always that of the members themselves
    (`decompose`), whichever rule combines them.

    Args:
        name: the system.
        predictions: the stored record that `source_of` names.
        calibrators: by the system's name.

    Raises:
        InputError: a calibrator that the name asks for is missing.
    """
    bare = bare_name(name)
    calibrated = _calibrator(name, predictions, calibrators).apply(predictions)
    if bare == "single":
        return tuple(_answer(calibrated.member(index), "mean_probs") for index in range(calibrated.shape[0]))
    return (_answer(calibrated, RULE_OF.get(bare, "mean_probs")),)


def _calibrator(name: str, predictions: Predictions, calibrators: Mapping[str, Calibrator]) -> Calibrator:
    calibrated = name != bare_name(name)
    if calibrated and name not in calibrators:
        known = listed(sorted(calibrators), 20) or "none"
        raise InputError(
            f"expected a calibrator named '{name}', got {known}; fit one with "
            "Temperature.fit on the calibration split"
        )
    if calibrated or predictions.concentrations is not None:
        return calibrators.get(name, Temperature())
    return Temperature()


def _answer(predictions: Predictions, rule: str) -> Answer:
    return Answer(
        probs=combine(predictions, rule),
        uncertainty=decompose(predictions),
        labels=np.asarray(predictions.labels),
        label_probs=None if predictions.label_probs is None else predictions.label_probs.astype(np.float64),
        ids=predictions.ids,
        class_names=predictions.class_names,
        concentrations=predictions.concentrations,
        groups=predictions.groups,
    )
