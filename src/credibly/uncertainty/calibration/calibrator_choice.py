"""Which calibrator a calibration split bears out, and in words why not the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from credibly.errors import InputError
from credibly.records import Predictions
from credibly.uncertainty.calibration.calibration_rows import Targets, folds_of, targets_of
from credibly.uncertainty.calibration.calibrators import (
    KINDS,
    Calibrator,
    On,
    cross_fitted,
    cross_fitted_by,
    fit_calibrator,
)
from credibly.uncertainty.combine import combine
from credibly.uncertainty.numerics import log_of

FloatArray = NDArray[np.float64]

FOLDS = 5
"""Of the cross-validation, unless another number is given."""


@dataclass(frozen=True)
class Candidate:
    """A kind of calibrator that stood for choice; figures are None where it could not be fitted.

    Args:
        kind: one of `KINDS`.
        nll: cross-validated, nats.
        standard_error: of the NLL, over rows.
        gain: how far the NLL lies below that of no calibration.
        gain_standard_error: of the gain, over rows, paired.
        taken: whether this is the one.
        reason: why, or why not, in words.
    """

    kind: str
    nll: float | None
    standard_error: float | None
    gain: float | None
    gain_standard_error: float | None
    taken: bool
    reason: str


@dataclass(frozen=True)
class CalibratorChoice:
    """The calibrator taken, fitted on all rows, and every candidate, the simplest first.

    Args:
        calibrator: the one taken.
        candidates: one a kind, of which one is taken.
    """

    calibrator: Calibrator
    candidates: tuple[Candidate, ...]

    @property
    def kind(self) -> str:
        """The kind of the one taken."""
        return next(candidate.kind for candidate in self.candidates if candidate.taken)

    def describe(self) -> str:
        """Return a line for every candidate: its NLL, whether it was taken, and why."""
        return "\n".join(_line(candidate) for candidate in self.candidates)

    def as_json(self) -> dict[str, Any]:
        """Return the calibrator, for `calibrator_from_json`, and the candidates."""
        return {
            "calibrator": self.calibrator.as_json(),
            "candidates": [asdict(candidate) for candidate in self.candidates],
        }


def choose_calibrator(
    predictions: Predictions,
    on: On = "mean",
    rule: str = "mean_probs",
    targets: Targets = "labels",
    folds: int = FOLDS,
    seed: int = 0,
) -> CalibratorChoice:
    """Return the simplest calibrator that the cross-validated NLL of these rows bears out.

    A kind is in question if it lowers the NLL of no calibration by more than one standard error (of
    the mean paired difference over rows). Of these the simplest is taken that lies within one standard
    error of the best; without any, nothing is calibrated. Probabilities that hold already are kept as
    they are in nine of ten draws or more.

    Args:
        predictions: the calibration split's; rows without a target are left out.
        on: see `fit_calibrator`.
        rule: see `fit_calibrator`.
        targets: see `fit_calibrator`.
        folds: of the cross-validation, stratified by class.
        seed: of the folds.

    Raises:
        InputError: fewer than two rows a fold, or an unknown name. A kind that alone cannot be fitted,
            for want of a class, is left out instead, and its candidate says so.
    """
    rows, truth = targets_of(predictions, targets)
    losses: dict[str, FloatArray] = {}
    reasons: dict[str, str] = {}
    for kind in KINDS:
        try:
            held_out = cross_fitted(rows, kind, folds, seed, on, rule, targets)
        except InputError as error:
            if kind == "identity":
                raise
            reasons[kind] = f"it could not be fitted: {error}"
        else:
            losses[kind] = -(truth * log_of(combine(held_out))).sum(axis=1)
    taken, whys = _decision(losses)
    reasons.update(whys)
    return CalibratorChoice(
        fit_calibrator(rows, taken, on, rule, targets),
        tuple(_candidate(kind, losses, kind == taken, reasons[kind]) for kind in KINDS),
    )


def cross_fitted_choice(
    predictions: Predictions,
    on: On = "mean",
    rule: str = "mean_probs",
    targets: Targets = "labels",
    folds: int = FOLDS,
    seed: int = 0,
) -> Predictions:
    """Return the record in which every row was mapped by what `choose_calibrator` took on the other folds.

    So the choice itself is made without the rows that it is scored on. Arguments and errors are those
    of `choose_calibrator`, which runs once a fold.
    """

    def fit(rows: Predictions) -> Calibrator:
        return choose_calibrator(rows, on, rule, targets, folds, seed).calibrator

    return cross_fitted_by(fit, predictions, folds_of(predictions, folds, targets, seed))


def _decision(losses: Mapping[str, FloatArray]) -> tuple[str, dict[str, str]]:
    """Return the kind taken, and for each kind the reason, from losses (N,) by kind, the simplest first."""
    none = losses["identity"]
    helping = [kind for kind in losses if _beyond_noise(none, losses[kind])]
    if not helping:
        reasons = {kind: f"it does not help: {_compared(none, losses[kind])}" for kind in losses}
        return "identity", {**reasons, "identity": "nothing lowers its NLL beyond one standard error"}
    best = min(helping, key=lambda kind: float(losses[kind].mean()))
    taken = next(kind for kind in helping if not _beyond_noise(losses[kind], losses[best]))
    return taken, {kind: _reason(kind, taken, best, losses, kind in helping) for kind in losses}


def _reason(kind: str, taken: str, best: str, losses: Mapping[str, FloatArray], helps: bool) -> str:
    if kind == taken == best:
        return "least NLL, and none that is simpler comes within one standard error of it"
    if kind == taken:
        return f"the simplest within one standard error of the best, {best}"
    if kind == "identity" or helps:
        return f"against {taken}: {_compared(losses[taken], losses[kind])}"
    return f"it does not help: {_compared(losses['identity'], losses[kind])}"


def _compared(reference: FloatArray, losses: FloatArray) -> str:
    mean, error = _mean(losses - reference)
    return f"NLL {'higher' if mean > 0 else 'lower'} by {abs(mean):.4f} ± {error:.4f}"


def _beyond_noise(losses: FloatArray, better: FloatArray) -> bool:
    mean, error = _mean(losses - better)
    return mean > error


def _mean(values: FloatArray) -> tuple[float, float]:
    """Return a mean over rows and its standard error."""
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


def _candidate(kind: str, losses: Mapping[str, FloatArray], taken: bool, reason: str) -> Candidate:
    if kind not in losses:
        return Candidate(kind, None, None, None, None, taken, reason)
    gain = losses["identity"] - losses[kind]
    return Candidate(kind, *_mean(losses[kind]), *_mean(gain), taken, reason)


def _line(candidate: Candidate) -> str:
    verdict = "taken" if candidate.taken else "left out"
    if candidate.nll is None:
        return f"{candidate.kind}: {verdict}; {candidate.reason}"
    figures = f"NLL {candidate.nll:.4f} ± {candidate.standard_error:.4f}"
    return f"{candidate.kind}: {figures}, {verdict}; {candidate.reason}"
