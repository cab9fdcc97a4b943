"""Smooth ECE: calibration error without bins, each row spread over its neighbours.

Each row's gap, correct - confidence, is spread by a Gaussian of width sigma that is reflected at 0 and
1, and what then remains at every confidence t is added up without its sign:

    smECE_sigma = integral over t of |(1 / N) sum_n K_sigma(t, confidence_n) (correct_n - confidence_n)|

The width is the one that equals the error itself: smECE_sigma falls as sigma rises, so there is one
(Błasiok & Nakkiran 2023, https://arxiv.org/abs/2309.12236, section 3). On a grid of cells whose two ends
are mirrors, reflected Gaussians are products of cosine transforms.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct, idct
from scipy.sparse import csr_matrix
from scipy.special import ndtri

from credibly.records import UNKNOWN
from credibly.uncertainty.scoring.binning import folded_mean
from credibly.uncertainty.scoring.calibration_interval import STEPS, inverted
from credibly.uncertainty.scoring.resampling import Statistic
from credibly.uncertainty.systems import Answer

FloatArray = NDArray[np.float64]

CELLS = 512
BISECTIONS = 24


def smooth(answer: Answer) -> Statistic | None:
    """Prepare the smooth ECE of the top label."""
    rows = np.flatnonzero(answer.labels != UNKNOWN)
    if not len(rows):
        return None
    spread = _onto_cells(answer, rows)
    gaps = spread.multiply(_gaps(answer)).tocsr()
    number = csr_matrix((np.ones(len(rows)), (np.zeros(len(rows)), rows)), shape=(1, len(answer.ids)))

    def statistic(counts: FloatArray) -> dict[str, FloatArray]:
        with np.errstate(divide="ignore", invalid="ignore"):
            return {"smooth_ece": fixed_point(np.asarray(gaps @ counts) / (number @ counts)[0])}

    return statistic


def fixed_point(gaps: FloatArray) -> FloatArray:
    """Return the sigma that equals its own smooth error, (R,), of gaps by cell, (CELLS, R); NaN of NaN."""
    waves = dct(gaps, axis=0)
    low, high = np.zeros(gaps.shape[1]), np.ones(gaps.shape[1])
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        too_narrow = np.abs(idct(waves * _damping(middle), axis=0)).sum(axis=0) > middle
        low, high = np.where(too_narrow, middle, low), np.where(too_narrow, high, middle)
    return np.where(np.isfinite(gaps).all(axis=0), high, np.nan)


def smooth_estimate(answer: Answer, confidence: float) -> tuple[float, float, float]:
    """Return the smooth error without chance's share, and the ends of an interval for the population's.

    As for bins (`calibration_interval`): the errors under which the one observed is no surprise. At the
    width observed, what remains at each t is normal, of a variance that the rows' gaps give; the mean of
    its size is a folded normal's, the variance of the sum that of sum_n sign(remains at n) gap_n, at least
    what chance gives. The true remains are tried in two profiles: as dense as the rows are, and as observed.
    """
    rows = np.flatnonzero(answer.labels != UNKNOWN)
    N = len(rows)
    onto, gaps = _onto_cells(answer, rows)[:, rows], _gaps(answer)[rows]
    plain = float(fixed_point((onto @ gaps / N)[:, None])[0])
    kernel = idct(_damping(np.array([plain])) * dct(np.eye(CELLS), axis=0), axis=0)
    remains, density = kernel @ (onto @ gaps) / N, kernel @ np.asarray(onto.sum(axis=1)).ravel() / N
    squares = _cautious_squares(gaps, answer.confidence[rows])
    error = np.sqrt(kernel**2 @ (onto @ squares)) / N
    sign = onto.T @ (kernel.T @ np.sign(remains))
    spread = max(float((sign**2 * squares).mean()) - float((sign * gaps).mean()) ** 2, 0.0)
    deviation = float(ndtri((1 + confidence) / 2)) * float(np.sqrt(spread / N))
    t = np.linspace(0.0, 2 * plain + 10 * float(error.sum()), STEPS + 1)
    ends, estimates = [], []
    for profile in (density, np.abs(remains)):
        shape = profile / max(float(profile.sum()), 1e-12)
        mean = folded_mean(shape[:, None] * t, error[:, None] + 0 * t).sum(axis=0)
        ends.append(inverted(t, mean, np.full_like(mean, deviation), plain))
        estimates.append(inverted(t, mean, np.zeros_like(mean), plain)[0])
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    return min(estimates), low, max(high, plain)


def _damping(sigma: FloatArray) -> FloatArray:
    """Return what a Gaussian of each width leaves of every cosine wave, (CELLS, R)."""
    return np.asarray(np.exp(-((np.pi * np.arange(CELLS)[:, None] * sigma) ** 2) / 2))


def _gaps(answer: Answer) -> FloatArray:
    return np.asarray((answer.predicted == answer.labels) - answer.confidence)


def _cautious_squares(gaps: FloatArray, confidence: FloatArray) -> FloatArray:
    """Return the squared gaps, (N,), with four rows more divided among all, two right and two wrong.

    As `binning.cautious_share`: rows that are all right would else claim to be free of error.
    """
    N = len(gaps)
    return np.asarray((gaps**2 + 2 * (confidence**2 + (1 - confidence) ** 2) / N) / (1 + 4 / N))


def _onto_cells(answer: Answer, rows: NDArray[np.intp]) -> csr_matrix:
    """Return the sparse matrix (CELLS, N) that parts each labelled row between the two nearest cells."""
    place = np.clip(answer.confidence[rows] * CELLS - 0.5, 0, CELLS - 1)
    left = np.minimum(place.astype(np.int64), CELLS - 2)
    share = place - left
    values, places = np.concatenate([1 - share, share]), np.concatenate([left, left + 1])
    return csr_matrix((values, (places, np.tile(rows, 2))), shape=(CELLS, len(answer.ids)))
