"""How often a draw from a Dirichlet puts another class first."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betainc, gammainc, gammaln

FloatArray = NDArray[np.float64]

NODES = 64
NEGLIGIBLE = 1e-9
ROWS_A_CHUNK = 4096


def chance_of_another_class(concentrations: ArrayLike) -> FloatArray:
    """Return the probability that a draw's largest class is not the mean's: (N, C) -> (N,).

    Two classes: P(p_k < 1/2), the Beta distribution's function, exact. More: the draw is a vector of
    independent Gamma(alpha_j) variables, normalised, so P(k largest) = E over g ~ Gamma(alpha_k) of
    the product over j != k of F_j(g), by the trapezoid rule on a substituted axis, to about 1e-8.

    >>> chance_of_another_class([[1.0, 1.0], [3.0, 1.0]]).tolist()
    [0.5, 0.125]
    >>> chance_of_another_class([[2.0, 2.0, 2.0]]).round(6).tolist()
    [0.666667]
    """
    alpha = np.asarray(concentrations, dtype=np.float64)
    first = alpha.max(axis=-1)
    # P(p_k < 1/2): the answer for two classes, and for more a bound, because a class above 1/2 is first.
    chance = np.asarray(betainc(first, _sum_of_others(alpha), 0.5))
    if alpha.shape[-1] == 2:
        return chance
    open_rows = np.flatnonzero(chance > NEGLIGIBLE)
    for start in range(0, len(open_rows), ROWS_A_CHUNK):
        rows = open_rows[start : start + ROWS_A_CHUNK]
        chance[rows] = np.clip(1 - _chance_of_first(alpha[rows]), 0.0, 1.0)
    return chance


def _sum_of_others(alpha: FloatArray) -> FloatArray:
    others = alpha.copy()
    others[np.arange(len(alpha)), alpha.argmax(axis=-1)] = 0.0
    return np.asarray(others.sum(axis=-1))


def _chance_of_first(alpha: FloatArray) -> FloatArray:
    """Return P(the class of the largest concentration is largest in a draw), (N,).

    On the axis s = ln g the density is exp(alpha s - e^s), smooth, and falls off like a double
    exponential to the right but only like exp(alpha s) to the left: s = s_0 + x / sqrt(a) - e^-x / a
    with a = max(alpha, 1) (alpha itself on the left) makes both ends fall off fast, so that the
    trapezoid rule converges exponentially for concentrations of any size.
    """
    first = alpha.max(axis=-1, keepdims=True)
    size = np.maximum(first, 1.0)
    lowest = -np.maximum(7.0, np.log(40 / first))
    x = lowest + np.linspace(0.0, 1.0, NODES) * (7.0 - lowest)
    from_mode = x / np.sqrt(size) - np.exp(-x) / size
    slope = 1 / np.sqrt(size) + np.exp(-x) / size
    # alpha s - e^s, less its value at s = ln(size): no cancellation for large alpha.
    exponent = first * from_mode - size * np.expm1(from_mode)
    weights = slope * np.exp(exponent - exponent.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    product = np.ones_like(weights)
    for column in np.sort(alpha, axis=-1).T[:-1]:
        product *= _gamma_below(column[:, None], np.log(size) + from_mode)
    return np.asarray((weights * product).sum(axis=-1))


def _gamma_below(alpha: FloatArray, s: FloatArray) -> FloatArray:
    """Return P(Gamma(alpha) < e^s), by its leading term e^(alpha s) / Gamma(alpha + 1) where e^s < 1e-9.

    Concentrations below 0.05 put mass where e^s underflows and the product of the two does not.
    """
    leading = np.exp(np.minimum(alpha * s - gammaln(alpha + 1), 0.0))
    return np.asarray(np.where(s < -20.0, leading, gammainc(alpha, np.exp(s))))
