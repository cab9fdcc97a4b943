"""Doctor: what is installed, what the machine can do, which assets are there."""

from __future__ import annotations

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from credibly.assets import cache_folder, installed

PACKAGES = (
    "credibly", "numpy", "scipy", "torch", "transformers", "tokenizers", "safetensors", "datasets",
    "pydantic", "matplotlib", "jinja2",
)  # fmt: skip


def doctor() -> dict[str, Any]:
    """Return versions, processor, precision, devices, the cache and its assets."""
    folder = cache_folder()
    free = shutil.disk_usage(next(parent for parent in [folder, *folder.parents] if parent.is_dir())).free
    return {
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "processor": _processor(),
        "cache": {"folder": str(folder), "free_bytes": free},
        "assets": [_row(asset) for asset in installed()],
    }


def _row(asset: Any) -> dict[str, Any]:
    return {name: getattr(asset, name) for name in ("name", "kind", "cached", "bytes", "licence")}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> dict[str, Any]:
    """Return the processor's facts; without torch, what Python alone knows."""
    facts: dict[str, Any] = {"machine": platform.machine(), "cores": os.cpu_count()}
    try:
        import torch
    except ImportError:
        return facts
    from credibly.backbones import resolve_precision
    from credibly.backbones.placement import best_device

    device = best_device()
    name = torch.cuda.get_device_name() if device.type == "cuda" else None
    return {
        **facts,
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "device": device.type,
        "gpu": name,
        "precision": resolve_precision("auto", device),
    }
