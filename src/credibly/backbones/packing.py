"""Linear layers whose weights lie as the processor's matrix unit reads them: same results, less time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def packed_linears(model: nn.Module) -> Iterator[None]:
    """Within this context the model's bfloat16 linear layers run on packed weights; without gradients only.

    A plain linear layer packs its weights anew at every call and writes the bias in a pass of its own.
    Whatever cannot be packed (other precisions, devices and processors) runs as it is.
    """
    layers = [module for module in model.modules() if type(module) is nn.Linear and _can_be_packed(module)]
    for layer in layers:
        # On the instance alone, before the class's own method, so that taking it away restores the layer.
        layer.__dict__["forward"] = _packed_forward(layer)
    try:
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop("forward", None)


def _can_be_packed(layer: nn.Linear) -> bool:
    return (
        layer.weight.device.type == "cpu"
        and layer.weight.dtype == torch.bfloat16
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    )


def _packed_forward(layer: nn.Linear) -> Callable[[Tensor], Tensor]:
    """Return the layer's forward on packed weights, through the operator that torch.compile itself uses."""
    weight, bias = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), None), layer.bias

    def forward(inputs: Tensor) -> Tensor:
        outputs: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, "none", [], "")
        return outputs

    return forward
