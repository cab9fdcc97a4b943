"""What is trained, and what a training tells of itself on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from credibly.progress import Progress
from credibly.training.checkpoint import Checkpoints
from credibly.training.history import StepRecord

Batch = TypeVar("Batch")

Log = Callable[[int, StepRecord], None]
"""Called with a member's place among those trained together, and its newest record."""


@dataclass(frozen=True)
class HeldOut:
    """How well members do on rows that they are not trained on.

    Args:
        loss: mean negative log-likelihood, in nats, (M,).
        accuracy: share of rows whose most probable class is their label's, (M,).
        rows: number of rows looked at.
    """

    loss: Tensor
    accuracy: Tensor
    rows: int

    @classmethod
    def over(cls, parts: Iterable[tuple[Tensor, Tensor]]) -> HeldOut:
        """Return the means over batches of log-probabilities, (M, B, C), and target probabilities, (B, C)."""
        losses, hits = [], []
        for log_probs, targets in parts:
            losses.append(-(targets * log_probs).sum(dim=-1))
            hits.append(log_probs.argmax(dim=-1) == targets.argmax(dim=-1))
        loss, hit = torch.cat(losses, dim=1), torch.cat(hits, dim=1)
        return cls(loss.mean(dim=1), hit.float().mean(dim=1), loss.shape[1])


@dataclass(frozen=True)
class Task(Generic[Batch]):
    """What is trained: one network, or M members stacked along a first axis.

    Args:
        module: what is trained. Where it stacks M members, every trainable tensor's first axis is the
            member, so that one optimiser step is M independent ones.
        batches: the batches from a number on, for ever; the same number gives the same batch each time.
        losses: yields the mean loss of a batch for each member, (M,), in nats; in parts that add up to
            it where the whole would need too much memory: each is differentiated before the next is asked
            for.
        batches_per_epoch: number of batches in an epoch.
        members: M; None where the module is one plain network.
        seed: of torch's own random numbers, dropout's among them.
        generators: the random streams that training draws from beside them.
        validate: measures held-out rows, a few batches of them where a number is given, all where None.
        tokens: number of real tokens in a batch.
    """

    module: nn.Module
    batches: Callable[[int], Iterator[Batch]]
    losses: Callable[[Batch], Iterable[Tensor]]
    batches_per_epoch: int
    members: int | None = None
    seed: int = 0
    generators: Sequence[np.random.Generator] = ()
    validate: Callable[[int | None], HeldOut] | None = None
    tokens: Callable[[Batch], int] | None = None


@dataclass(frozen=True)
class Monitor:
    """What a training reports to, and where it keeps its checkpoints.

    Args:
        progress: told of every step.
        checkpoints: written at every epoch's end and every few minutes; the training goes on from the
            newest there is.
        log: told of every record of a history.
    """

    progress: Progress | None = None
    checkpoints: Checkpoints | None = None
    log: Log | None = None


UNWATCHED = Monitor()
