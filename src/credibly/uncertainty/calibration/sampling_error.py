"""How well so many calibration rows fix a temperature, and what its error does to the probabilities."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from credibly.records import Predictions
from credibly.uncertainty.calibration.calibrate import tempered_mean
from credibly.uncertainty.calibration.calibration_rows import targets_of
from credibly.uncertainty.numerics import log_of

FloatArray = NDArray[np.float64]

STEP = 1e-3
"""Of ln T, for slopes by differences."""


@dataclass(frozen=True)
class TemperatureError:
    """The sampling error of a temperature.

    Args:
        temperature: T, as fitted.
        rows: calibration rows that it was fitted on.
        standard_error: of ln T; 0.1 means that T is known to a tenth of itself.
        confidence_error: what that moves the probability of the predicted class by, up or down, on the
            average over rows and over calibration sets of this size: the calibration error that would be
            left were a temperature all that the model lacks.
    """

    temperature: float
    rows: int
    standard_error: float
    confidence_error: float

    def interval(self, confidence: float) -> tuple[float, float]:
        """Return the confidence interval of the temperature, normal in ln T."""
        reach = NormalDist().inv_cdf((1 + confidence) / 2) * self.standard_error
        return self.temperature * float(np.exp(-reach)), self.temperature * float(np.exp(reach))

    def rows_for(self, error: float) -> int:
        """Return how many calibration rows would bring the confidence error down to this.

        It falls with the root of their number.

        >>> TemperatureError(1.5, 400, 0.1, 0.02).rows_for(0.01)
        1600
        """
        return int(np.ceil(self.rows * (self.confidence_error / error) ** 2 - 1e-9))

    def as_json(self) -> dict[str, float]:
        """Return what report.json holds."""
        return asdict(self)


def temperature_error(
    calibration: Predictions, test: Predictions, temperature: float
) -> TemperatureError | None:
    """Return the sampling error of a temperature that was fitted to the NLL of the members' mean.

    ln T is an M-estimate, so its variance is the sum of the rows' squared slopes over the square of their
    summed curvature (Huber 1967, the "sandwich"), which needs no model to be right; of rows that belong
    together the slopes are summed before they are squared (Liang and Zeger 1986). To first order, the
    probability p of the predicted class moves by |dp / d ln T| times a normal error, whose mean size is
    sqrt(2 / pi) standard errors.

    Args:
        calibration: the rows that it was fitted on; those of unknown class are left out.
        test: the rows whose probabilities are told of.
        temperature: T, as fitted.

    Returns:
        None where the NLL has no least value at T, or all rows belong together: then they say next to
        nothing of it.

    Raises:
        InputError: fewer than two calibration rows of known class.
    """
    known, truth = targets_of(calibration)

    def losses(shift: float) -> FloatArray:
        return np.asarray(-(truth * log_of(_tempered(known, temperature, shift))).sum(axis=-1))

    below, at, above = (losses(shift) for shift in (-STEP, 0.0, STEP))
    curvature = float((above - 2 * at + below).sum() / STEP**2)
    groups = np.arange(len(known.ids)) if known.groups is None else known.groups
    slopes = np.bincount(np.unique(groups, return_inverse=True)[1], (above - below) / (2 * STEP))
    if curvature <= 0 or len(slopes) < 2 or abs(slopes.sum()) > np.sqrt((slopes**2).sum()):
        return None
    error = float(np.sqrt((slopes**2).sum()) / curvature)
    return TemperatureError(temperature, len(known.ids), error, error * _confidence_slope(test, temperature))


def _confidence_slope(test: Predictions, temperature: float) -> float:
    """Return by how much a normal error of ln T, of standard error 1, moves confidence on average."""
    predicted = _tempered(test, temperature, 0.0).argmax(axis=-1)[:, None]
    below, above = (
        np.take_along_axis(_tempered(test, temperature, shift), predicted, axis=-1) for shift in (-STEP, STEP)
    )
    return float(np.abs(above - below).mean() / (2 * STEP) * np.sqrt(2 / np.pi))


def _tempered(predictions: Predictions, temperature: float, shift: float) -> FloatArray:
    """Return the members' mean, (N, C), at this temperature with ln T shifted."""
    return tempered_mean(predictions.log_probs.astype(np.float64), temperature * float(np.exp(shift)))
