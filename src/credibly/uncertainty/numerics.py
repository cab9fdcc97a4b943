"""Fragile numerics: each function says which failure it prevents.

All take and give float64; shapes are free before the last axis, which runs over the C classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import entr, psi

FloatArray = NDArray[np.float64]

SMALLEST_PROBABILITY = 1e-12
"""No probability is scored as less: one impossible class would else make a whole mean infinite."""

ROUNDING = 1e-13
"""Differences of entropies below this, in nats, are rounding and become exactly zero."""

LOWEST_LOG_CONCENTRATION, HIGHEST_LOG_CONCENTRATION = -30.0, 30.0
LOWEST_TOP_LOG_CONCENTRATION = -15.0


def log_softmax(logits: ArrayLike) -> FloatArray:
    """Return log-probabilities of logits, (..., C).

    Prevents overflow of exp for logits above 709, and ln 0 for those far below the largest.

    >>> log_softmax([1000.0, 1000.0]).round(4).tolist()
    [-0.6931, -0.6931]
    """
    z = np.asarray(logits, dtype=np.float64)
    z = z - z.max(axis=-1, keepdims=True)
    return np.asarray(z - np.log(np.exp(z).sum(axis=-1, keepdims=True)))


def entropy(probs: ArrayLike) -> FloatArray:
    """Return the entropy of probabilities (..., C) -> (...), in nats, with 0 ln 0 = 0.

    Prevents the NaN of 0 * -inf for a probability of exactly zero.

    >>> entropy([[1.0, 0.0], [0.5, 0.5]]).round(4).tolist()
    [0.0, 0.6931]
    """
    return np.asarray(entr(np.asarray(probs, dtype=np.float64)).sum(axis=-1))


def probs_of(log_probs: ArrayLike) -> FloatArray:
    """Return the probabilities of log-probabilities (..., C), renormalised in double precision.

    Prevents entropies above ln C and means that miss one: float32 rows sum to one only within 1e-7
    (and may be stored with an error up to 1e-3).
    """
    probs = np.exp(np.asarray(log_probs, dtype=np.float64))
    return np.asarray(probs / probs.sum(axis=-1, keepdims=True))


def entropy_of_log_probs(log_probs: ArrayLike) -> FloatArray:
    """Return the entropy of log-probabilities (..., C) -> (...), in nats.

    Prevents the NaN of exp(-inf) * -inf, and uses the renormalised probabilities of `probs_of`.

    >>> entropy_of_log_probs([0.0, -np.inf]).item()
    0.0
    """
    return entropy(probs_of(log_probs))


def log_mean_exp(log_probs: ArrayLike, weights: ArrayLike | None = None) -> FloatArray:
    """Return the log of the (weighted) mean over the first axis of exp(log_probs): (M, ...) -> (...).

    Prevents -inf where all members' probabilities underflow (log-probabilities below -745).
    Weights must be non-negative and sum to one; a uniform mean without them.

    >>> log_mean_exp([[-1000.0], [-1000.0]]).tolist()
    [-1000.0]
    """
    values = np.asarray(log_probs, dtype=np.float64)
    M = len(values)
    share = np.full(M, 1 / M) if weights is None else np.asarray(weights, dtype=np.float64)
    highest = values.max(axis=0)
    level = np.where(np.isfinite(highest), highest, 0.0)
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(np.tensordot(share, np.exp(values - level), axes=1)) + level)


def log_of(probs: ArrayLike) -> FloatArray:
    """Return ln max(p, 1e-12): prevents an infinite score from a probability of zero."""
    return np.asarray(np.log(np.maximum(np.asarray(probs, dtype=np.float64), SMALLEST_PROBABILITY)))


def without_rounding(difference: ArrayLike, C: int) -> FloatArray:
    """Return a difference of entropies held within [0, ln C], exactly zero where it is only rounding.

    Prevents a negative mutual information, and a ranking of rows by noise where all members agree.
    """
    values = np.clip(np.asarray(difference, dtype=np.float64), 0.0, np.log(C))
    return np.asarray(np.where(values < ROUNDING, 0.0, values))


def digamma_over_log(x: ArrayLike) -> FloatArray:
    """Return digamma(x + 1) - ln x for x > 0.

    Prevents cancellation: for x of 1e10 both terms are 23 and their difference 5e-11. Above 30 the
    asymptotic series 1/(2x) - 1/(12x^2) + 1/(120x^4) - 1/(252x^6) + 1/(240x^8) is exact to rounding.

    >>> round(float(digamma_over_log(1e10)) * 1e10, 6)
    0.5
    """
    x = np.asarray(x, dtype=np.float64)
    large = np.maximum(x, 30.0)
    inverse = large**-2
    series = 0.5 / large - inverse * (1 / 12 - inverse * (1 / 120 - inverse * (1 / 252 - inverse / 240)))
    small = np.minimum(x, 30.0)
    return np.asarray(np.where(x > 30.0, series, psi(small + 1) - np.log(small)))


def dirichlet_mutual_information(concentrations: ArrayLike) -> FloatArray:
    """Return the mutual information of label and distribution under a Dirichlet: (..., C) -> (...).

    H(mean) - E[H] = sum_c p_c g(alpha_c) - g(alpha_0) with g(x) = digamma(x + 1) - ln x (Malinin &
    Gales 2018, https://arxiv.org/abs/1802.10501, appendix C, rearranged). Prevents the difference of
    two entropies from drowning in rounding where the concentrations are large.

    >>> dirichlet_mutual_information([1.0, 1.0]).round(4).item()  # ln 2 - 1/2
    0.1931
    """
    alpha = np.asarray(concentrations, dtype=np.float64)
    total = alpha.sum(axis=-1)
    mean = alpha / total[..., None]
    information = (mean * digamma_over_log(alpha)).sum(axis=-1) - digamma_over_log(total)
    return np.asarray(np.clip(information, 0.0, np.log(alpha.shape[-1])))


def dirichlet_expected_entropy(concentrations: ArrayLike) -> FloatArray:
    """Return E[H(p)] for p ~ Dirichlet(alpha): (..., C) -> (...), in nats.

    H(mean) less the mutual information, which equals -sum_c p_c (digamma(alpha_c + 1) -
    digamma(alpha_0 + 1)). Prevents a total that is not the sum of its two parts.

    >>> dirichlet_expected_entropy([1.0, 1.0]).round(4).item()
    0.5
    """
    alpha = np.asarray(concentrations, dtype=np.float64)
    mean = alpha / alpha.sum(axis=-1, keepdims=True)
    return np.asarray(np.maximum(entropy(mean) - dirichlet_mutual_information(alpha), 0.0))


def bounded_log_concentrations(log_concentrations: ArrayLike) -> FloatArray:
    """Return z, (..., C), shifted a row so that its largest value lies in [-15, 30], then cut at -30.

    Prevents a change of the mean: cutting each value at 30 would make (100, 80) an even bet, while a
    shift of the row only changes how sure it is, and beyond these ends no figure can tell.
    """
    z = np.asarray(log_concentrations, dtype=np.float64)
    top = z.max(axis=-1, keepdims=True)
    shifted = z - top + np.clip(top, LOWEST_TOP_LOG_CONCENTRATION, HIGHEST_LOG_CONCENTRATION)
    return np.asarray(np.maximum(shifted, LOWEST_LOG_CONCENTRATION))


def votes_of(log_probs: ArrayLike) -> FloatArray:
    """Return votes, float64, (..., C), each for the likeliest class and of sum one; divided among equals.

    >>> votes_of([[[-0.1, -2.4]], [[-3.0, -0.05]], [[-0.7, -0.7]]]).tolist()
    [[[1.0, 0.0]], [[0.0, 1.0]], [[0.5, 0.5]]]
    """
    array = np.asarray(log_probs)
    likeliest = array == array.max(axis=-1, keepdims=True)
    return np.asarray(likeliest / likeliest.sum(axis=-1, keepdims=True))
