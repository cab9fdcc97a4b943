"""Isotonic calibration: a rising curve for each class against the rest, then renormalised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from credibly.errors import InputError
from credibly.records import Predictions, check_class_names, log_of_probs
from credibly.uncertainty.calibration.affine import (
    SavedMap,
    check_numbers,
    check_same_classes,
    with_log_probs,
)
from credibly.uncertainty.calibration.calibration_rows import Targets, check_classes, targets_of
from credibly.uncertainty.combine import combine
from credibly.uncertainty.numerics import log_of, probs_of

FloatArray = NDArray[np.float64]

Curve = tuple[tuple[float, ...], tuple[float, ...]]
"""The corners of a curve: probabilities said, rising, and what becomes of them."""

AS_IT_IS: Curve = ((0.0, 1.0), (0.0, 1.0))


@dataclass(frozen=True)
class IsotonicCalibration(SavedMap):
    """A rising curve for each class's probability, then renormalised (Zadrozny & Elkan 2002).

    https://doi.org/10.1145/775047.775151. Between its corners a curve is straight, beyond them flat.

    Args:
        class_names: of the C classes the curves belong to.
        curves: C pairs of as many probabilities said, rising, and probabilities instead, not falling.

    Raises:
        InputError: not one curve for each class, or numbers that make no such curve.
    """

    kind: ClassVar[str] = "isotonic"
    class_names: tuple[str, ...]
    curves: tuple[Curve, ...]

    def __post_init__(self) -> None:
        check_class_names(self.class_names)
        if len(self.curves) != len(self.class_names) or any(len(curve) != 2 for curve in self.curves):
            raise InputError(f"expected a curve for each of {len(self.class_names)} classes")
        for said, instead in self.curves:
            check_numbers(said, (len(instead),))
            check_numbers(instead, (max(len(said), 1),))
            if (np.diff(said) <= 0).any() or (np.diff(instead) < 0).any() or instead[0] < 0:
                raise InputError("expected curves that rise, of probabilities >= 0")

    @classmethod
    def fit(cls, predictions: Predictions, targets: Targets = "labels") -> IsotonicCalibration:
        """Return the curves of least squared error (and of least NLL, class by class) on these rows.

        All members' probabilities are pooled to fit them. Values are kept within [1 / (N + 2),
        1 - 1 / (N + 2)]: N rows cannot tell what is rarer, and a zero would be scored as impossible.
        Renormalising more than two classes can make the NLL of the members' mean larger than before: the
        curves then are those that change nothing.

        Args:
            predictions: the calibration split's; rows without a target are left out.
            targets: ``labels``, or ``label_probs`` for the raters' shares.

        Raises:
            InputError: fewer than two rows of a class.
        """
        rows, truth = targets_of(predictions, targets)
        check_classes(truth, rows.class_names)
        said = probs_of(rows.log_probs)
        fitted = cls(
            rows.class_names, tuple(_curve(said[:, :, c], truth[:, c]) for c in range(truth.shape[1]))
        )
        before, after = (-(truth * log_of(combine(each))).sum() for each in (rows, fitted.apply(rows)))
        return fitted if after < before else cls(rows.class_names, (AS_IT_IS,) * truth.shape[1])

    def apply(self, predictions: Predictions) -> Predictions:
        """Return the record after the curves: every member by the same ones, float32, renormalised.

        A row of which every class is set to zero becomes uniform.

        Raises:
            InputError: the record has other classes, or has them in another order.
        """
        check_same_classes(self.class_names, predictions)
        said = probs_of(predictions.log_probs)
        instead = np.stack([np.interp(said[..., c], *curve) for c, curve in enumerate(self.curves)], axis=-1)
        instead[instead.sum(axis=-1) == 0] = 1.0
        return with_log_probs(predictions, log_of_probs(instead / instead.sum(axis=-1, keepdims=True)))


def _curve(said: FloatArray, truth: FloatArray) -> Curve:
    """Return the curve of one class: probabilities (M, N) against targets (N,)."""
    # Equal probabilities are one point, or which comes first would matter; single precision tells no
    # two apart whose logarithms differ by less than 1e-5.
    _, place, rows = np.unique(np.round(log_of(said), 5), return_inverse=True, return_counts=True)
    points = np.bincount(place.ravel(), said.ravel()) / rows
    shares = np.bincount(place.ravel(), np.broadcast_to(truth, said.shape).ravel()) / rows
    values = isotonic_regression(shares, weights=rows.astype(np.float64)).x
    least = 1 / (len(truth) + 2)
    values = np.clip(values, least, 1 - least)
    # A corner is where a level begins or ends: points inside a level say nothing more.
    changes = np.diff(values) != 0
    corner = np.concatenate([[True], changes]) | np.concatenate([changes, [True]])
    return tuple(points[corner].tolist()), tuple(values[corner].tolist())
