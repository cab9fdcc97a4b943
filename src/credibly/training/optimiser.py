"""AdamW for one network, or for M members stacked along a first axis: rate, decay and clipping."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from credibly.settings import OptimiserSettings


def adamw(
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


def rate_factor(step: int, total: int, settings: OptimiserSettings) -> float:
    """Return the share of the learning rate at a step, from 0: a linear warm-up, then the schedule.

    >>> rate_factor(0, 10, OptimiserSettings(epochs=1, batch_size=1, learning_rate=1, schedule="linear"))
    1.0
    """
    warmup = min(total, settings.warmup_steps or math.ceil(settings.warmup_share * total))
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


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Give all parameters the learning rate of the next step."""
    for group in optimiser.param_groups:
        group["lr"] = rate


def gradient_norms(parameters: Sequence[nn.Parameter], members: int) -> Tensor:
    """Return each member's gradient norm, (M,), on the first parameter's device."""
    squares = torch.zeros(members, device=parameters[0].device)
    for parameter in parameters:
        if parameter.grad is not None:
            own = parameter.grad.detach().float().reshape(members, -1)
            squares += torch.linalg.vector_norm(own, dim=1).square().to(squares.device)
    return squares.sqrt()


def clip(parameters: Sequence[nn.Parameter], norms: Tensor, clip_norm: float, members: int) -> None:
    """Scale each member's gradient down to the norm, by its own norm alone."""
    factors = (clip_norm / (norms + 1e-6)).clamp(max=1.0)
    for parameter in parameters:
        if parameter.grad is not None:
            # Not by a view: gradients need not be contiguous.
            own_axes = [1] * (parameter.dim() - 1)
            own = factors.to(parameter.device)
            parameter.grad.mul_(own.view(-1, *own_axes) if members > 1 else own[0])
