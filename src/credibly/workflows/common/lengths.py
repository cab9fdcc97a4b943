"""Texts that are longer than a model reads are cut; how many, is said here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from credibly.errors import listed
from credibly.reading import Reader, count_cut
from credibly.records import Examples
from credibly.settings import DataSettings, Recipe


def readers_of(recipe: Recipe) -> list[Reader]:
    """Return how each of a recipe's language models reads texts.

    Raises:
        AssetError: a model is not there.
    """
    from credibly.backbones.reading import load_reader  # torch, which not all who count cuts have
    from credibly.passes import groups_of

    backbones = [group.backbone for group in groups_of(recipe)]
    backbones += [recipe.student_backbone] if recipe.distil.enabled else []
    return [
        load_reader(backbone) for backbone in {(one.name, one.max_tokens): one for one in backbones}.values()
    ]


def cut_notes(readers: Sequence[Reader], sets: Mapping[str, Examples], data: DataSettings) -> tuple[str, ...]:
    """Return a sentence for each set that has texts which are cut.

    Raises:
        InputError: the texts are pairs, and a model knows none.
    """
    counts = {name: count_cut(readers, examples.texts) for name, examples in sets.items()}
    return tuple(
        f"{name}: {cut_sentence(count, len(sets[name]), readers, data)}"
        for name, count in counts.items()
        if count
    )


def cut_sentence(count: int, total: int, readers: Sequence[Reader], data: DataSettings) -> str:
    """Say how many texts were cut, at which length, and where."""
    limits = listed(sorted({reader.max_tokens for reader in readers}))
    where = f" in column '{data.cut_column}'" if data.cut_column else ""
    return f"{count:,} of {total:,} texts were longer than {limits} tokens and were cut{where}"
