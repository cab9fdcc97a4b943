"""Is this calibration error more than chance? What a perfect model would show on the very same rows."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from credibly.errors import InputError
from credibly.records import UNKNOWN, IntArray
from credibly.uncertainty.scoring.binning import BINS, bin_of, plain_error
from credibly.uncertainty.scoring.calibration_interval import answer_bins
from credibly.uncertainty.scoring.clusters import units_of, widening
from credibly.uncertainty.scoring.resampling import CHUNK
from credibly.uncertainty.systems import Answer

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class CalibrationTest:
    """Tests of the claim that an answer's top-label probabilities hold; None where undefined.

    Args:
        ece_perfect_mean: the plain ECE that a perfectly calibrated model shows on these rows, on average.
        ece_perfect_p95: its 95th percentile.
        consistency_p: the chance that such a model shows the observed plain ECE or more.
        spiegelhalter_p: two-sided p-value of Spiegelhalter's Z.
    """

    ece_perfect_mean: float | None
    ece_perfect_p95: float | None
    consistency_p: float | None
    spiegelhalter_p: float | None

    def as_json(self) -> dict[str, float | None]:
        """Return the test as report.json holds it."""
        return asdict(self)


def perfect_ece(answer: Answer, draws: int = 1000, seed: int = 0) -> CalibrationTest:
    """Return how the observed calibration compares with a perfect model's on the same rows.

    Consistency resampling (Bröcker & Smith 2007, https://doi.org/10.1175/WAF993.1; Vaicenavicius et al.
    2019, https://arxiv.org/abs/1902.06977): labels are drawn from the predicted probabilities, the
    predictions stay, and the plain ECE is computed on each draw. p = (1 + draws as large) / (1 + draws).
    Where rows belong together (`units_of`), each draw is larger by the root of the design effect of being
    right: all of such an error is chance, and chance is as much more as the rows tell less.

    Args:
        answer: rows of unknown label are left out.
        draws: how many.
        seed: of the draws.

    Raises:
        InputError: fewer than one draw.
    """
    confidence, correct, units = _labelled(answer)
    if not len(confidence):
        return CalibrationTest(None, None, None, None)
    drawn = perfect_errors(confidence, draws, seed) * widening(correct - confidence, units)
    observed = float(plain_error(answer_bins(answer))[0])
    as_large = int((drawn >= observed - 1e-12).sum())
    return CalibrationTest(
        ece_perfect_mean=float(drawn.mean()),
        ece_perfect_p95=float(np.quantile(drawn, 0.95)),
        consistency_p=(1 + as_large) / (1 + draws),
        spiegelhalter_p=spiegelhalter(confidence, correct, units),
    )


def perfect_errors(confidence: FloatArray, draws: int = 1000, seed: int = 0) -> FloatArray:
    """Return the plain ECE on draws of labels from the confidences themselves: (N,) -> (draws,).

    Raises:
        InputError: fewer than one draw.
    """
    if draws < 1:
        raise InputError(f"expected one draw or more, got {draws}")
    random, N = np.random.default_rng(seed), len(confidence)
    bins = bin_of(confidence)
    expected = np.bincount(bins, confidence, minlength=BINS)
    errors = []
    for start in range(0, draws, CHUNK):
        correct = random.random((min(CHUNK, draws - start), N)) < confidence
        sums = [np.bincount(bins, row, minlength=BINS) for row in correct]
        errors.append(np.abs(np.stack(sums) - expected).sum(axis=1) / N)
    return np.concatenate(errors)


def spiegelhalter(
    confidence: FloatArray, correct: NDArray[np.bool_], units: IntArray | None = None
) -> float | None:
    """Return the two-sided p-value of Spiegelhalter's Z on the top label; None where it is undefined.

    Z = sum (y - p)(1 - 2p) / sqrt(sum (1 - 2p)^2 p (1 - p)): the Brier score against its expectation if
    the probabilities hold (Spiegelhalter 1986, https://doi.org/10.1002/sim.4780050506). Undefined if
    every p is 1/2 or 1. Where rows belong together Z is smaller by the root of its terms' design effect.

    Args:
        confidence: (N,).
        correct: (N,).
        units: the number of each row's group, (N,), from 0; None where each row stands for itself.
    """
    slope = 1 - 2 * confidence
    variance = float((slope**2 * confidence * (1 - confidence)).sum())
    if variance <= 0:
        return None
    terms = (correct - confidence) * slope
    z = float(terms.sum()) / np.sqrt(variance) / widening(terms, units)
    return float(2 * ndtr(-abs(z)))


def _labelled(answer: Answer) -> tuple[FloatArray, NDArray[np.bool_], IntArray | None]:
    """Return confidence, whether the answer is right, and the groups, of rows of known label."""
    rows = answer.labels != UNKNOWN
    units = units_of(None if answer.groups is None else answer.groups[rows])
    return answer.confidence[rows], (answer.predicted == answer.labels)[rows], units
