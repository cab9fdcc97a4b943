"""The verbs as functions, from fit and label to compare and doctor.

Each is imported when it is first used, and torch with those that need it.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from credibly.errors import MissingExtraError

_HOMES = {
    "fit": "credibly.workflows.fitting",
    "fit_splits": "credibly.workflows.fitting",
    "distil": "credibly.workflows.distilling",
    "add_student": "credibly.workflows.distilling",
    "label": "credibly.workflows.labelling",
    "plan": "credibly.workflows.planning",
    "make_recipe": "credibly.workflows.recipes",
    "demo_recipe": "credibly.workflows.recipes",
    "load": "credibly.workflows.loading",
    "serve": "credibly.workflows.serving",
    "Address": "credibly.workflows.serving",
    "ServiceSettings": "credibly.workflows.serving",
    "token_of": "credibly.workflows.serving",
    "Wanted": "credibly.workflows.promises",
    "predict_file": "credibly.workflows.predicting",
    "export": "credibly.workflows.exporting",
    "answer_lines": "credibly.workflows.predicting",
    "evaluate": "credibly.workflows.evaluating",
    "evaluate_predictions": "credibly.workflows.judging",
    "report": "credibly.workflows.evaluating",
    "shift": "credibly.workflows.shifting",
    "suggest": "credibly.workflows.suggesting",
    "compare": "credibly.workflows.comparing",
    "push": "credibly.workflows.publishing",
    "pull": "credibly.workflows.publishing",
    "Wishes": "credibly.workflows.publication",
    "doctor": "credibly.workflows.checkup",
}

_EXTRAS = {
    "credibly.workflows.serving": "serve",
    "credibly.runtime": "serve",
    "credibly.workflows.exporting": "export",
}
"""The extra that brings what a module needs, where it is not that of training."""

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(imported(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def imported(module: str) -> ModuleType:
    """Return a module of ours, imported now.

    Raises:
        MissingExtraError: it needs packages that are not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if str(error.name).startswith("credibly"):
            raise
        extra = _EXTRAS.get(module, "train")
        raise MissingExtraError(
            f'this needs packages that are not installed ({error}): pip install "credibly[{extra}]"'
        ) from error
