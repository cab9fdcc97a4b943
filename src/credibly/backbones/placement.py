"""Where a model lies: whole on one device, or its blocks dealt out to several, by accelerate."""

from __future__ import annotations

import functools
import itertools
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import nn
from transformers import PreTrainedModel

from credibly.backbones.blocks import blocks_of
from credibly.backbones.four_bit import held_bytes
from credibly.errors import InputError
from credibly.settings import BackboneSettings

log = logging.getLogger(__name__)

_TO_EXPORT = ContextVar("to_export", default=False)


def best_device() -> torch.device:
    """Return the first GPU where there is one, else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def all_devices() -> list[torch.device]:
    """Return every GPU that this process sees; the processor where there is none."""
    return [torch.device("cuda", place) for place in range(torch.cuda.device_count())] or [best_device()]


@contextmanager
def to_export() -> Iterator[None]:
    """Within this context models are loaded onto the processor, in float32, whatever else is asked for."""
    before = _TO_EXPORT.set(True)
    try:
        yield
    finally:
        _TO_EXPORT.reset(before)


def is_to_export() -> bool:
    """Return whether models are loaded to be exported."""
    return _TO_EXPORT.get()


def devices_of(settings: BackboneSettings) -> list[torch.device]:
    """Return the devices that hold a model, that of its inputs and outputs first."""
    if is_to_export():
        return [torch.device("cpu")]
    if settings.device_map is None:
        return [best_device()]
    devices = all_devices()
    if len(devices) == 1:
        say_alone(settings.name, str(devices[0]))
    return devices


@functools.cache
def say_alone(name: str, device: str) -> None:
    """Say, once, that a model which devices might share lies on the only one."""
    log.warning("backbone.device_map: there is one device (%s), and it holds all of %s", device, name)


def place(model: PreTrainedModel, devices: Sequence[torch.device]) -> None:
    """Bring a model to its devices; where they are several, what calls it sees only the first.

    Raises:
        InputError: as `device_map`.
    """
    if len(devices) == 1:
        model.to(devices[0])
        return
    from accelerate import dispatch_model  # a second to import, and needed here alone
    from accelerate.utils.memory import clear_device_cache

    # The hooks of a model that is no longer needed keep it in memory until it is collected.
    clear_device_cache(garbage_collection=True)
    where = device_map(model, devices)
    for name, device in where.items():
        # Before accelerate does: layers in four bits are quantised where they come to lie.
        model.get_submodule(name).to(device)
    keys = getattr(model, "_skip_keys_device_placement", None)  # caches: each block's lies beside it
    dispatch_model(model, where, main_device=devices[0], skip_keys=keys, force_hooks=True)


def device_map(model: PreTrainedModel, devices: Sequence[torch.device]) -> dict[str, torch.device]:
    """Return the device of every part of a model by name: no block is split, and all else lies on the first.

    Raises:
        InputError: it does not fit on all of them together, or is not built of blocks.
    """
    try:
        blocks = blocks_of(model)
    except InputError:
        raise InputError(
            f"backbone.device_map: {type(model).__name__} keeps no list of blocks to share; leave it out, or "
            "take another model"
        ) from None
    name = next(name for name, module in model.named_modules() if module is blocks)
    beside = dict(_beside(model, blocks))
    sizes = [size_of(block) for block in blocks]
    outside = sum(size_of(part) for part in beside.values())
    places = dealt(outside, sizes, [free_bytes(device) for device in devices])
    if places is None:
        raise InputError(
            f"expected room for {(outside + sum(sizes)) / 1e9:.1f} GB of weights on {len(devices)} devices, "
            "and less is free on them together; free some, or take a smaller --backbone"
        )
    return dict.fromkeys(beside, devices[0]) | {
        f"{name}.{number}": devices[place] for number, place in enumerate(places)
    }


def dealt(outside: int, sizes: Sequence[int], rooms: Sequence[int]) -> list[int] | None:
    """Return each block's device, in order, such that the fullest is as little full as may be.

    Args:
        outside: bytes of what lies on the first device anyway.
        sizes: bytes of the blocks.
        rooms: bytes free on each device.

    Returns:
        Rising numbers of devices; None where there is not room for all.

    >>> dealt(2, [1, 1, 1, 1], [4, 4])
    [0, 1, 1, 1]
    >>> dealt(0, [1, 1, 1], [1, 1]) is None
    True
    """
    # A device is as full as some run of blocks makes it, and the first has the rest to hold besides.
    runs = [run for start in range(len(sizes)) for run in itertools.accumulate(sizes[start:])]
    firsts = [outside, *(outside + run for run in itertools.accumulate(sizes))]
    levels = {first / rooms[0] for first in firsts} | {run / room for run in runs for room in rooms[1:]}
    for level in sorted(level for level in levels if level <= 1):
        places = _filled(outside, sizes, rooms, level)
        if places is not None:
            return places
    return None


def _filled(outside: int, sizes: Sequence[int], rooms: Sequence[int], level: float) -> list[int] | None:
    """Return each block's device where every device is filled to a level; None if there are blocks left."""
    places, place, held = [], 0, outside
    if held / rooms[0] > level:
        return None
    for size in sizes:
        while (held + size) / rooms[place] > level:
            place, held = place + 1, 0
            if place == len(rooms):
                return None
        held += size
        places.append(place)
    return places


def free_bytes(device: torch.device) -> int:
    """Return what is free on a GPU, with what torch holds there and does not use; one byte at least."""
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return max(1, int(torch.cuda.mem_get_info(device)[0]) + unused)


def size_of(module: nn.Module) -> int:
    """Return the bytes of a module's weights and buffers, as they will be held."""
    return sum(held_bytes(tensor) for tensor in itertools.chain(module.parameters(), module.buffers()))


def _beside(module: nn.Module, blocks: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yield the largest parts of a model that hold no block, with their names.

    Raises:
        InputError: weights lie beside them, in no part of their own: accelerate could not move them.
    """
    tensors = itertools.chain(module.named_parameters(recurse=False), module.named_buffers(recurse=False))
    if own := [name for name, _ in tensors]:
        raise InputError(
            f"backbone.device_map: this model cannot be split, for its {prefix}{own[0]} is in none of its "
            "parts; leave it out, or take another model"
        )
    for name, child in module.named_children():
        if child is blocks:
            continue
        if any(inner is blocks for inner in child.modules()):
            yield from _beside(child, blocks, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", child
