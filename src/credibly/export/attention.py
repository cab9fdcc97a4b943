"""Attention as one node of a graph, where the architecture lets its attention be chosen.

Exported step by step, attention is some twenty nodes that copy more than they compute. ONNX Runtime has all
of it as one, `MultiHeadAttention`, which transformers' models are made to call while they are exported.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

NAME = "credibly_fused"


class _Fused(torch.autograd.Function):
    """softmax(scale Q K' + mask) V: (B, heads, L, width) to (B, L, heads, width)."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None,
        heads: int, width: int, scale: float,
    ) -> Tensor:  # fmt: skip
        return steps(query, key, value, mask, scale)

    @staticmethod
    def symbolic(
        g: Any, query: Any, key: Any, value: Any, mask: Any, heads: int, width: int, scale: float
    ) -> Any:
        flat = g.op("Constant", value_t=torch.tensor([0, -1, heads * width]))
        split = g.op("Constant", value_t=torch.tensor([0, -1, heads, width]))
        rows = [
            g.op("Reshape", g.op("Transpose", states, perm_i=[0, 2, 1, 3]), flat)
            for states in (query, key, value)
        ]
        masked = [] if mask is None else [_left_out(g), _left_out(g), mask]
        node = g.op("com.microsoft::MultiHeadAttention", *rows, *masked, num_heads_i=heads, scale_f=scale)
        return g.op("Reshape", node, split)


def _left_out(g: Any) -> Any:
    """Return what stands for an input that is not given."""
    node = g.op("prim::Constant")
    node.setType(torch._C.OptionalType.ofTensor())
    return node


def steps(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """Return attention's states, (B, L, heads, width), computed step by step."""
    scores = torch.matmul(query, key.transpose(2, 3)) * scale
    weights = (scores if mask is None else scores + mask).softmax(dim=-1)
    return torch.matmul(weights, value).transpose(1, 2)


def fused(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    **other: Any,
) -> tuple[Tensor, None]:
    """Return attention's states as transformers asks for them."""
    heads, width = int(query.shape[1]), int(query.shape[3])
    shared = heads // int(key.shape[1])
    if shared > 1:
        key, value = (states.repeat_interleave(shared, dim=1) for states in (key, value))
    scale = width**-0.5 if scaling is None else float(scaling)
    if softcap is None:
        states: Tensor = _Fused.apply(query, key, value, attention_mask, heads, width, scale)  # type: ignore[no-untyped-call]
        return states, None
    scores = softcap * torch.tanh(torch.matmul(query, key.transpose(2, 3)) * scale / softcap)
    weights = (scores if attention_mask is None else scores + attention_mask).softmax(dim=-1)
    return torch.matmul(weights, value).transpose(1, 2), None


@contextmanager
def fused_attention(model: PreTrainedModel) -> Iterator[None]:
    """Within this context the model's attention is one node, where the architecture lets it be chosen."""
    before = model.config._attn_implementation
    ALL_ATTENTION_FUNCTIONS.register(NAME, fused)
    ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, eager_mask)
    try:
        try:
            model.set_attn_implementation(NAME)
        except (ValueError, NotImplementedError):
            model.set_attn_implementation("eager")
        yield
    finally:
        model.set_attn_implementation(before)
