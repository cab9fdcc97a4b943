"""Regularised softmax regression on log-probabilities, which fits vector scaling and Dirichlet maps."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, minimize

from credibly.uncertainty.numerics import log_mean_exp, log_softmax

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

Form = Literal["diagonal", "full"]
"""Whether a class's logit may look at its own log-probability alone, or at all."""

STRENGTHS = (1e5, 1e4, 1e3, 100.0, 10.0, 1.0)
"""What cross-validation chooses among. A strength s is a normal prior of variance 1 / (2 s):
deviations from about 0.002, nothing in the largest splits, to 0.7."""

LARGEST = 20.0
"""Bound of slopes and intercepts: rows that a line separates would else send them to infinity."""

FOLDS = 5
ROWS_TO_CHOOSE_ON = 5000
"""A prior's strength does not depend on the number of rows, so that no more are needed to choose it."""


def fit_affine(
    inputs: FloatArray,
    truth: FloatArray,
    form: Form,
    strength: float,
    start: FloatArray | None = None,
    tolerance: float = 1e-6,
) -> FloatArray:
    """Return the map (weights | intercepts), (C, C + 1), of least regularised NLL, by L-BFGS.

    Minimised over W and b is

        (1 / N) (sum_n -sum_c t_nc ln mean_m softmax(W x_mn + b)_c + strength * penalty)

    with penalty = sum_(i != j) W_ij^2 + sum_i b_i^2 where W is full and
    sum_i (W_ii - mean)^2 + sum_i b_i^2 where it is diagonal. Temperatures cost nothing under either, so
    the NLL never ends above theirs at the start, that of the identity. For one member the problem is
    convex; for several it need not be, and the minimum is the one below the identity.

    Args:
        inputs: log-probabilities, float64, (M, N, C).
        truth: targets, (N, C), each row normalised.
        form: of W.
        strength: >= 0.
        start: a map to start from; the identity if left out.
        tolerance: the gradient's largest entry at which to stop.
    """
    C = truth.shape[1]
    start = np.eye(C, C + 1) if start is None else start
    free = np.ones((C, C + 1), dtype=bool) if form == "full" else np.eye(C, C + 1, dtype=bool)
    free[:, C] = True

    def objective(values: FloatArray) -> tuple[float, FloatArray]:
        mapping = np.zeros((C, C + 1))
        mapping[free] = values
        loss, slope = _loss(inputs, truth, mapping)
        cost, cost_slope = _penalty(mapping, form)
        share = strength / len(truth)
        return loss + share * cost, (slope + share * cost_slope)[free]

    found = minimize(
        objective,
        start[free],
        jac=True,
        method="L-BFGS-B",
        bounds=Bounds(-LARGEST, LARGEST),
        options={"maxiter": 1000, "maxcor": 20, "ftol": tolerance**2, "gtol": tolerance},
    )
    mapping = np.zeros((C, C + 1))
    mapping[free] = found.x
    return mapping


def choose_strength(inputs: FloatArray, truth: FloatArray, form: Form, order: IntArray) -> float:
    """Return the strength of least cross-validated NLL, the stronger of equals.

    Args:
        inputs: as in `fit_affine`.
        truth: as in `fit_affine`.
        form: as in `fit_affine`.
        order: row numbers, sorted by class, that are dealt out to 5 folds; of more than 5,000 rows
            every so manieth is used.
    """
    chosen = order[:: -(-len(order) // ROWS_TO_CHOOSE_ON)]
    inputs, truth = inputs[:, chosen], truth[chosen]
    fold_of = np.arange(len(chosen)) % FOLDS
    total = np.zeros(len(STRENGTHS))
    for fold in np.unique(fold_of):
        inside, outside = fold_of == fold, fold_of != fold
        mapping = None
        for index, strength in enumerate(STRENGTHS):
            mapping = fit_affine(inputs[:, outside], truth[outside], form, strength, mapping, 1e-4)
            total[index] += inside.sum() * _loss(inputs[:, inside], truth[inside], mapping)[0]
    return STRENGTHS[int(total.argmin())]


def _loss(inputs: FloatArray, truth: FloatArray, mapping: FloatArray) -> tuple[float, FloatArray]:
    """Return the mean NLL of the members' mean after a map, and its gradient, (C, C + 1)."""
    log_probs = log_softmax(inputs @ mapping[:, :-1].T + mapping[:, -1])
    log_mean = log_probs[0] if len(log_probs) == 1 else log_mean_exp(log_probs)
    # A member's pull on a class: its share of the mean's probability, which never overflows.
    pull = truth * np.exp(log_probs - log_mean) / len(inputs)
    residual = np.exp(log_probs) * pull.sum(axis=-1, keepdims=True) - pull
    slopes = sum(one.T @ rows for one, rows in zip(residual, inputs, strict=True))
    gradient = np.column_stack([slopes, residual.sum(axis=(0, 1))]) / len(truth)
    return float(-(truth * log_mean).sum() / len(truth)), gradient


def _penalty(mapping: FloatArray, form: Form) -> tuple[float, FloatArray]:
    excess = mapping.copy()
    diagonal = np.diagonal(mapping)
    np.fill_diagonal(excess, 0.0 if form == "full" else diagonal - diagonal.mean())
    return float((excess**2).sum()), 2 * excess
