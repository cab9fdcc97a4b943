"""Which of torch's ways computes attention where a gradient flows.

On processors the fused way keeps no matrix of all pairs of tokens, but its gradient in bf16 takes long: with
12 heads of 32, 32 texts of 64 tokens take 36 ms there and back, 11 ms in the plain way (2 cores, AVX-512).
From 256 tokens on the fused way is the faster; in float32 it always is.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

LONGEST_PLAIN = 128
"""Tokens of the longest text for which the plain way is taken."""


def attention_for_gradient(
    device: torch.device, precision: str, longest: int
) -> AbstractContextManager[None]:
    """Return the context in which a batch runs forward whose gradient is wanted.

    Args:
        device: on which it runs.
        precision: "bf16" or "fp32", of the products.
        longest: tokens of a padded row.
    """
    return sdpa_kernel(SDPBackend.MATH) if is_plain(device, precision, longest) else nullcontext()


def is_plain(device: torch.device, precision: str, longest: int) -> bool:
    """Return whether attention with a gradient is computed in the plain way, whose matrices are kept."""
    return device.type == "cpu" and precision == "bf16" and longest <= LONGEST_PLAIN
