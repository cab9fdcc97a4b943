"""The linear layer that gives the logits, run exactly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn

from credibly.backbones.loading import Classifier
from credibly.backbones.probing import last_layer


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
