"""What the student and each control learn: a loss on the transfer texts, and the rows it is taken on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from credibly.distil.losses import reverse_kl, soft_cross_entropy
from credibly.distil.targets import DirichletTargets
from credibly.records import FloatArray, IntArray
from credibly.settings import DistilSettings
from credibly.tuning import Loss, cross_entropy, target_loss

Targets = NDArray[np.float32]
Weigh = Callable[[Targets], FloatArray]

SMOOTHING = 0.1
"""Label smoothing's epsilon, as Szegedy et al. (2016) have it, https://arxiv.org/abs/1512.00567."""
HIGH_TEMPERATURE = 4.0
"""Of `soft_labels_t4`; Hinton et al. (2015) try 1 to 20, https://arxiv.org/abs/1503.02531."""
TEMPERATURE_STEP = 2.0
"""By how much that of `soft_labels_own_t` is higher where the ensemble is sure, and lower where it is not."""


@dataclass(frozen=True)
class Lesson:
    """What one network learns.

    Args:
        loss: of logits and row indices.
        rows: int64, the transfer texts that it sees; None for all.
        heads: how many answers it gives of each text, each of C logits.
    """

    loss: Loss
    rows: IntArray | None = None
    heads: int = 1


def lesson(
    control: str | None,
    labels: Targets,
    opinions: DirichletTargets,
    distil: DistilSettings,
    weigh: Weigh | None = None,
) -> Lesson:
    """Return what a network learns.

    Args:
        control: one of `CONTROLS`; None for the student.
        labels: float32, (K, C), normalised, of the first K transfer texts; the others have none.
        opinions: the members', for all N transfer texts.
        distil: the mix that the student learns.
        weigh: gives rows their weights by the probabilities that are learned; equal if left out.
    """
    weigh = weigh or equally
    if control is None:
        known = np.zeros_like(opinions.mean)
        known[: len(labels)] = labels * weigh(labels)[:, None]
        shares = distil.label_share, distil.soft_share, distil.temperature
        return Lesson(student_loss(opinions, known, *shares, weigh(opinions.mean)))
    return LESSONS[control](labels, opinions, weigh)


def equally(targets: Targets) -> FloatArray:
    """Return a weight of one for each row, (N,)."""
    return np.ones(len(targets))


def student_loss(
    opinions: DirichletTargets,
    labels: Targets | None = None,
    label_share: float = 0.0,
    soft_share: float = 0.0,
    temperature: float = 1.0,
    weights: FloatArray | None = None,
) -> Loss:
    """Return the reverse KL to the ensemble's Dirichlet, mixed with soft labels and with true ones.

    Args:
        opinions: for the N transfer texts.
        labels: float32, (N, C), normalised but for a row's weight; rows of zeros have no label.
        label_share: weight of the cross-entropy with them.
        soft_share: weight of the cross-entropy with the ensemble's mean.
        temperature: of that mean.
        weights: of the opinions, (N,); equal if left out.
    """
    each = torch.from_numpy(np.asarray(equally(opinions.mean) if weights is None else weights, np.float32))
    mean, precision = torch.from_numpy(opinions.mean), torch.from_numpy(opinions.precision)
    wanted = None if labels is None or not label_share else torch.from_numpy(labels)
    left = 1.0 - soft_share - (0.0 if wanted is None else label_share)

    def loss(z: Tensor, rows: Tensor) -> Tensor:
        own, weight = mean[rows].to(z.device), each[rows].to(z.device)
        total = left * reverse_kl(z, own, precision[rows].to(z.device), weight)
        if soft_share:
            total = total + soft_share * soft_cross_entropy(z, own, temperature, weight)
        if wanted is not None:
            total = total + label_share * cross_entropy(z, wanted[rows].to(z.device))
        return total

    return loss


def smoothed(labels: Targets, epsilon: float = SMOOTHING) -> Targets:
    """Return labels, (K, C), of which a share of epsilon is spread evenly over the classes.

    >>> smoothed(np.array([[1.0, 0.0]], dtype=np.float32)).round(3).tolist()
    [[0.949999988079071, 0.05000000074505806]]
    """
    return np.asarray((1 - epsilon) * labels + epsilon / labels.shape[1], dtype=np.float32)


Learned = Callable[[Targets, DirichletTargets, Weigh], Lesson]


def _soft_labels(temperature: float) -> Learned:
    def learned(labels: Targets, opinions: DirichletTargets, weigh: Weigh) -> Lesson:
        mean = torch.from_numpy(opinions.mean)
        each = torch.from_numpy(weigh(opinions.mean).astype(np.float32))

        def loss(z: Tensor, rows: Tensor) -> Tensor:
            return soft_cross_entropy(z, mean[rows].to(z.device), temperature, each[rows].to(z.device))

        return Lesson(loss)

    return learned


def own_temperatures(mean: Targets) -> Targets:
    """Return a temperature for each text, float32, (N,): high where the ensemble is sure, low where not.

    In the form of Kim et al. (2023), https://arxiv.org/abs/2311.14334: soft labels of which the teacher is
    sure are made softer, the others are left sharper. They go by the teacher's energy, which they show to
    follow its confidence, and which a mean of probabilities does not have: we go by the confidence. The
    surest and the least sure third, and a step of 2 about 4, are our choice and were not tuned.

    Args:
        mean: (N, C), normalised: the ensemble's prediction.

    >>> own_temperatures(np.array([[0.5, 0.5], [0.2, 0.8], [0.99, 0.01]], dtype=np.float32)).tolist()
    [2.0, 4.0, 6.0]
    """
    confidence = mean.max(axis=1)
    low, high = np.quantile(confidence, [1 / 3, 2 / 3])
    steps = (confidence >= high).astype(np.float32) - (confidence <= low)
    return np.asarray(HIGH_TEMPERATURE + TEMPERATURE_STEP * steps, dtype=np.float32)


def _own_temperature(labels: Targets, opinions: DirichletTargets, weigh: Weigh) -> Lesson:
    mean, temperature = torch.from_numpy(opinions.mean), torch.from_numpy(own_temperatures(opinions.mean))
    each = torch.from_numpy(weigh(opinions.mean).astype(np.float32))

    def loss(z: Tensor, rows: Tensor) -> Tensor:
        own, weight = mean[rows].to(z.device), each[rows].to(z.device)
        return soft_cross_entropy(z, own, temperature[rows].to(z.device), weight)

    return Lesson(loss)


def _hydra(labels: Targets, opinions: DirichletTargets, weigh: Weigh) -> Lesson:
    """Return one head a member, each of which learns what that member says.

    Hydra of Tran et al. (2020), https://arxiv.org/abs/2001.04694, at a temperature of 1 and with the mean
    over heads where they sum. Their heads are the upper part of a network, started from one that has learned
    the ensemble's mean; ours are rows of the last layer, trained with the body from the start.
    """
    assert opinions.members is not None  # `dirichlet_targets` gives them
    weights = weigh(opinions.mean)[:, None, None]
    said = torch.from_numpy((opinions.members.transpose(1, 0, 2) * weights).astype(np.float32))

    def loss(z: Tensor, rows: Tensor) -> Tensor:
        own = said[rows].to(z.device)
        return cross_entropy(z.view(own.shape).flatten(0, 1), own.flatten(0, 1))

    return Lesson(loss, heads=said.shape[1])


def _labelled(made: Callable[[Targets], Targets]) -> Learned:
    def learned(labels: Targets, opinions: DirichletTargets, weigh: Weigh) -> Lesson:
        weighted = np.asarray(made(labels) * weigh(labels)[:, None], dtype=np.float32)
        return Lesson(target_loss(weighted), np.arange(len(labels)))

    return learned


LESSONS: Mapping[str, Learned] = {
    "direct": _labelled(lambda labels: labels),
    "soft_labels": _soft_labels(1.0),
    "hydra": _hydra,
    "label_smoothing": _labelled(smoothed),
    "soft_labels_own_t": _own_temperature,
    "soft_labels_t4": _soft_labels(HIGH_TEMPERATURE),
}
"""By control. Those that learn labels alone see the texts that have one, more often, for as many steps."""
