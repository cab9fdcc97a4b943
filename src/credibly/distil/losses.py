"""The student's loss on logits z, (B, C): a mean over the batch, in nats."""

from __future__ import annotations

import torch
from torch import Tensor


def reverse_kl(z: Tensor, mean: Tensor, precision: Tensor) -> Tensor:
    """Return the reverse KL divergence from Dir(exp(z) + 1) to the proxy Dirichlet, over its precision.

    Equation 11 of Ryabinin et al. (2021), https://arxiv.org/abs/2105.06987:

        - sum_c mean_c E[ln p_c] + KL(Dir(alpha) || Dir(1)) / precision,   alpha = exp(z) + 1,

    which has its minimum at exp(z) = mean x precision. So the 1 stays inside the loss, on both sides,
    and exp(z) itself is the Dirichlet that the student emits.

    Args:
        z: log-concentrations, (B, C).
        mean: target probabilities, (B, C), normalised.
        precision: target precision, (B,).
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
    return (-(mean * expected_log).sum(dim=-1) + to_uniform / precision).mean()
