"""Uncertainty split into what the data leave open and what the members do not know."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from credibly.records import Predictions
from credibly.uncertainty.combine import combine
from credibly.uncertainty.dirichlet import chance_of_another_class
from credibly.uncertainty.numerics import (
    dirichlet_expected_entropy,
    dirichlet_mutual_information,
    entropy,
    entropy_of_log_probs,
    probs_of,
    without_rounding,
)

FloatArray = NDArray[np.float64]

KINDS = ("total", "aleatoric", "epistemic")
"""The entropy of a prediction, and its two parts."""


@dataclass(frozen=True)
class Uncertainty:
    """How uncertain a prediction is, and why; entropies in nats, each part float64, (N,).

    Args:
        total: entropy of the mean prediction, in [0, ln C].
        aleatoric: mean of the members' entropies.
        epistemic: total - aleatoric, the mutual information of label and member, in [0, ln C].
        variance: of the members' probability of the predicted class.
        disagreement: share of the members to which another class is more probable.
    """

    total: FloatArray
    aleatoric: FloatArray
    epistemic: FloatArray
    variance: FloatArray
    disagreement: FloatArray


def decompose(predictions: Predictions) -> Uncertainty:
    """Return the uncertainty of a record (Depeweg et al. 2018, https://arxiv.org/abs/1710.07283).

    Members: the entropy of the mean of their probabilities, the mean of their entropies, and the
    difference, which is zero for one member and for identical ones. The predicted class is that of the
    mean of probabilities; variance is the population's (divided by M).

    A Dirichlet: the closed forms of Malinin & Gales 2018 (https://arxiv.org/abs/1802.10501). Variance
    is p(1 - p) / (alpha_0 + 1), and disagreement the probability that a draw's largest class is not
    the predicted one (`chance_of_another_class`).

    Args:
        predictions: M members, or one with concentrations.
    """
    mean = combine(predictions)
    if predictions.concentrations is not None:
        return _of_dirichlet(mean, predictions.concentrations.astype(np.float64))
    return _of_members(mean, predictions.log_probs)


def _of_members(mean: FloatArray, log_probs: NDArray[np.float32]) -> Uncertainty:
    M, N, C = log_probs.shape
    rows, predicted = np.arange(N), mean.argmax(axis=-1)
    centre = mean[rows, predicted]
    entropies, squares, others = np.zeros(N), np.zeros(N), np.zeros(N)
    for member in log_probs:  # member by member: memory stays at (N, C)
        entropies += entropy_of_log_probs(member)
        squares += (probs_of(member)[rows, predicted] - centre) ** 2
        others += member[rows, predicted] < member.max(axis=-1)
    total = entropy(mean)
    epistemic = np.zeros(N) if M == 1 else without_rounding(total - entropies / M, C)
    return Uncertainty(
        total=total,
        aleatoric=total - epistemic,
        epistemic=epistemic,
        variance=np.zeros(N) if M == 1 else squares / M,
        disagreement=others / M,
    )


def _of_dirichlet(mean: FloatArray, concentrations: FloatArray) -> Uncertainty:
    confidence = mean.max(axis=-1)
    return Uncertainty(
        total=entropy(mean),
        aleatoric=dirichlet_expected_entropy(concentrations),
        epistemic=dirichlet_mutual_information(concentrations),
        variance=confidence * (1 - confidence) / (concentrations.sum(axis=-1) + 1),
        disagreement=chance_of_another_class(concentrations),
    )
