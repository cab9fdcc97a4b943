"""The keys and values of a prompt's prefix, computed once and seen by every text behind it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

PLAIN_ATTENTION = {"full_attention", "sliding_attention", "chunked_attention"}
"""Layers of other kinds (recurrent ones) keep more of a prefix than keys and values."""
KeysValues = tuple[Tensor, Tensor]


class SharedLayer(DynamicLayer):  # type: ignore[misc]  # transformers has no types
    """What one layer knows of a prefix: keys and values, (1 or B, heads, P, D), for any batch behind it.

    They are expanded, not copied, and what a batch adds is not kept unless that is asked for: memory holds
    one layer's keys at a time.

    Args:
        keys: of the prefix.
        values: of the prefix.
        keep: whether to keep what the batch adds, as `whole`.
    """

    def __init__(self, keys: Tensor, values: Tensor, keep: bool = False) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self.keys, self.values, self.keep = keys, values, keep
        self.whole: KeysValues = keys, values

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> KeysValues:
        """Return the prefix's keys and values with the batch's own behind them, (B, heads, P + L, D)."""
        whole = _joined(self.keys, key_states), _joined(self.values, value_states)
        if self.keep:
            self.whole = whole
        return whole


def _joined(prefix: Tensor, own: Tensor) -> Tensor:
    return torch.cat([prefix.expand(own.shape[0], -1, -1, -1), own], dim=-2)


def shared_cache(layers: Sequence[KeysValues], keep: bool = False) -> Cache:
    """Return a cache for one batch behind a prefix."""
    return Cache(layers=[SharedLayer(*layer, keep=keep) for layer in layers])


def can_share(model: PreTrainedModel) -> bool:
    """Return whether all that a model knows of a prefix is its keys and values, in every layer."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    own = int(getattr(config, "num_kv_shared_layers", 0) or 0) == 0
    return kinds <= PLAIN_ATTENTION and own


def prefix_states(model: PreTrainedModel, ids: Sequence[int]) -> list[KeysValues]:
    """Return every layer's keys and values of a prefix, (1, heads, P, D) each."""
    cache = DynamicCache()  # without a config, or layers with a window would forget the beginning
    inputs = torch.tensor([list(ids)], device=model.device)
    model.base_model(
        input_ids=inputs, attention_mask=torch.ones_like(inputs), past_key_values=cache, use_cache=True
    )
    return kept_states(cache)


def kept_states(cache: Cache) -> list[KeysValues]:
    """Return what a cache has kept, layer by layer."""
    return [layer.whole if isinstance(layer, SharedLayer) else (layer.keys, layer.values)
            for layer in cache.layers]  # fmt: skip


def rows_of(layer: KeysValues, rows: Tensor) -> KeysValues:
    """Return some rows of keys and values, wherever these lie."""
    keys, values = layer
    own = rows.to(keys.device)
    return keys[own], values[own]


def behind_texts(layers: Sequence[KeysValues], lengths: Tensor) -> tuple[list[KeysValues], Tensor]:
    """Return keys and values, (B, heads, K, D), moved so that each row ends with its last token.

    What follows then stands right behind each text, and windows count from there.

    Args:
        layers: of prefix and texts, whose padding is on the right.
        lengths: int64, (B,): tokens of each row, the prefix's among them.

    Returns:
        The layers, and which places hold tokens, (B, K), 1 or 0.
    """
    size = layers[0][0].shape[-2]
    places = torch.arange(size, device=lengths.device)
    moved = (places - (size - lengths)[:, None]) % size

    def rolled(states: Tensor) -> Tensor:
        own = moved.to(states.device)[:, None, :, None]
        return states.gather(2, own.expand(-1, states.shape[1], -1, states.shape[3]))

    mask = (places >= (size - lengths)[:, None]).long()
    return [(rolled(keys), rolled(values)) for keys, values in layers], mask


@contextmanager
def output_layer_at(model: PreTrainedModel, tokens: Sequence[int]) -> Iterator[Callable[[Tensor], None]]:
    """Within this context the output layer reads only some places of each row, chosen before each call.

    The logits of some tokens are computed in float32, whatever the model's precision: bfloat16 would round
    them to a sixteenth. What else an architecture does with its logits (caps, factors) it does as ever.
    Yields the function by which a thread chooses its next call's places, int64, (B, K).
    """
    chosen = threading.local()
    layer, own = model.get_output_embeddings(), list(tokens)
    rows = layer.weight[own].float()
    bias = None if getattr(layer, "bias", None) is None else layer.bias[own].float()

    def choose(places: Tensor) -> None:
        chosen.places = places

    def read_there(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden = inputs[0]
        return (hidden[torch.arange(len(hidden), device=hidden.device)[:, None], chosen.places], *inputs[1:])

    def exact(_: nn.Module, inputs: tuple[Any, ...], logits: Tensor) -> Tensor:
        logits = logits.float()
        logits[..., own] = nn.functional.linear(inputs[0].float(), rows, bias)
        return logits

    handles = layer.register_forward_pre_hook(read_there), layer.register_forward_hook(exact)
    try:
        yield choose
    finally:
        for handle in handles:
            handle.remove()
