"""Devices that stand in for GPUs: tensors lie on one of them, and what lies on two must not meet.

The numbers are the processor's. torch's `lazy` devices have indices, autograd runs them on this thread, and
no build has a backend for them, so that whatever is computed on them comes by here.
"""

from contextlib import contextmanager

import pytest
import torch
from torch.optim import optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from credibly.backbones import placement
from credibly.members import lora
from credibly.training import checkpoint

KIND, HOST = "lazy", torch.device("cpu")
INDEXED = ("index", "_unsafe_index", "index_put", "index_put_")
"""What takes indices from the processor's memory, too."""


class There(torch.Tensor):
    """A tensor on a stand-in device.

    Args:
        inner: its numbers.
        where: the device.
    """

    @staticmethod
    def __new__(cls, inner, where):
        made = torch.Tensor._make_wrapper_subclass(
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(),
            dtype=inner.dtype, layout=inner.layout, device=where, requires_grad=False,
        )  # fmt: skip
        made.inner, made.where = inner, where
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})

    def __repr__(self):
        return f"{self.inner} on {self.where}"

    def numpy(self):
        raise TypeError(f"a tensor on {self.where} cannot be read as an array")

    def tolist(self):
        return self.inner.tolist()


class _Everywhere(TorchDispatchMode):
    """Sees what makes a tensor without having one."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


def _run(func, args, kwargs):
    """Run an operation on the processor, and let its results lie where they would."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    where = _result_device(func, tensors, kwargs.get("device"))
    given = {key: HOST if key == "device" and value is not None else value for key, value in kwargs.items()}
    result = func(*tree_map(_inner, args), **tree_map(_inner, given))
    known = {id(_inner(tensor)): tensor for tensor in tensors}

    def wrapped(made):
        if not isinstance(made, torch.Tensor) or id(made) in known:
            return known.get(id(made), made)
        return made if where == HOST else There(made, where)

    return tree_map(wrapped, result)


def _result_device(func, tensors, wanted):
    """Return where the result lies; an error, as a GPU's would be, where the operands lie apart."""
    name = func.overloadpacket.__name__
    if wanted is not None:
        return torch.device(wanted)
    if not tensors or name in ("_to_copy", "copy_"):
        return _where(tensors[0]) if tensors else HOST
    # A number from the processor's memory may meet anything.
    apart = {_where(tensor) for tensor in tensors if tensor.dim() or _where(tensor) != HOST}
    if name in INDEXED:
        apart = {_where(tensors[0])} | {device for device in apart if device != HOST}
    if len(apart) > 1:
        raise RuntimeError(f"{func}: expected all tensors on one device, got {sorted(map(str, apart))}")
    return apart.pop() if apart else HOST


def _where(tensor):
    return tensor.where if isinstance(tensor, There) else HOST


def _inner(value):
    return value.inner if isinstance(value, There) else value


@contextmanager
def standing_in(count, room=1 << 20, first=None):
    """Within this context the machine has so many devices, with so many bytes free on each, or the first."""
    devices = [torch.device(KIND, place) for place in range(count)]
    autocast = torch.autocast
    overwrites = torch.__future__.get_overwrite_module_params_on_conversion()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(placement, "all_devices", lambda: devices)
        patch.setattr(placement, "best_device", lambda: devices[0])
        patch.setattr(placement, "free_bytes", lambda device: room if device.index else first or room)
        # What torch itself has no word for on these devices.
        patch.setattr(torch, "inference_mode", torch.no_grad)
        patch.setattr(torch, "autocast", lambda kind, **how: autocast(kind.replace(KIND, "cpu"), **how))
        patch.setattr(optimizer, "_get_fused_kernels_supported_devices", lambda: [KIND])
        for module in (lora, checkpoint):
            patch.setattr(module, "save_file", _saving(module.save_file))
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        torch._C._set_only_lift_cpu_tensors(True)
        try:
            with _Everywhere():
                yield devices
        finally:
            torch.__future__.set_overwrite_module_params_on_conversion(overwrites)
            torch._C._set_only_lift_cpu_tensors(False)


def _saving(save_file):
    """Return what saves tensors as safetensors does, which takes them from any device it knows."""
    return lambda tensors, *more: save_file({name: one.cpu() for name, one in tensors.items()}, *more)
