"""What a model is, found by trying it or in its parts, so that no list of architectures is needed."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from credibly.errors import InputError

OF_POSITIONS = ("pos_proj", "pos_q_proj", "pos_key_proj", "pos_query_proj")
"""What DeBERTa calls the layers that project positions alone, where it has such."""


def is_causal(model: PreTrainedModel) -> bool:
    """Return whether a token's state is the same whatever follows it."""
    states = first_output(model)
    changes = (states[0] - states[1]).abs().amax(dim=-1)
    return bool(changes[0] < 1e-3 * changes[1])


def computes(model: PreTrainedModel, context: AbstractContextManager[object] | None = None) -> bool:
    """Return whether a model runs in its precision, or in this context: some mix it with another."""
    try:
        with context or nullcontext():
            first_output(model)
    except RuntimeError:
        return False
    return True


def first_output(model: PreTrainedModel) -> Tensor:
    """Return what a model makes of two texts of two tokens that differ in the second.

    Hidden states, float32, (2, 2, H), or logits, (2, C), of a classifier.
    """
    vocabulary = int(model.config.get_text_config().vocab_size)
    first, second, third = (vocabulary * quarter // 4 for quarter in (1, 2, 3))
    ids = torch.tensor([[first, second], [first, third]], device=model.device)
    with torch.inference_mode():
        output: Tensor = model(input_ids=ids, attention_mask=torch.ones_like(ids))[0]
    return output.float()


def tells_segments_apart(model: PreTrainedModel) -> bool:
    """Return whether a model has an embedding for the second text of a pair, as BERT's kin do."""
    tables = (module for name, module in model.named_modules() if name.endswith("token_type_embeddings"))
    return any(int(getattr(table, "num_embeddings", 0)) > 1 for table in tables)


def first_position(model: PreTrainedModel) -> int:
    """Return the position of a text's first token: RoBERTa's kin start to count after the padding id.

    A table of positions with a row for padding is how such a model shows itself.
    """
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            return int(module.padding_idx) + 1
    return 0


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


def position_layers(model: PreTrainedModel) -> list[nn.Module]:
    """Return the layers that project a table of relative positions, as DeBERTa has them, into each block.

    The table has a row for each distance and none for a text: what a layer makes of it, all texts share.
    """
    found = []
    for module in model.modules():
        if getattr(module, "relative_attention", False):
            own = ("query_proj", "key_proj") if getattr(module, "share_att_key", False) else OF_POSITIONS
            found += [layer for name in own if (layer := getattr(module, name, None)) is not None]
    return found
