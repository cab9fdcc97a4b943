"""Recipes from a file's name and a few settings, and the demo's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from credibly.errors import InputError
from credibly.runs import Run
from credibly.settings import Recipe, parse_recipe, recipe_values
from credibly.settings.dotted import with_values

RECIPE_SUFFIXES = (".yaml", ".yml")
LABELLED_BY = ("train", "template", "text", "pair", "cut", "id", "group")
"""Data settings that a labelled file's texts are read by."""


def make_recipe(source: Recipe | str | Path | None, settings: Mapping[str, object] | None = None) -> Recipe:
    """Return the recipe for a source: a recipe, a YAML recipe's path, or a data file's name.

    Args:
        source: what to train from; None for the texts that `data.labels_from` has labelled.
        settings: values by dotted key, such as ``{"members.count": 5}``; they win over the recipe's.

    Raises:
        RecipeError: the recipe is missing or wrong.
        InputError: there is neither a source nor a folder with labels.
    """
    assignments = dict(settings or {})
    if source is None:
        return parse_recipe(with_values({}, {**_labelled(assignments), **assignments}), "settings")
    if isinstance(source, Recipe):
        return parse_recipe(with_values(source.model_dump(mode="json"), assignments))
    if Path(source).suffix in RECIPE_SUFFIXES:
        values = recipe_values(Path(source))
        values.pop("resolved", None)
        return parse_recipe(with_values(values, assignments), str(source))
    return parse_recipe(with_values({}, {"data.train": str(source), **assignments}), "settings")


def _labelled(settings: Mapping[str, object]) -> dict[str, object]:
    """Return the file and the columns of the texts that a run has labelled."""
    folder = settings.get("data.labels_from")
    if folder is None:
        raise InputError(
            "expected a recipe, a data file, or a folder with labels as data.labels_from (--labels-from RUN)"
        )
    data = Run.open(str(folder), labels=True).recipe.data
    return {f"data.{name}": getattr(data, name) for name in LABELLED_BY}


def demo_recipe() -> Recipe:
    """Return the demo: ten heads on MiniLM, rated movie reviews, three shift sets, one student."""
    return make_recipe("reviews", {"distil.label_share": 0.8})
