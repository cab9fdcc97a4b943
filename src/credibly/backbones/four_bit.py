"""Frozen linear layers held in four bits: QLoRA's NormalFloat (Dettmers et al. 2023).

https://arxiv.org/abs/2305.14314; the format and its products are bitsandbytes' (an extra).
"""

from __future__ import annotations

import math
from importlib.util import find_spec

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from credibly.backbones.blocks import blocks_of
from credibly.errors import InputError, MissingExtraError

SCALED_TOGETHER = 64
"""Weights that share a scale."""
WEIGHT_BYTES = 0.516
"""Of a weight: four bits, and its share of the scales of 64 weights, which are themselves held in 8 bits."""


def check_four_bit() -> None:
    """Raise MissingExtraError where bitsandbytes is not installed."""
    if find_spec("bitsandbytes") is None:
        raise MissingExtraError(
            "members.load_in_4bit needs bitsandbytes: pip install 'credibly[four-bit]', or leave it out"
        )


def to_four_bit(model: PreTrainedModel) -> None:
    """Replace the linear layers of a frozen model's blocks by ones that hold their weights in four bits.

    They are brought into four bits where they are moved to a device, be it the one on which they lie.
    Embeddings, norms and the head stay as they are, and products run in the precision that the layers had.
    So do layers whose inputs are not whole blocks of shared scales: the products need that on processors.

    Raises:
        MissingExtraError: bitsandbytes is not installed.
        InputError: there are no such layers; GPT-2's are of another kind.
    """
    check_four_bit()
    from bitsandbytes.nn import Linear4bit, Params4bit  # an extra, and seconds to import

    for block in blocks_of(model):
        linear = [
            (name, layer)
            for name, layer in block.named_modules()
            if type(layer) is nn.Linear and layer.in_features % SCALED_TOGETHER == 0
        ]
        if not linear:
            raise InputError(
                f"members.load_in_4bit needs linear layers with inputs of {SCALED_TOGETHER} or a multiple of "
                f"it, and the blocks of {model.config.model_type} have none; leave it out"
            )
        for name, layer in linear:
            held = Linear4bit(
                layer.in_features,
                layer.out_features,
                bias=layer.bias is not None,
                compute_dtype=layer.weight.dtype,
                quant_type="nf4",
                device="meta",
            )
            held.weight = Params4bit(layer.weight.data, requires_grad=False, quant_type="nf4")
            held.bias = layer.bias
            block.set_submodule(name, held)


def held_bytes(tensor: Tensor) -> int:
    """Return the bytes that a tensor takes, also of weights that will be brought into four bits."""
    if getattr(tensor, "quant_type", None) is not None:
        return round(WEIGHT_BYTES * count_held(tensor))
    return tensor.numel() * tensor.element_size()


def count_held(tensor: Tensor) -> int:
    """Return the number of weights in a tensor, also where two lie in a byte."""
    state = getattr(tensor, "quant_state", None)
    shape: torch.Size = tensor.shape if state is None else state.shape
    return math.prod(shape)
