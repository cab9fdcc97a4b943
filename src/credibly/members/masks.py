"""Dropout of whole units: in training by a mask a text, in prediction by a mask that stays.

A unit that is dropped is dropped at every place of a text. So a mask is a draw of the weights behind the
units (Gal & Ghahramani 2016, "A Theoretically Grounded Application of Dropout in Recurrent Neural Networks",
https://arxiv.org/abs/1512.05287), and not noise that the mean over a text's tokens would take away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from credibly.members.common import kept_units
from credibly.training import stream

Masks = dict[str, Tensor]
"""By a layer's name its units, float32, (width,): zero where dropped; the mean is one."""


class UnitDropout(nn.Dropout):
    """A dropout layer whose units lie along the last axis, (B, width) or (B, L, width).

    Anything else, such as the weights of attention, (B, heads, L, L), is dropped as ever, in training alone.
    """

    mask: Tensor | None = None
    """What predictions are multiplied by; None for no dropout."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the input with units dropped."""
        if input.dim() > 3:
            return super().forward(input)
        if self.training:
            return input * super().forward(torch.ones_like(input[:, :1] if input.dim() == 3 else input))
        return input if self.mask is None else input * self.mask.to(input.dtype)


def drop_whole_units(model: nn.Module) -> None:
    """Put a `UnitDropout` in the place of each of a model's dropout layers."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Dropout:
                setattr(module, name, UnitDropout(child.p).train(child.training))


@contextmanager
def noting_widths(model: nn.Module, first: nn.Module | None = None) -> Iterator[dict[str, int]]:
    """Yield a mapping that fills with the number of units, by name, of each layer that a text passes through.

    What lies before a module, where one is given, is left out.
    """
    widths: dict[str, int] = {}

    def noted(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def note(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            if arguments[0].dim() <= 3:
                widths[name] = arguments[0].shape[-1]

        return note

    handles = [layer.register_forward_pre_hook(noted(name)) for name, layer in _layers(model).items()]
    if first is not None:
        handles.append(first.register_forward_pre_hook(lambda module, arguments: widths.clear()))
    try:
        yield widths
    finally:
        for handle in handles:
            handle.remove()


def masks_of(widths: Mapping[str, int], dropout: float, seed: int) -> Masks:
    """Return a member's masks, drawn from its own stream."""
    own = stream(seed, "masks")
    return {name: torch.from_numpy(kept_units([width], dropout, [own])[0]) for name, width in widths.items()}


@contextmanager
def masked(model: nn.Module, masks: Masks) -> Iterator[None]:
    """Within this context a model that predicts drops these units."""
    layers = _layers(model)
    for name, mask in masks.items():
        layers[name].mask = mask
    try:
        yield
    finally:
        for name in masks:
            layers[name].mask = None


def _layers(model: nn.Module) -> dict[str, UnitDropout]:
    return {name: module for name, module in model.named_modules() if isinstance(module, UnitDropout)}
