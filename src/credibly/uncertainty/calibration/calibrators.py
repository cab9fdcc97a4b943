"""Every calibrator by its kind: fitted on members or on their mean, cross-fitted, read back.

A calibrator is one map, shared by all members, with `fit`, `apply`, `as_json` and `from_json`.
`Temperature` is one number, `EntropyTemperature` two, `VectorScaling` two a class,
`DirichletCalibration` a matrix, `IsotonicCalibration` a curve a class; `OnMean` averages the members
first, `InTurn` joins several.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np

from credibly.errors import InputError, did_you_mean
from credibly.records import Predictions
from credibly.uncertainty.calibration.affine import DirichletCalibration, VectorScaling, from_values
from credibly.uncertainty.calibration.calibrate import Temperature
from credibly.uncertainty.calibration.calibration_rows import (
    FEWEST_OF_A_CLASS,
    IntArray,
    Targets,
    check_classes,
    folds_of,
    targets_of,
)
from credibly.uncertainty.calibration.entropy_temperature import EntropyTemperature
from credibly.uncertainty.calibration.isotonic import IsotonicCalibration
from credibly.uncertainty.combine import averaged, check_rule

On = Literal["mean", "members"]
"""What is mapped: the combined prediction, or every member before they are combined."""


class Calibrator(Protocol):
    """What every calibrator can do."""

    def apply(self, predictions: Predictions) -> Predictions:
        """Return the record after the map."""
        ...

    def as_json(self) -> Mapping[str, Any]:
        """Return what `calibrator_from_json` reads."""
        ...


@dataclass(frozen=True)
class OnMean:
    """A calibrator of the members' combination: what comes out is a record of one member.

    Args:
        calibrator: the map, fitted on the combination.
        rule: how the members are combined, see `combine`.

    Raises:
        InputError: an unknown rule.
    """

    calibrator: Calibrator
    rule: str = "mean_probs"

    def __post_init__(self) -> None:
        check_rule(self.rule)

    def apply(self, predictions: Predictions) -> Predictions:
        """Return the combination after the map, (1, N, C); a Dirichlet's concentrations are gone."""
        return self.calibrator.apply(averaged(predictions, self.rule))

    def as_json(self) -> dict[str, Any]:
        """Return what `from_json` reads."""
        return {"kind": "on_mean", "rule": self.rule, "calibrator": self.calibrator.as_json()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> OnMean:
        """Return the calibrator that `as_json` wrote.

        Raises:
            InputError: a key is missing or unknown, or a value of another type.
        """
        values = dict(content)
        values["calibrator"] = calibrator_from_json(values.get("calibrator"))
        return from_values(cls, "on_mean", values)


@dataclass(frozen=True)
class InTurn:
    """Calibrators one after another.

    Args:
        calibrators: the first one first.
    """

    calibrators: tuple[Calibrator, ...]

    def apply(self, predictions: Predictions) -> Predictions:
        """Return the record after all maps."""
        for calibrator in self.calibrators:
            predictions = calibrator.apply(predictions)
        return predictions

    def as_json(self) -> dict[str, Any]:
        """Return what `from_json` reads."""
        return {"kind": "in_turn", "calibrators": [own.as_json() for own in self.calibrators]}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> InTurn:
        """Return the calibrators that `as_json` wrote.

        Raises:
            InputError: a key is missing or unknown, or a value of another type.
        """
        values, inner = dict(content), content.get("calibrators")
        if not isinstance(inner, list):
            raise InputError(f"expected a list of calibrators, got {inner!r:.200}")
        values["calibrators"] = [calibrator_from_json(own) for own in inner]
        return from_values(cls, "in_turn", values)


BY_CLASS: dict[str, type[VectorScaling] | type[DirichletCalibration] | type[IsotonicCalibration]] = {
    "vector": VectorScaling,
    "dirichlet": DirichletCalibration,
    "isotonic": IsotonicCalibration,
}
"""The maps that have numbers of their own for each class."""

MAPS: dict[
    str,
    type[EntropyTemperature] | type[VectorScaling] | type[DirichletCalibration] | type[IsotonicCalibration],
] = {"entropy_temperature": EntropyTemperature, **BY_CLASS}
"""All maps but one temperature for all rows."""

KINDS = ("identity", "temperature", *MAPS)
"""Every kind of map, the simplest first; the identity is the temperature 1."""


def fit_calibrator(
    predictions: Predictions,
    kind: str,
    on: On = "mean",
    rule: str = "mean_probs",
    targets: Targets = "labels",
) -> Calibrator:
    """Return a map of this kind fitted on these rows.

    ``on="mean"`` maps the combined prediction: a convex problem, and one member comes out.
    ``on="members"`` maps every member by one shared map, scored after they are combined, so that the
    decomposition into aleatoric and epistemic stays defined (isotonic curves are fitted to the members'
    pooled probabilities instead).

    Args:
        predictions: the calibration split's; rows without a target are left out.
        kind: one of `KINDS`.
        on: what is mapped.
        rule: how the members are combined; on members the mean of probabilities alone.
        targets: ``labels``, or ``label_probs`` for the raters' shares.

    Raises:
        InputError: an unknown name, too few rows, or fewer than two of a class where the map has
            numbers for each.
    """
    _check_names(kind, on, rule)
    if on == "mean":
        return OnMean(_fit(averaged(predictions, rule), kind, targets), rule)
    return _fit(predictions, kind, targets)


def cross_fitted(
    predictions: Predictions,
    kind: str,
    folds: int = 5,
    seed: int = 0,
    on: On = "mean",
    rule: str = "mean_probs",
    targets: Targets = "labels",
) -> Predictions:
    """Return the record in which every row was mapped by a calibrator fitted on the other folds alone.

    For rows that are their own calibration set. The folds are stratified by class and go by the rows'
    ids, so that neither the order of rows nor that of classes matters.

    Args:
        predictions: the rows; those without a target are mapped, and never fitted on.
        kind: one of `KINDS`.
        folds: how many, at least 2.
        seed: of the folds.
        on: see `fit_calibrator`.
        rule: see `fit_calibrator`.
        targets: see `fit_calibrator`.

    Raises:
        InputError: as `fit_calibrator`, or fewer than two rows a fold, or fewer than three (for two
            folds four) of a class where the map has numbers for each.
    """
    if kind in BY_CLASS:
        least = FEWEST_OF_A_CLASS + (2 if folds == 2 else 1)
        check_classes(targets_of(predictions, targets)[1], predictions.class_names, least)

    def fit(rows: Predictions) -> Calibrator:
        return fit_calibrator(rows, kind, on, rule, targets)

    return cross_fitted_by(fit, predictions, folds_of(predictions, folds, targets, seed))


def cross_fitted_by(
    fit: Callable[[Predictions], Calibrator], predictions: Predictions, fold_of: IntArray
) -> Predictions:
    """Return the record in which every row was mapped by what ``fit`` made of the other folds' rows.

    Args:
        fit: gives a calibrator for rows.
        predictions: N rows.
        fold_of: the fold of every row, (N,), see `folds_of`.
    """
    parts = [
        fit(predictions.take(fold_of != fold)).apply(predictions.take(fold_of == fold))
        for fold in np.unique(fold_of)
    ]
    # The parts hold the rows fold by fold: the inverse of that order brings them back.
    back = np.argsort(np.argsort(fold_of, kind="stable"))
    soft = [part.concentrations for part in parts if part.concentrations is not None]
    return replace(
        predictions,
        log_probs=np.concatenate([part.log_probs for part in parts], axis=1)[:, back],
        concentrations=np.concatenate(soft)[back] if soft else None,
    )


def calibrator_from_json(content: Any) -> Calibrator:
    """Return the calibrator that ``as_json`` of any kind wrote; one that names no kind is a temperature.

    Raises:
        InputError: an unknown kind, or content that is not of it.

    >>> calibrator_from_json({"temperature": 2.0, "offset": 0.0})
    Temperature(temperature=2.0, offset=0.0)
    """
    kind = content.get("kind") if isinstance(content, Mapping) else None
    if kind is None:
        return Temperature.from_json(content)
    readers = {**MAPS, "on_mean": OnMean, "in_turn": InTurn}
    if not isinstance(kind, str) or kind not in readers:
        raise InputError(f"unknown kind of calibrator '{kind}'{did_you_mean(str(kind), readers)}")
    return readers[kind].from_json(content)


def _fit(predictions: Predictions, kind: str, targets: Targets) -> Calibrator:
    if kind == "identity":
        return Temperature()
    if kind == "temperature":
        return Temperature.fit(predictions, targets=targets)
    return MAPS[kind].fit(predictions, targets)


def _check_names(kind: str, on: str, rule: str) -> None:
    if kind not in KINDS:
        raise InputError(
            f"unknown kind of calibrator '{kind}'{did_you_mean(kind, KINDS)}; expected one of "
            f"{', '.join(KINDS)}"
        )
    if on not in ("mean", "members"):
        raise InputError(f"expected on 'mean' or 'members', got '{on}'")
    if on == "members" and rule != "mean_probs":
        raise InputError(f"expected rule 'mean_probs' for a map of the members, got '{rule}'; use on='mean'")
