"""Losses of the ensemble's opinion on logits z, (B, C): a mean over the batch, in nats."""

from __future__ import annotations

import torch
from torch import Tensor

from credibly.tuning import cross_entropy


def reverse_kl(z: Tensor, mean: Tensor, precision: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the reverse KL divergence from Dir(exp(z) + 1) to the proxy Dirichlet, over its precision.

    Equation 11 of Ryabinin et al. (2021), https://arxiv.org/abs/2105.06987:

        - sum_c mean_c E[ln p_c] + KL(Dir(alpha) || Dir(1)) / precision,   alpha = exp(z) + 1,

    which has its minimum at exp(z) = mean x precision. So the 1 stays inside the loss, on both sides,
    and exp(z) itself is the Dirichlet that the student emits.

    Args:
        z: log-concentrations, (B, C).
        mean: target probabilities, (B, C), normalised.
        precision: target precision, (B,).
        weights: of the rows, (B,); equal if left out.
    """
    # In double precision: at high precision the two terms are large and nearly cancel.
    alpha = torch.exp(z.double().clamp(max=20.0)) + 1.0
    total = alpha.sum(dim=-1, keepdim=True)
    expected_log = torch.digamma(alpha) - torch.digamma(total)
    classes = torch.tensor(float(alpha.shape[-1]), dtype=alpha.dtype, device=z.device)
    to_uniform = (
        torch.lgamma(total.squeeze(-1))
        - torch.lgamma(alpha).sum(dim=-1)
        - torch.lgamma(classes)
        + ((alpha - 1.0) * expected_log).sum(dim=-1)
    )
    each = to_uniform / precision - (mean * expected_log).sum(dim=-1)
    return (each if weights is None else each * weights).mean()


def soft_cross_entropy(
    z: Tensor, mean: Tensor, temperature: float | Tensor = 1.0, weights: Tensor | None = None
) -> Tensor:
    """Return the cross-entropy of softmax(z / T) with soft labels at the same temperature, times T^2.

    As Hinton et al. (2015), section 2, https://arxiv.org/abs/1503.02531: T^2 keeps the gradients' size. The
    teacher's logits are those of its mean, ln mean.

    Args:
        z: logits, (B, C).
        mean: target probabilities, (B, C), normalised.
        temperature: T, one for all, or (B,): one a text.
        weights: of the rows, (B,); equal if left out.
    """
    if isinstance(temperature, Tensor):
        temperature = temperature[:, None]
    wanted = mean
    if isinstance(temperature, Tensor) or temperature != 1.0:
        wanted = torch.softmax(torch.log(mean.double()) / temperature, dim=-1).to(z.dtype)
    if weights is not None:
        wanted = wanted * weights[:, None]
    return cross_entropy(z / temperature, temperature**2 * wanted)
