"""The one training loop: for a single network, and for M members stacked along a first axis."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from credibly.errors import TrainingError
from credibly.progress import Progress
from credibly.settings import OptimiserSettings

Batch = TypeVar("Batch")

HISTORY = "history.jsonl"

LOGGED_STEPS = 200
"""About so many steps of a training are kept in its history."""


@dataclass(frozen=True)
class StepRecord:
    """One line of a member's history.jsonl.

    Args:
        step: optimiser steps so far.
        epoch: epochs so far, as a fraction.
        loss: the batch's mean loss, in nats.
        gradient_norm: Euclidean norm of the member's gradient before clipping.
        learning_rate: the rate of this step.
        seconds: since training began.
    """

    step: int
    epoch: float
    loss: float
    gradient_norm: float
    learning_rate: float
    seconds: float

    def as_json(self) -> dict[str, float]:
        """Return the record as history.jsonl holds it."""
        return asdict(self)


def train(
    module: nn.Module,
    batches: Callable[[int], Iterable[Batch]],
    losses: Callable[[Batch], Tensor],
    steps_per_epoch: int,
    settings: OptimiserSettings,
    members: int | None = None,
    progress: Progress | None = None,
) -> list[list[StepRecord]]:
    """Train by AdamW and return the history of each member, or of the one network.

    Args:
        module: what is trained. Where it stacks M members, every trainable tensor's first axis is the
            member, so that one optimiser step is M independent ones.
        batches: the batches of an epoch, by its number from 0.
        losses: the mean loss of a batch for each member, (M,), in nats.
        steps_per_epoch: batches in an epoch.
        settings: rate, schedule, decay, epochs.
        members: M; None where the module is one plain network.
        progress: told of every step.

    Raises:
        TrainingError: a loss or gradient is no longer finite.
    """
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimiser = _optimiser(parameters, settings, stacked=members is not None)
    M = members or 1
    total = steps_per_epoch * settings.epochs
    every = max(1, total // LOGGED_STEPS)
    histories: list[list[StepRecord]] = [[] for _ in range(M)]
    began = time.perf_counter()
    every_batch = (batch for epoch in range(settings.epochs) for batch in batches(epoch))
    with _training_mode(module):
        for step, batch in enumerate(every_batch, start=1):
            rate = settings.learning_rate * rate_factor(step - 1, total, settings)
            for group in optimiser.param_groups:
                group["lr"] = rate
            loss = losses(batch)
            optimiser.zero_grad(set_to_none=True)
            loss.sum().backward()  # type: ignore[no-untyped-call]
            logged = step % every == 0 or step == total
            if logged or settings.clip_norm is not None:
                norms = gradient_norms(parameters, M)
                if settings.clip_norm is not None:
                    _clip(parameters, norms, settings.clip_norm, M)
                if logged:
                    _check_finite(loss + norms, step, members)
                    seconds = time.perf_counter() - began
                    _note(histories, loss, norms, (step, step / steps_per_epoch, rate, seconds))
            optimiser.step()
            if progress:
                progress(step, total)
    return histories


def _note(
    histories: Sequence[list[StepRecord]],
    loss: Tensor,
    norms: Tensor,
    reached: tuple[int, float, float, float],
) -> None:
    """Add a step to each member's history; reached are the step, the epoch, the rate and the seconds."""
    step, epoch, rate, seconds = reached
    for history, value, norm in zip(histories, loss.tolist(), norms.tolist(), strict=True):
        history.append(StepRecord(step, epoch, value, norm, rate, seconds))


def history_lines(history: Iterable[StepRecord]) -> str:
    """Return a history as history.jsonl holds it: one JSON object a line."""
    return "".join(json.dumps(record.as_json()) + "\n" for record in history)


def rate_factor(step: int, total: int, settings: OptimiserSettings) -> float:
    """Return the share of the learning rate at a step, from 0: a linear warm-up, then the schedule.

    >>> rate_factor(0, 10, OptimiserSettings(epochs=1, batch_size=1, learning_rate=1, schedule="linear"))
    1.0
    """
    warmup = math.ceil(settings.warmup_share * total)
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, total - warmup)
    match settings.schedule:
        case "linear":
            return 1.0 - done
        case "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * done))
        case _:
            return 1.0


def gradient_norms(parameters: Sequence[nn.Parameter], members: int) -> Tensor:
    """Return each member's gradient norm, (M,)."""
    squares = torch.zeros(members, device=parameters[0].device)
    for parameter in parameters:
        if parameter.grad is not None:
            squares += parameter.grad.detach().float().reshape(members, -1).square().sum(dim=1)
    return squares.sqrt()


def _clip(parameters: Sequence[nn.Parameter], norms: Tensor, clip_norm: float, members: int) -> None:
    """Scale each member's gradient down to the norm, by its own norm alone."""
    factors = (clip_norm / (norms + 1e-6)).clamp(max=1.0)
    for parameter in parameters:
        if parameter.grad is not None:
            # Not by a view: gradients need not be contiguous.
            own_axes = [1] * (parameter.dim() - 1)
            parameter.grad.mul_(factors.view(-1, *own_axes) if members > 1 else factors[0])


@contextmanager
def _training_mode(module: nn.Module) -> Iterator[None]:
    """Leave the module ready to predict, however training ends."""
    module.train()
    try:
        yield
    finally:
        module.eval()


def _optimiser(
    parameters: Sequence[nn.Parameter], settings: OptimiserSettings, stacked: bool
) -> torch.optim.AdamW:
    """Return AdamW with no decay on biases and norms, which are vectors for one member."""
    own_axes = 1 if stacked else 0
    matrices = [parameter for parameter in parameters if parameter.dim() - own_axes > 1]
    vectors = [parameter for parameter in parameters if parameter.dim() - own_axes <= 1]
    return torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": settings.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ],
        lr=settings.learning_rate,
        fused=True,
    )


def _check_finite(figures: Tensor, step: int, members: int | None) -> None:
    wrong = (~torch.isfinite(figures.detach())).nonzero().flatten().tolist()
    if wrong:
        whose = "" if members is None else f" of member {', '.join(map(str, wrong))}"
        raise TrainingError(
            f"the loss{whose} or its gradient is no longer finite at step {step}; "
            "lower the learning rate (a tenth of it is a good try)"
        )
