"""Transfer texts beyond those that were given: made from the train texts, where the recipe asks for some."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from credibly.data import Splits
from credibly.data.splits import with_unlabelled
from credibly.distil import made_texts
from credibly.reading import Reader
from credibly.settings import Recipe
from credibly.workflows.common.lengths import readers_of


def with_made_texts(splits: Splits, recipe: Recipe) -> Splits:
    """Return splits whose unlabelled texts are those given and those made from train, if any are to be.

    Made texts have no labels: the members answer them, and what learns labels alone does not see them.

    Raises:
        AssetError: a model is not there.
    """
    augment = recipe.distil.augment
    if not (recipe.distil.enabled and augment.copies):
        return splits
    made = made_texts(splits.train.texts, augment, recipe.seed, mask_token(readers_of(recipe)))
    if not made:
        return splits
    given = () if splits.unlabelled is None else splits.unlabelled.texts
    note = f"unlabelled: {len(made):,} texts are made from train texts ({', '.join(augment.kinds)})"
    joined = with_unlabelled(splits, [*given, *made])
    return replace(joined, notes=(*joined.notes, note))


def mask_token(readers: Sequence[Reader]) -> str | None:
    """Return the token that stands for a masked word to every model that reads the texts, if there is one."""
    tokens = {getattr(reader.tokenizer, "mask_token", None) for reader in readers}
    found: str | None = tokens.pop() if len(tokens) == 1 else None
    return found
