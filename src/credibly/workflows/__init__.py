"""The verbs as functions: fit, predict, evaluate, report, doctor. Torch is imported by the first call."""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "fit": "credibly.workflows.fitting",
    "make_recipe": "credibly.workflows.recipes",
    "demo_recipe": "credibly.workflows.recipes",
    "load": "credibly.workflows.predicting",
    "predict_file": "credibly.workflows.predicting",
    "evaluate": "credibly.workflows.evaluating",
    "report": "credibly.workflows.evaluating",
    "doctor": "credibly.workflows.checkup",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
