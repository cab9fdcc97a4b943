"""The Laplace approximation of a linear softmax head: its posterior, and the prior that the rows bear out.

The head's weights W, (C, D + 1), have an isotropic Gaussian prior of one precision. Their posterior is taken
for the Gaussian that has its maximum and its curvature there (Daxberger et al. 2021, "Laplace Redux",
https://arxiv.org/abs/2106.14806). For such a head the generalised Gauss-Newton matrix is the Hessian itself.
The prior's precision is found by MacKay's fixed point of the marginal likelihood (1992, "Bayesian
Interpolation"), the maximum found anew at every step: it is convex, and all of it is in float64. A step
leaves out, as MacKay's does, that the curvature moves with the maximum: with that, rows that are told apart
without an error would call for a prior so wide that draws lie far from the maximum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax

from credibly.errors import InputError
from credibly.records import FloatArray

Doubles = NDArray[np.float64]
Shape = Literal["auto", "full", "kron"]
Watch = Callable[[float, Doubles], None]
"""Told of the mean loss, in nats, and of the gradient wherever the maximum is looked for."""

CHUNK = 8192
"""Rows that are brought into float64 at a time."""
FULL_WEIGHTS = 1024
"""A head of more weights has its curvature taken for a Kronecker product, where nothing else is asked for."""
ROUNDS = 50
CLOSE = 1e-3
"""The prior's precision is found where its logarithm moves by less."""
PRECISIONS = (1e-6, 1e6)
FIRST_PRECISION = 1.0


@dataclass(frozen=True)
class Rows:
    """What a head learns from.

    Args:
        inputs: float32, (N, D).
        targets: (N, C), class probabilities, times the class's weight where classes are weighted.
    """

    inputs: FloatArray
    targets: FloatArray

    @property
    def shape(self) -> tuple[int, int]:
        """Of a head's weights, the bias as the last column: (C, D + 1)."""
        return self.targets.shape[1], self.inputs.shape[1] + 1

    def chunks(self) -> Iterator[tuple[Doubles, Doubles]]:
        """Yield inputs with a column of ones, (B, D + 1), and targets, (B, C)."""
        for start in range(0, len(self.inputs), CHUNK):
            some = slice(start, start + CHUNK)
            inputs = np.asarray(self.inputs[some], dtype=np.float64)
            yield np.column_stack([inputs, np.ones(len(inputs))]), self.targets[some].astype(np.float64)


@dataclass(frozen=True)
class Curvature:
    """The Hessian of the summed loss, by its eigenvalues and eigenvectors.

    It is (U ⊗ V) diag(eigenvalues) (U ⊗ V)ᵀ on weights laid out as (R, K): in full R is 1 and K all weights;
    as a Kronecker product R is C and K is D + 1.

    Args:
        eigenvalues: (R, K), none below zero.
        left: U, (R, R).
        right: V, (K, K).
    """

    eigenvalues: Doubles
    left: Doubles
    right: Doubles

    def spread(self, precision: float, noise: Doubles) -> Doubles:
        """Return standard normal noise as a move from the maximum, in the noise's own shape.

        The covariance's root is the symmetric one, which does not depend on the eigenvectors' signs, nor on
        how they lie where eigenvalues are equal.
        """
        turned = self.left.T @ noise.reshape(self.eigenvalues.shape) @ self.right
        moved: Doubles = self.left @ (turned / np.sqrt(self.eigenvalues + precision)) @ self.right.T
        return moved.reshape(noise.shape)


@dataclass(frozen=True)
class Posterior:
    """A Gaussian over a head's weights.

    Args:
        weights: its mean, the most probable ones, (C, D + 1); the bias is the last column.
        curvature: of the loss there.
        precision: of the prior.
    """

    weights: Doubles
    curvature: Curvature
    precision: float

    def sample(self, generator: np.random.Generator) -> Doubles:
        """Return weights drawn from it, (C, D + 1)."""
        noise = generator.standard_normal(self.weights.shape)
        return self.weights + self.curvature.spread(self.precision, noise)


def penalised_loss(weights: Doubles, rows: Rows, precision: float) -> tuple[float, Doubles]:
    """Return the summed cross-entropy, in nats, plus the prior's part, with its gradient, (C, D + 1)."""
    loss, gradient = 0.5 * precision * float((weights**2).sum()), precision * weights
    for inputs, targets in rows.chunks():
        log_probs = log_softmax(inputs @ weights.T, axis=1)
        loss -= float((targets * log_probs).sum())
        gradient = gradient + (np.exp(log_probs) * targets.sum(axis=1, keepdims=True) - targets).T @ inputs
    return loss, gradient


def most_probable(rows: Rows, precision: float, start: Doubles, watch: Watch | None = None) -> Doubles:
    """Return the weights of the highest posterior density, (C, D + 1).

    Raises:
        InputError: the inputs hold what is no number.
    """
    N = len(rows.inputs)

    def objective(flat: Doubles) -> tuple[float, Doubles]:
        loss, gradient = penalised_loss(flat.reshape(rows.shape), rows, precision)
        if not np.isfinite(loss):
            raise InputError("expected embeddings of finite numbers; try backbone.precision=fp32")
        if watch:
            watch(loss / N, gradient / N)
        return loss / N, gradient.ravel() / N

    options = {"maxiter": 1000, "maxcor": 30, "gtol": 1e-8, "ftol": 1e-14}
    found = minimize(objective, start.ravel(), jac=True, method="L-BFGS-B", options=options)
    weights: Doubles = found.x.reshape(rows.shape)
    return weights


def curvature_at(weights: Doubles, rows: Rows, shape: Shape = "auto") -> Curvature:
    """Return the curvature of the loss, the prior's left out.

    "kron" takes the sum over rows of products for the product of sums (Martens & Grosse 2015,
    https://arxiv.org/abs/1503.05671), so that two small matrices do for one of all weights by all weights.
    """
    if is_full(shape, weights.size):
        values, vectors = np.linalg.eigh(hessian(weights, rows))
        return Curvature(np.maximum(values, 0.0)[None], np.ones((1, 1)), vectors)
    classes, inputs = kronecker_factors(weights, rows)
    (a, left), (b, right) = np.linalg.eigh(classes), np.linalg.eigh(inputs)
    return Curvature(np.outer(np.maximum(a, 0.0), np.maximum(b, 0.0)), left, right)


def is_full(shape: Shape, weights: int) -> bool:
    """Return whether the curvature of so many weights is taken in full."""
    return shape == "full" or (shape == "auto" and weights <= FULL_WEIGHTS)


def hessian(weights: Doubles, rows: Rows) -> Doubles:
    """Return the loss's second derivative by the weights, class after class, (C (D + 1), C (D + 1))."""
    C, D = rows.shape
    found = np.zeros((C, D, C, D))
    for inputs, targets in rows.chunks():
        for c, d, outer in _by_logits(weights, inputs, targets):
            found[c, :, d, :] += inputs.T @ (outer[:, None] * inputs)
    return found.reshape(C * D, C * D)


def kronecker_factors(weights: Doubles, rows: Rows) -> tuple[Doubles, Doubles]:
    """Return the loss's mean second derivative by the logits, (C, C), and the inputs' summed products.

    The second is (D + 1, D + 1).
    """
    C, D = rows.shape
    classes, products = np.zeros((C, C)), np.zeros((D, D))
    for inputs, targets in rows.chunks():
        products += inputs.T @ inputs
        for c, d, outer in _by_logits(weights, inputs, targets):
            classes[c, d] += outer.sum()
    return classes / len(rows.inputs), products


def _by_logits(weights: Doubles, inputs: Doubles, targets: Doubles) -> Iterator[tuple[int, int, Doubles]]:
    """Yield two classes and the loss's second derivative by their logits, (B,)."""
    probs, weight = np.exp(log_softmax(inputs @ weights.T, axis=1)), targets.sum(axis=1)
    for c, d in np.ndindex(probs.shape[1], probs.shape[1]):
        yield c, d, weight * probs[:, c] * ((c == d) - probs[:, d])


def log_evidence(loss: float, weights: Doubles, curvature: Curvature, precision: float) -> float:
    """Return the Laplace approximation of the log marginal likelihood, in nats.

    Args:
        loss: summed cross-entropy at the weights, without the prior's part.
        weights: (C, D + 1).
        curvature: there.
        precision: of the prior.
    """
    prior = 0.5 * (weights.size * np.log(precision) - precision * (weights**2).sum())
    return float(prior - loss - 0.5 * np.log(curvature.eigenvalues + precision).sum())


def evidence_slope(weights: Doubles, curvature: Curvature, precision: float) -> float:
    """Return the derivative of the log evidence by the prior's precision, the weights left where they are."""
    variances = 1.0 / (curvature.eigenvalues + precision)
    return float(0.5 * (weights.size / precision - (weights**2).sum() - variances.sum()))


def well_determined(curvature: Curvature, precision: float) -> float:
    """Return how many weights the rows determine rather than the prior (MacKay's gamma)."""
    return float((curvature.eigenvalues / (curvature.eigenvalues + precision)).sum())


def posterior_of(
    rows: Rows, shape: Shape = "auto", precision: float | None = None, watch: Watch | None = None
) -> Posterior:
    """Return the posterior of a head.

    Args:
        rows: to learn from.
        shape: of the curvature.
        precision: of the prior; MacKay's if left out.
        watch: told of the loss on the way.

    Raises:
        InputError: the inputs hold what is no number.
    """
    now, weights = precision or FIRST_PRECISION, np.zeros(rows.shape)
    for _ in range(ROUNDS):
        weights = most_probable(rows, now, weights, watch)
        curvature = curvature_at(weights, rows, shape)
        if precision is not None:
            break
        # Where the slope of the evidence is zero, gamma = precision x |W|^2.
        wanted = well_determined(curvature, now) / max(float((weights**2).sum()), 1e-300)
        before, now = now, float(np.clip(wanted, *PRECISIONS))
        if abs(np.log(now / before)) < CLOSE:
            break
    return Posterior(weights, curvature, now)
