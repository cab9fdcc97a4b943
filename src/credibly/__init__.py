"""Text classifiers whose probabilities you can believe.

The names below are imported on first use, so that ``import credibly`` does not import torch.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "CrediblyError": "credibly.errors",
    "EnsembleClassifier": "credibly.estimators",
    "Examples": "credibly.records",
    "Predictions": "credibly.records",
    "Recipe": "credibly.settings",
    "Run": "credibly.runs",
    "combine": "credibly.uncertainty.combine",
    "decompose": "credibly.uncertainty.decompose",
    "evaluate": "credibly.workflows",
    "fit": "credibly.workflows",
    "load": "credibly.workflows",
}

__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*_HOMES, "__version__"]
