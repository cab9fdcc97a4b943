"""Temperature: one number, fitted on rows that nothing else uses, that makes probabilities hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize_scalar

from credibly.errors import InputError
from credibly.records import Predictions, concentrations_of, normalised_log_probs
from credibly.uncertainty.calibration.calibration_rows import Targets, targets_of
from credibly.uncertainty.combine import combine
from credibly.uncertainty.numerics import bounded_log_concentrations, dirichlet_mutual_information, log_of

FloatArray = NDArray[np.float64]

LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.05, 20.0
LOWEST_OFFSET, HIGHEST_OFFSET = -20.0, 20.0
GRID = 13


@dataclass(frozen=True)
class Temperature:
    """The map z / T + c of every member's logits z (Guo et al. 2017, https://arxiv.org/abs/1706.04599).

    The offset c shifts log-concentrations, so it changes how sure a Dirichlet is and never its mean;
    for members without concentrations it changes nothing.

    Args:
        temperature: T > 0; above 1 softens, below 1 sharpens.
        offset: c.

    Raises:
        InputError: T is not positive, or either is not finite.

    >>> Temperature(2.0).as_json()
    {'temperature': 2.0, 'offset': 0.0}
    """

    temperature: float = 1.0
    offset: float = 0.0

    def __post_init__(self) -> None:
        if not (np.isfinite(self.temperature) and self.temperature > 0 and np.isfinite(self.offset)):
            raise InputError(
                f"expected a positive temperature and a finite offset, got {self.temperature}, {self.offset}"
            )

    @classmethod
    def fit(
        cls,
        predictions: Predictions,
        rule: str = "mean_probs",
        targets: Targets = "labels",
    ) -> Temperature:
        """Return the T that makes the combined prediction's NLL on these rows least.

        All members share one T, and what is scored is their combination *after* tempering, so that the
        decomposition stays defined. The NLL of a mean of members need not have one minimum: a grid
        of 13 points over ln T is searched first, then the best point's neighbourhood, all within
        [0.05, 20]. T = 1 where no T lowers the NLL (under ``majority_vote`` none can).

        Args:
            predictions: the calibration split's; rows of unknown class are left out.
            rule: how the members are combined, see `combine`.
            targets: ``labels``, or ``label_probs`` to score against the raters' shares.

        Raises:
            InputError: fewer than two rows with a target, or an unknown rule or kind of target.
        """
        rows, truth = targets_of(predictions, targets)

        log_probs = rows.log_probs.astype(np.float64)

        def loss(log_temperature: float) -> float:
            if rule == "mean_probs":  # many times as fast as making a record of each try
                combined = tempered_mean(log_probs, float(np.exp(log_temperature)))
            else:
                combined = combine(cls(float(np.exp(log_temperature))).apply(rows), rule)
            return float(-(truth * log_of(combined)).sum(axis=-1).mean())

        best = _minimise(loss, float(np.log(LOWEST_TEMPERATURE)), float(np.log(HIGHEST_TEMPERATURE)))
        return cls(float(np.exp(best))) if loss(best) < loss(0.0) else cls()

    def apply(self, predictions: Predictions) -> Predictions:
        """Return the record after z / T + c: every member by the same T, float32, renormalised."""
        if self == Temperature():
            return predictions
        if predictions.concentrations is None:
            tempered = normalised_log_probs(predictions.log_probs.astype(np.float64) / self.temperature)
            return replace(predictions, log_probs=tempered)
        z = np.log(predictions.concentrations.astype(np.float64)) / self.temperature + self.offset
        bounded = bounded_log_concentrations(z)
        return replace(
            predictions,
            log_probs=normalised_log_probs(bounded)[None],
            concentrations=concentrations_of(bounded),
        )

    def as_json(self) -> dict[str, float]:
        """Return what `calibration.json` holds."""
        return {"temperature": self.temperature, "offset": self.offset}

    @classmethod
    def from_json(cls, content: Mapping[str, float]) -> Temperature:
        """Return the temperature that `as_json` wrote.

        Raises:
            InputError: a key is missing or unknown, or a value is no number.
        """
        try:
            return cls(**{str(name): float(value) for name, value in content.items()})
        except (TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"expected {{'temperature': T, 'offset': c}}, got {content!r} ({error})"
            ) from None


def tempered_mean(log_probs: FloatArray, temperature: float) -> FloatArray:
    """Return the mean over members of softmax(log_probs / T): (M, N, C) -> (N, C)."""
    scaled = np.exp(log_probs / temperature)
    scaled /= scaled.sum(axis=-1, keepdims=True)
    return np.asarray(scaled.mean(axis=0))


def fit_offset(predictions: Predictions, temperature: float, target_mean_epistemic: float) -> float:
    """Return c such that alpha = exp(z / T + c) has this mean mutual information.

    The mean mutual information falls as c rises, from the mean entropy of the means to zero, so there
    is one c. A target beyond what c in [-20, 20] reaches gives that end.

    Args:
        predictions: a record with concentrations.
        temperature: T, fitted before.
        target_mean_epistemic: nats, for instance the ensemble's mean mutual information on these rows.

    Raises:
        InputError: no concentrations, no rows, or a target or temperature that makes no sense.
    """
    if predictions.concentrations is None or not len(predictions.ids):
        raise InputError(
            "expected rows with concentrations; only a system that emits a Dirichlet has an offset"
        )
    if not (np.isfinite(target_mean_epistemic) and target_mean_epistemic >= 0):
        raise InputError(f"expected a mean mutual information >= 0 nats, got {target_mean_epistemic}")
    Temperature(temperature)
    z = np.log(predictions.concentrations.astype(np.float64)) / temperature

    def excess(offset: float) -> float:
        alpha = np.exp(bounded_log_concentrations(z + offset))
        return float(dirichlet_mutual_information(alpha).mean()) - target_mean_epistemic

    if excess(LOWEST_OFFSET) <= 0:
        return LOWEST_OFFSET
    if excess(HIGHEST_OFFSET) >= 0:
        return HIGHEST_OFFSET
    return float(brentq(excess, LOWEST_OFFSET, HIGHEST_OFFSET, xtol=1e-10))


def _minimise(loss: Callable[[float], float], low: float, high: float) -> float:
    grid = np.linspace(low, high, GRID)
    best = int(np.argmin([loss(point) for point in grid]))
    around = (grid[max(best - 1, 0)], grid[min(best + 1, GRID - 1)])
    return float(minimize_scalar(loss, bounds=around, method="bounded", options={"xatol": 1e-6}).x)
