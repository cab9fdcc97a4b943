"""What is to be said of labellers that vote: how many of their answers name a class, and what follows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from credibly.errors import InputError
from credibly.members import Said
from credibly.passes import groups_of
from credibly.settings import Recipe


def voting(recipe: Recipe) -> NDArray[np.bool_]:
    """Return which members are sampled answers, bool, (M,)."""
    return np.array([group.settings.source == "samples" for group in groups_of(recipe) for _ in group.seeds])


def _silent(recipe: Recipe, said: Said) -> NDArray[np.bool_]:
    """Return which answers name no class, or several, bool, (members that vote, N)."""
    return np.asarray(np.ptp(said.log_probs[voting(recipe)], axis=-1) == 0)


def answers_given(recipe: Recipe, said: Said) -> dict[str, float] | None:
    """Return how many answers say nothing; None where no member votes."""
    silent = _silent(recipe, said)
    if not len(silent):
        return None
    return {
        "answers": silent.size,
        "none_share": float(silent.mean()) if silent.size else 0.0,
        "texts_without": int(silent.all(axis=0).sum()),
    }


def check_votes(recipe: Recipe, said: Said) -> None:
    """Raise InputError where not one answer names a class."""
    silent = _silent(recipe, said)
    if silent.size and silent.all():
        raise InputError(
            f"not one of {silent.size:,} sampled answers names a class, or it names several; give examples, "
            "words that answer the question (members.label_words), a description, longer answers "
            "(members.answer_tokens), a lower members.temperature, or another model"
        )


def vote_notes(recipe: Recipe, said: Said) -> Iterator[str]:
    """Yield what is to be said of votes."""
    found = answers_given(recipe, said)
    if found is None:
        return
    yield (
        f"{found['none_share']:.1%} of {found['answers']:,} sampled answers name no class or several, and "
        f"count for each class alike; {found['texts_without']:,} texts have no other answer"
    )
    yield (
        "a sampled answer is a vote, sure of its class: what the votes of a text differ by is epistemic by "
        "construction, so go by the total; no bias is taken off votes"
    )
