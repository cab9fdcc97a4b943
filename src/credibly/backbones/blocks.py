"""Cut a model between two blocks: the frozen trunk below runs once, the top blocks run often."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from credibly.batching import TokenBatch
from credibly.errors import InputError


def blocks_of(model: PreTrainedModel) -> nn.ModuleList:
    """Return the model's list of transformer blocks, which all architectures keep as one list.

    Raises:
        InputError: there is no list as long as the config says.
    """
    count = int(model.config.get_text_config().num_hidden_layers)
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise InputError(f"{type(model).__name__} keeps no list of {count} blocks; tune the whole of it instead")


def features(layer: nn.Module) -> tuple[int, int]:
    """Return the widths in and out of a linear layer, also GPT-2's transposed one."""
    if isinstance(layer, Conv1D):
        return int(layer.weight.shape[0]), int(layer.weight.shape[1])
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    raise InputError(f"expected a linear layer to adapt, got {type(layer).__name__}")


def states_before(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """Return the hidden states that enter the block at which `ended_before` ends the model, (B, L, H).

    They lie where the inputs do, also where other devices hold the block.
    """
    try:
        model(**inputs)
    except _Reached as reached:
        return reached.hidden.to(next(iter(inputs.values())).device)
    raise AssertionError("the model's forward goes round its own blocks")


@contextmanager
def ended_before(block: nn.Module) -> Iterator[None]:
    """Within this context the model ends before a block; threads may call `states_before` side by side."""
    handle = block.register_forward_pre_hook(_reach, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def holding(model: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Within this context a model has these weights, by name, in the place of its own."""
    own = {name: model.get_parameter(name).data for name in weights}
    _put(model, weights)
    try:
        yield
    finally:
        _put(model, own)


def _put(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    for name, tensor in weights.items():
        model.get_parameter(name).data = tensor


class BlockCut:
    """A model cut below its last `top` blocks.

    The lower part is frozen. `trunk` gives the hidden states that enter the first upper block;
    inside `resumed`, calling the model runs only what lies above the cut, on hidden states given.
    The architecture's own forward still makes masks, positions, pooling and logits, so whatever
    transformers loads can be cut.

    Args:
        model: a transformers model.
        top: number of blocks above the cut, from 1 to all of them.

    Raises:
        InputError: the model has no such block.
    """

    def __init__(self, model: PreTrainedModel, top: int) -> None:
        self.model = model
        self.blocks = blocks_of(model)
        if not 1 <= top <= len(self.blocks):
            raise InputError(f"expected 1 to {len(self.blocks)} blocks to tune, got {top}")
        self.first = len(self.blocks) - top
        self._given = threading.local()
        self._lock, self._stops = threading.Lock(), 0
        self._freeze_below()
        self._tuple_length = self._count_outputs()

    def trunk(self, batch: TokenBatch) -> Tensor:
        """Return the hidden states that enter the first upper block, (B, L, H), without gradient."""
        # Not inference mode: its tensors could not enter a computation that is differentiated.
        with torch.no_grad():
            return self._states(batch.inputs())

    def _states(self, inputs: dict[str, Tensor]) -> Tensor:
        """Run the model up to the cut and return the hidden states there, (B, L, H)."""
        with self.stopped():
            return states_before(self.model, inputs)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Within this context the model ends at the cut, and threads may call `trunk` side by side."""
        with self._lock:
            self._stops += 1
            if self._stops == 1:
                self._stop = self.blocks[self.first].register_forward_pre_hook(_reach, with_kwargs=True)
        try:
            yield
        finally:
            with self._lock:
                self._stops -= 1
                if self._stops == 0:
                    self._stop.remove()

    @contextmanager
    def resumed(self) -> Iterator[None]:
        """Within this context `logits` runs only the upper blocks and the head; threads may call it."""
        lower = list(self.blocks[: self.first])
        tuple_length = self._tuple_length
        handle = self.blocks[self.first].register_forward_pre_hook(self._give_hidden, with_kwargs=True)
        for index in range(self.first):
            self.blocks[index] = _PassThrough(lower[index], tuple_length)
        try:
            yield
        finally:
            handle.remove()
            for index, block in enumerate(lower):
                self.blocks[index] = block

    def logits(self, batch: TokenBatch, hidden: Tensor) -> Tensor:
        """Return logits, (B, C), from the hidden states at the cut, (B, L, H); only within `resumed`."""
        self._given.hidden = hidden
        output = self.model(**batch.inputs())
        self._given.hidden = None
        logits: Tensor = output.logits
        return logits

    @contextmanager
    def holding(self, weights: Mapping[str, Tensor]) -> Iterator[None]:
        """Within this context the model has these weights, by name, in the place of its own."""
        with holding(self.model, weights):
            yield

    def _give_hidden(
        self, module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if arguments:
            return (self._given.hidden, *arguments[1:]), named
        return arguments, {**named, "hidden_states": self._given.hidden}

    def _freeze_below(self) -> None:
        """Freeze whatever the hidden states at the cut depend on, and what the logits do not.

        Found by trying: some architectures keep weights that every block shares (relative positions) beside
        the list of blocks, and tuning those would change the trunk; others bring parts for images.
        """
        self.model.requires_grad_(True)
        below = _weights_behind(self._states(self._probe()))
        behind = _weights_behind(self.model(**self._probe()).logits)
        for parameter in self.model.parameters():
            parameter.requires_grad_(parameter in behind and parameter not in below)
            parameter.grad = None  # what a training left behind

    def _probe(self) -> dict[str, Tensor]:
        """Return the smallest input: ids and mask, (1, 2); some classify by the token that ends a text."""
        end = getattr(self.model.config.get_text_config(), "eos_token_id", None)
        known = end[0] if isinstance(end, list) else end or 0
        ids = torch.full((1, 2), known, dtype=torch.long, device=self.model.device)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def _count_outputs(self) -> int | None:
        """Return how many values a block returns as a tuple; None where it returns the states alone."""
        outputs: list[Any] = []

        def note(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
            outputs.append(output)
            raise _Noted

        handle = self.blocks[0].register_forward_hook(note)
        with torch.no_grad(), suppress(_Noted):
            self.model(**self._probe())
        handle.remove()
        return len(outputs[0]) if isinstance(outputs[0], tuple) else None


def _weights_behind(output: Tensor) -> set[Tensor]:
    """Return the weights that an output, of any shape, depends on: the leaves of its graph."""
    weights, seen, left = set(), set(), [output.grad_fn]
    while left:
        step = left.pop()
        if step is None or step in seen:
            continue
        seen.add(step)
        if (weight := getattr(step, "variable", None)) is not None:
            weights.add(weight)
        left += [before for before, _ in step.next_functions]
    return weights


class _Noted(Exception):
    """Ends a forward pass of which enough was seen."""


class _Reached(Exception):
    """Ends a forward pass at the cut, with the hidden states there."""

    def __init__(self, hidden: Tensor) -> None:
        super().__init__()
        self.hidden = hidden


def _reach(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
    raise _Reached(arguments[0] if arguments else named["hidden_states"])


class _PassThrough(nn.Module):
    """Stands for a block whose work is done: returns the hidden states as they came.

    What an architecture reads off its blocks (such as the kind of their attention) is the block's own.
    """

    def __init__(self, block: nn.Module, tuple_length: int | None) -> None:
        super().__init__()
        # In a tuple, so that it does not become a part of this module.
        self.stands_for = (block,)
        self.tuple_length = tuple_length

    def __getattr__(self, name: str) -> Any:
        """Return what only the block has."""
        return getattr(self.__dict__["stands_for"][0], name)

    def forward(self, hidden_states: Tensor, *arguments: Any, **named: Any) -> Any:
        """Return hidden states, (B, L, H), in the form in which the block would return them."""
        if self.tuple_length is None:
            return hidden_states
        return (hidden_states, *[None] * (self.tuple_length - 1))
