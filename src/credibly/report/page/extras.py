"""The optional packages of the `report` extra, imported when first needed."""

from __future__ import annotations

import importlib
from types import ModuleType

from credibly.errors import MissingExtraError


def optional(module: str) -> ModuleType:
    """Import a module of the `report` extra.

    >>> optional("jinja2").__name__
    'jinja2'

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        raise MissingExtraError(
            f'the HTML report needs {package}, which is not installed: pip install "credibly[report]"'
        ) from None
