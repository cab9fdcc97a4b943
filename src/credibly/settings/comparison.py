"""A comparison's recipe: what all systems share, and what each has of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from credibly.errors import RecipeError
from credibly.settings.dotted import with_values
from credibly.settings.recipe import Recipe, parse_recipe, recipe_values

SYSTEMS = "systems"


def load_comparison(path: Path, settings: Mapping[str, object] | None = None) -> dict[str, Recipe]:
    """Return the recipe of each system of a comparison, by name.

    The file is a recipe with one block more: under ``systems`` stand names, and under each what differs from
    the rest of the file. A block that names another ``source`` takes the shared one's place.

    Args:
        path: of the YAML file.
        settings: values by dotted key that all systems share, such as ``{"members.count": 5}``.

    Raises:
        RecipeError: the file is missing or wrong, it holds fewer than two systems, or a name is no file name.
    """
    values = recipe_values(path)
    own = values.pop(SYSTEMS, None)
    if not isinstance(own, dict) or len(own) < 2:
        raise RecipeError(f"{path}: expected two systems or more under `{SYSTEMS}`, each with its settings")
    strange = [str(name) for name in own if not re.fullmatch(r"\w[\w.-]{0,60}", str(name))]
    if strange:
        raise RecipeError(
            f"{path}: expected names of letters, digits, points and hyphens, for folders are called so; "
            f"got {strange[0]!r}"
        )
    shared = with_values(values, dict(settings or {}))
    return {
        str(name): parse_recipe(laid_over(shared, block or {}, f"{path}: {name}"), f"{path}: {name}")
        for name, block in own.items()
    }


def laid_over(shared: Mapping[str, Any], own: object, where: str) -> dict[str, Any]:
    """Return nested values with others laid over them.

    >>> laid_over({"seed": 1, "members": {"count": 5, "bootstrap": True}}, {"members": {"count": 3}}, "")
    {'seed': 1, 'members': {'count': 3, 'bootstrap': True}}

    Raises:
        RecipeError: something other than keys and values is laid over.
    """
    if not isinstance(own, Mapping):
        raise RecipeError(f"{where}: expected settings, got {type(own).__name__}")
    both = dict(shared)
    for key, value in own.items():
        below = both.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping) and not _replaces(below, value):
            both[key] = laid_over(below, value, where)
        else:
            both[key] = value
    return both


def _replaces(shared: Mapping[str, Any], own: Mapping[str, Any]) -> bool:
    """Return whether a block is of another source, so that the shared one's settings mean nothing for it."""
    return "source" in own and own["source"] != shared.get("source", "heads")
