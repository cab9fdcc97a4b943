"""Recipes from a file's name and a few settings, and the demo's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from credibly.dotted import with_values
from credibly.settings import Recipe, parse_recipe, recipe_values

RECIPE_SUFFIXES = (".yaml", ".yml")


def make_recipe(source: Recipe | str | Path, settings: Mapping[str, object] | None = None) -> Recipe:
    """Return the recipe for a source: a recipe, a YAML recipe's path, or a data file's name.

    Args:
        source: what to train from.
        settings: values by dotted key, such as ``{"members.count": 5}``; they win over the recipe's.

    Raises:
        RecipeError: the recipe is missing or wrong.
    """
    assignments = dict(settings or {})
    if isinstance(source, Recipe):
        return parse_recipe(with_values(source.model_dump(mode="json"), assignments))
    if Path(source).suffix in RECIPE_SUFFIXES:
        values = recipe_values(Path(source))
        values.pop("resolved", None)
        return parse_recipe(with_values(values, assignments), str(source))
    return parse_recipe(with_values({}, {"data.train": str(source), **assignments}), "settings")


def demo_recipe() -> Recipe:
    """Return the demo: ten heads on MiniLM, rated movie reviews, three shift sets, one student."""
    return make_recipe("reviews", {"distil.label_share": 0.8})
