"""Vector scaling and Dirichlet calibration: an affine map of every member's log-probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Self, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from credibly.errors import InputError, listed
from credibly.records import Predictions, check_class_names, normalised_log_probs
from credibly.uncertainty.calibration.affine_fit import Form, choose_strength, fit_affine
from credibly.uncertainty.calibration.calibration_rows import (
    Targets,
    check_classes,
    stratified_order,
    targets_of,
)

FloatArray = NDArray[np.float64]
Map = TypeVar("Map")


class SavedMap:
    """A dataclass that goes to JSON by the names of its values, and back."""

    kind: ClassVar[str]

    def as_json(self) -> dict[str, Any]:
        """Return what `from_json` reads."""
        return {"kind": self.kind, **asdict(cast(Any, self))}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Return the map that `as_json` wrote.

        Raises:
            InputError: a key is missing or unknown, or a value of another type.
        """
        return from_values(cls, cls.kind, content)


@dataclass(frozen=True)
class VectorScaling(SavedMap):
    """The softmax of w * x + b, x a member's log-probabilities (Guo et al. 2017).

    https://arxiv.org/abs/1706.04599. The paper maps logits; a record holds log-probabilities, which are
    logits of which each row was shifted, and a shift matters where the slopes differ.

    Args:
        class_names: of the C classes the numbers belong to.
        slopes: w, C numbers.
        intercepts: b, C numbers.
        strength: of the regularisation under which it was fitted.

    Raises:
        InputError: numbers that are not finite, or not one for each class.

    >>> VectorScaling(("no", "yes"), (1.0, 1.0), (0.0, 0.5)).as_json()["kind"]
    'vector'
    """

    kind: ClassVar[str] = "vector"
    class_names: tuple[str, ...]
    slopes: tuple[float, ...]
    intercepts: tuple[float, ...]
    strength: float = 0.0

    def __post_init__(self) -> None:
        check_class_names(self.class_names)
        C = len(self.class_names)
        check_numbers(self.slopes, (C,))
        check_numbers(self.intercepts, (C,))
        check_strength(self.strength)

    @classmethod
    def fit(
        cls,
        predictions: Predictions,
        targets: Targets = "labels",
        strength: float | None = None,
        seed: int = 0,
    ) -> VectorScaling:
        """Return the map that makes the NLL of the members' mean on these rows least.

        The penalty, strength * (sum (w_c - mean w)^2 + sum b_c^2) on the sum over rows, draws it towards
        a temperature.

        Args:
            predictions: the calibration split's; rows without a target are left out.
            targets: ``labels``, or ``label_probs`` for the raters' shares.
            strength: of the penalty; 0 for none. Chosen by cross-validation on these rows if left out.
            seed: of the folds of that.

        Raises:
            InputError: fewer than two rows of a class, or a strength below zero.
        """
        mapping, chosen = _fitted(predictions, targets, "diagonal", strength, seed)
        slopes = np.diagonal(mapping)
        return cls(predictions.class_names, tuple(slopes.tolist()), tuple(mapping[:, -1].tolist()), chosen)

    def apply(self, predictions: Predictions) -> Predictions:
        """Return the record after the map: every member by the same one, float32, renormalised.

        Raises:
            InputError: the record has other classes, or has them in another order.
        """
        check_same_classes(self.class_names, predictions)
        x = predictions.log_probs.astype(np.float64)
        return with_log_probs(predictions, normalised_log_probs(x * self.slopes + self.intercepts))


@dataclass(frozen=True)
class DirichletCalibration(SavedMap):
    """The softmax of W x + b, x a member's log-probabilities (Kull et al. 2019).

    https://arxiv.org/abs/1910.12656. Named for what it would be exact for: classes whose predictions
    are Dirichlet distributed.

    Args:
        class_names: of the C classes the numbers belong to.
        weights: W, C rows of C numbers.
        intercepts: b, C numbers.
        strength: of the regularisation under which it was fitted.

    Raises:
        InputError: numbers that are not finite, or of another shape.
    """

    kind: ClassVar[str] = "dirichlet"
    class_names: tuple[str, ...]
    weights: tuple[tuple[float, ...], ...]
    intercepts: tuple[float, ...]
    strength: float = 0.0

    def __post_init__(self) -> None:
        check_class_names(self.class_names)
        C = len(self.class_names)
        check_numbers(self.weights, (C, C))
        check_numbers(self.intercepts, (C,))
        check_strength(self.strength)

    @classmethod
    def fit(
        cls,
        predictions: Predictions,
        targets: Targets = "labels",
        strength: float | None = None,
        seed: int = 0,
    ) -> DirichletCalibration:
        """Return the map that makes the NLL of the members' mean on these rows least.

        The penalty is the paper's ODIR, off the diagonal and on the intercepts:
        strength * (sum_(i != j) W_ij^2 + sum_i b_i^2) on the sum over rows. In the paper's terms, on
        the mean over rows, lambda = strength * C (C - 1) / N and mu = strength * C / N.

        Args:
            predictions: the calibration split's; rows without a target are left out.
            targets: ``labels``, or ``label_probs`` for the raters' shares.
            strength: of the penalty; 0 for none. Chosen by cross-validation on these rows if left out.
            seed: of the folds of that.

        Raises:
            InputError: fewer than two rows of a class, or a strength below zero.
        """
        mapping, chosen = _fitted(predictions, targets, "full", strength, seed)
        weights = tuple(tuple(row) for row in mapping[:, :-1].tolist())
        return cls(predictions.class_names, weights, tuple(mapping[:, -1].tolist()), chosen)

    def apply(self, predictions: Predictions) -> Predictions:
        """Return the record after the map: every member by the same one, float32, renormalised.

        Raises:
            InputError: the record has other classes, or has them in another order.
        """
        check_same_classes(self.class_names, predictions)
        z = predictions.log_probs.astype(np.float64) @ np.array(self.weights).T + self.intercepts
        return with_log_probs(predictions, normalised_log_probs(z))


def _fitted(
    predictions: Predictions, targets: str, form: Form, strength: float | None, seed: int
) -> tuple[FloatArray, float]:
    rows, truth = targets_of(predictions, targets)
    check_classes(truth, rows.class_names)
    inputs = rows.log_probs.astype(np.float64)
    if strength is None:
        strength = choose_strength(inputs, truth, form, stratified_order(rows, targets, seed))
    check_strength(strength)
    return fit_affine(inputs, truth, form, strength), float(strength)


def with_log_probs(predictions: Predictions, log_probs: NDArray[np.float32]) -> Predictions:
    """Return the record with these log-probabilities, (M, N, C), in place of its own.

    A Dirichlet keeps its total concentration: its mean moves, and how sure it is does not.
    """
    if predictions.concentrations is None:
        return replace(predictions, log_probs=log_probs)
    total = predictions.concentrations.sum(axis=-1, keepdims=True)
    return replace(predictions, log_probs=log_probs, concentrations=total * np.exp(log_probs[0]))


def check_same_classes(class_names: tuple[str, ...], predictions: Predictions) -> None:
    """Raise InputError unless a record has the classes that a map was fitted on, in their order."""
    if predictions.class_names != class_names:
        raise InputError(
            f"expected the classes that the map was fitted on, {listed(class_names)}, in this order; "
            f"got {listed(predictions.class_names)}"
        )


def check_numbers(numbers: Any, shape: tuple[int, ...]) -> None:
    """Raise InputError unless these are finite numbers of this shape."""
    array = np.array(numbers, dtype=np.float64)
    if array.shape != shape or not np.isfinite(array).all():
        raise InputError(f"expected finite numbers of shape {shape}, got {numbers!r}")


def check_strength(strength: float) -> None:
    """Raise InputError unless a regularisation's strength is finite and not below zero."""
    if not (np.isfinite(strength) and strength >= 0):
        raise InputError(f"expected a finite strength >= 0, got {strength}")


def from_values(cls: type[Map], kind: str, content: Mapping[str, Any]) -> Map:
    """Return the map of this class whose values by name, and whose kind, a file holds.

    Raises:
        InputError: another kind, a key missing or unknown, or a value of another type.
    """
    try:
        values = {str(name): _as_tuples(value) for name, value in content.items()}
        if values.pop("kind", None) != kind:
            raise InputError(f"not of kind '{kind}'")
        return cls(**values)
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(f"expected a map of kind '{kind}', got {content!r:.200} ({error})") from None


def _as_tuples(value: Any) -> Any:
    return tuple(_as_tuples(item) for item in value) if isinstance(value, list | tuple) else value
