"""A temperature for every row, by its entropy: two numbers that bend where one temperature only stretches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from credibly.errors import InputError
from credibly.records import Predictions, normalised_log_probs
from credibly.uncertainty.calibration.affine import SavedMap, check_numbers, with_log_probs
from credibly.uncertainty.calibration.calibrate import HIGHEST_TEMPERATURE, LOWEST_TEMPERATURE, Temperature
from credibly.uncertainty.calibration.calibration_rows import Targets, targets_of
from credibly.uncertainty.numerics import SMALLEST_PROBABILITY, entropy_of_log_probs, log_of, probs_of

FloatArray = NDArray[np.float64]

TAIL = 0.01
"""Share of the calibration rows at either end, by entropy, beyond which the temperature stays as it is."""


@dataclass(frozen=True)
class EntropyTemperature(SavedMap):
    """The softmax of x / T, T = ln(1 + exp(b + w ln h)), h a member's entropy as a share of ln C.

    Entropy-based temperature scaling (Balanya, Maroñas and Ramos 2022, https://arxiv.org/abs/2208.00461).
    It mends a model that is too sure where it hesitates and sure enough, or not enough, where it does not
    (or the other way round), and leaves every member's most probable class as it is.

    Args:
        intercept: b.
        slope: w; 0 is one temperature for all rows.
        lowest: of ln h among the rows that it was fitted on, but for 1 %: a row below it is given its T.
        highest: the same at the other end.

    Raises:
        InputError: numbers that are not finite, or no such range.

    >>> round(float(EntropyTemperature(np.log(np.e - 1), 0.0, -5.0, 0.0).temperatures(np.array(-1.0))), 6)
    1.0
    """

    kind: ClassVar[str] = "entropy_temperature"
    intercept: float
    slope: float
    lowest: float
    highest: float

    def __post_init__(self) -> None:
        check_numbers((self.intercept, self.slope, self.lowest, self.highest), (4,))
        if not self.lowest <= self.highest:
            raise InputError(f"expected lowest <= highest, got {self.lowest} and {self.highest}")

    @classmethod
    def fit(cls, predictions: Predictions, targets: Targets = "labels") -> EntropyTemperature:
        """Return the b and w that make the NLL of the members' mean on these rows least, w drawn to zero.

        The penalty, w^2 / 2 on the sum over rows, is a standard normal prior: some dozens of rows do not
        bend the map as they please. The search starts from the best single temperature, so that it never
        ends above its NLL.

        Args:
            predictions: the calibration split's; rows without a target are left out.
            targets: ``labels``, or ``label_probs`` for the raters' shares.

        Raises:
            InputError: fewer than two rows with a target.
        """
        rows, truth = targets_of(predictions, targets)
        log_probs = rows.log_probs.astype(np.float64, order="C")
        shares = log_shares(log_probs)
        lowest, highest = np.quantile(shares, [TAIL, 1 - TAIL]).tolist()

        def of(values: FloatArray) -> EntropyTemperature:
            return cls(float(values[0]), float(values[1]), lowest, highest)

        def loss(values: FloatArray) -> tuple[float, FloatArray]:
            return _loss(of(values), log_probs, shares, truth)

        start = np.array([np.log(np.expm1(Temperature.fit(rows, targets=targets).temperature)), 0.0])
        best = minimize(loss, start, method="L-BFGS-B", jac=True, options={"ftol": 1e-15, "gtol": 1e-9}).x
        return of(best if loss(best)[0] < loss(start)[0] else start)

    def temperatures(self, shares: FloatArray) -> FloatArray:
        """Return T, within [0.05, 20], for any number of ln h."""
        found = np.logaddexp(0.0, self.intercept + self.slope * np.clip(shares, self.lowest, self.highest))
        return np.asarray(np.clip(found, LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE))

    def apply(self, predictions: Predictions) -> Predictions:
        """Return the record after x / T: every member by its own entropy, float32, renormalised."""
        x = predictions.log_probs.astype(np.float64)
        return with_log_probs(
            predictions, normalised_log_probs(x / self.temperatures(log_shares(x))[..., None])
        )


def log_shares(log_probs: FloatArray) -> FloatArray:
    """Return ln h of log-probabilities (..., C), h being the entropy as a share of ln C, 1e-12 or more."""
    share = entropy_of_log_probs(log_probs) / np.log(log_probs.shape[-1])
    return np.asarray(np.log(np.clip(share, SMALLEST_PROBABILITY, 1.0)))


def _loss(
    scaling: EntropyTemperature, x: FloatArray, shares: FloatArray, truth: FloatArray
) -> tuple[float, FloatArray]:
    """Return the mean NLL of the members' mean with its penalty, and its gradient by b and w.

    Args:
        scaling: the map.
        x: log-probabilities, (M, N, C).
        shares: their ln h, (M, N).
        truth: targets, (N, C).
    """
    M, N, _ = x.shape
    T = scaling.temperatures(shares)
    probs = probs_of(x / T[..., None])
    combined = np.maximum(probs.mean(axis=0), SMALLEST_PROBABILITY)
    # d ln p_c / d T = -(x_c - sum_k p_k x_k) / T^2, and each member has 1 / M of its part in the mean.
    distance = x - (probs * x).sum(axis=-1, keepdims=True)
    by_temperature = (truth / combined * probs * distance).sum(axis=-1) / (T**2 * M * N)
    # d T / d (b + w ln h), from T itself; T at an end of its range does not move.
    moved = np.where((T > LOWEST_TEMPERATURE) & (T < HIGHEST_TEMPERATURE), -np.expm1(-T), 0.0)
    by_both = by_temperature * moved
    inside = np.clip(shares, scaling.lowest, scaling.highest)
    value = -(truth * log_of(combined)).sum(axis=-1).mean() + scaling.slope**2 / (2 * N)
    return float(value), np.array([by_both.sum(), (by_both * inside).sum() + scaling.slope / N])
