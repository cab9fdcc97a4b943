"""What every table calls a system, computed from stored predictions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from credibly.errors import InputError, listed
from credibly.records import IntArray, Predictions
from credibly.uncertainty.calibrate import Temperature
from credibly.uncertainty.combine import combine
from credibly.uncertainty.decompose import Uncertainty, decompose

FloatArray = NDArray[np.float64]

CALIBRATED = "+temperature"
"""What the name of a system ends with when its temperature is applied first."""

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
    """

    probs: FloatArray
    uncertainty: Uncertainty
    labels: IntArray
    label_probs: FloatArray | None
    ids: tuple[str, ...]
    class_names: tuple[str, ...]

    @property
    def predicted(self) -> IntArray:
        """int64, (N,): the most probable class, the lowest index where several are."""
        return np.asarray(self.probs.argmax(axis=-1), dtype=np.int64)

    @property
    def confidence(self) -> FloatArray:
        """float64, (N,): the probability of the predicted class."""
        return np.asarray(self.probs.max(axis=-1))


def source_of(name: str) -> str:
    """Return the name of the stored record that a system reads.

    >>> source_of("mean_logits+temperature"), source_of("student+temperature")
    ('members', 'student')
    """
    base = name.removesuffix(CALIBRATED)
    return "members" if base == "single" or base in RULE_OF else base


def answers(
    name: str, predictions: Predictions, calibrators: Mapping[str, Temperature]
) -> tuple[Answer, ...]:
    """Return a system's answers: M for ``single``, one a member; exactly one for every other.

    ``X+temperature`` applies ``calibrators["X+temperature"]`` to every member first. A bare network
    that emits a Dirichlet applies ``calibrators["X"]`` where there is one: T = 1, with the offset that
    was fitted to the ensemble's mean mutual information. The uncertainty is always that of the
    members themselves (`decompose`), whichever rule combines them.

    Args:
        name: the system.
        predictions: the stored record that `source_of` names.
        calibrators: by the system's name.

    Raises:
        InputError: a calibrator that the name asks for is missing.
    """
    base = name.removesuffix(CALIBRATED)
    calibrated = _calibrator(name, predictions, calibrators).apply(predictions)
    if base == "single":
        return tuple(_answer(calibrated.member(index), "mean_probs") for index in range(calibrated.shape[0]))
    return (_answer(calibrated, RULE_OF.get(base, "mean_probs")),)


def _calibrator(name: str, predictions: Predictions, calibrators: Mapping[str, Temperature]) -> Temperature:
    if name.endswith(CALIBRATED) and name not in calibrators:
        known = listed(sorted(calibrators), 20) or "none"
        raise InputError(
            f"expected a calibrator named '{name}', got {known}; fit one with "
            "Temperature.fit on the calibration split"
        )
    if name.endswith(CALIBRATED) or predictions.concentrations is not None:
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
    )
