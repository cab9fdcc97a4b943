"""The verbs as functions, from fit and label to compare and doctor.

Each is imported when it is first used, and torch with those that need it.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from credibly.errors import MissingExtraError

_HOMES = {
    "fit": "credibly.workflows.fitting.fit",
    "fit_splits": "credibly.workflows.fitting.fit",
    "recalibrate": "credibly.workflows.fitting.recalibrate",
    "distil": "credibly.workflows.distilling.distil",
    "add_student": "credibly.workflows.distilling.distil",
    "label": "credibly.workflows.labelling.label",
    "plan": "credibly.workflows.planning",
    "make_recipe": "credibly.workflows.common.recipes",
    "demo_recipe": "credibly.workflows.common.recipes",
    "load": "credibly.workflows.answering.loading",
    "serve": "credibly.workflows.answering.serving",
    "Address": "credibly.workflows.answering.serving",
    "ServiceSettings": "credibly.workflows.answering.serving",
    "token_of": "credibly.workflows.answering.serving",
    "Wanted": "credibly.workflows.answering.promises",
    "predict_file": "credibly.workflows.answering.predicting",
    "export": "credibly.workflows.answering.exporting",
    "answer_lines": "credibly.workflows.answering.predicting",
    "evaluate": "credibly.workflows.evaluating.runs",
    "evaluate_predictions": "credibly.workflows.evaluating.predictions",
    "report": "credibly.workflows.evaluating.runs",
    "shift": "credibly.workflows.evaluating.shifting",
    "suggest": "credibly.workflows.labelling.suggesting",
    "compare": "credibly.workflows.comparing",
    "push": "credibly.workflows.publishing.push_and_pull",
    "pull": "credibly.workflows.publishing.push_and_pull",
    "Wishes": "credibly.workflows.publishing.publication",
    "doctor": "credibly.workflows.checkup",
}

_EXTRAS = {
    "credibly.workflows.answering.serving": "serve",
    "credibly.runtime.model": "serve",
    "credibly.workflows.answering.exporting": "export",
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
