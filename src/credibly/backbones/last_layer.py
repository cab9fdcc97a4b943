"""The linear layer that gives the logits: finding it, and running it exactly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from credibly.errors import InputError

if TYPE_CHECKING:
    from credibly.backbones.loading import Classifier


def last_layer(model: nn.Module, classes: int) -> str:
    """Return the name of the linear layer that gives the logits: the last one with C outputs.

    Raises:
        InputError: there is none.
    """
    layers: list[str] = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module.out_features == classes
    ]
    if not layers:
        raise InputError(
            f"{type(model).__name__} has no linear layer with {classes} outputs to fold a calibration into"
        )
    return str(layers[-1])


@contextmanager
def exact_logits(classifier: Classifier) -> Iterator[None]:
    """Run the layer that gives the logits in single precision, whatever the rest runs in.

    bf16 would round a logit of 4 to steps of 0.03: hundreds of texts would share a few probabilities, and
    a folded calibration would not come out again exactly.
    """
    name = last_layer(classifier.model, len(classifier.class_names))
    layer = cast(nn.Linear, classifier.model.get_submodule(name))

    def again(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
        bias = None if layer.bias is None else layer.bias.float()
        with torch.autocast(output.device.type, enabled=False):
            return nn.functional.linear(arguments[0].float(), layer.weight.float(), bias)

    handle = layer.register_forward_hook(again)
    try:
        yield
    finally:
        handle.remove()
