"""Texts made from others, so that a student meets more places where members may disagree."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from credibly.parted import PartedText
from credibly.settings import AugmentSettings

Words = list[str]
"""A text's words, each with the white space before it."""

STREAM = 29
"""Keeps these draws apart from others of the same seed."""


def made_texts(
    texts: Sequence[str], settings: AugmentSettings, seed: int, mask: str | None = None
) -> list[str]:
    """Return the texts made from these, `copies` rounds of them; what comes out as it was is left out.

    Of a text that is made of a template, or of a pair, only the part that gives way is changed.

    Args:
        texts: N texts.
        settings: how many, in which ways, and how much of a text is changed.
        seed: of the draws.
        mask: the token that stands for a masked word; masked words are left out where there is none.

    >>> settings = AugmentSettings(copies=1, kinds=["span_masking"], share=0.5)
    >>> made_texts(["one two three four"], settings, seed=0, mask="[MASK]")
    ['one two [MASK] [MASK]']
    """
    random = np.random.default_rng([seed, STREAM])
    return [made for _ in range(settings.copies) for made in _round(texts, settings, random, mask)]


def _round(
    texts: Sequence[str], settings: AugmentSettings, random: np.random.Generator, mask: str | None
) -> Iterator[str]:
    """Yield one made text for each text of which one can be made."""
    ways: dict[str, Callable[[Words], Words]] = {
        "word_dropout": lambda words: without_some(words, settings.share, random),
        "span_masking": lambda words: span_masked(words, settings.share, random, mask),
        "splices": lambda words: spliced(words, words_of(texts[int(random.integers(len(texts)))]), random),
    }
    for text in texts:
        kind = settings.kinds[int(random.integers(len(settings.kinds)))]
        words = words_of(text)
        changed = ways[kind](words) if words else words
        if changed != words:
            yield with_words(text, changed)


def without_some(words: Words, share: float, random: np.random.Generator) -> Words:
    """Return the words without about this share of them; one at least stays."""
    stays = random.random(len(words)) >= share
    stays[random.integers(len(words))] = True
    return [word for word, kept in zip(words, stays, strict=True) if kept]


def span_masked(words: Words, share: float, random: np.random.Generator, mask: str | None) -> Words:
    """Return the words with a run of them masked, a share of all, or left out where there is no mask."""
    length = min(max(1, round(share * len(words))), len(words) - 1)
    start = int(random.integers(len(words) - length + 1))
    span = words[start : start + length]
    masked = [] if mask is None else [_space(word) + mask for word in span]
    return [*words[:start], *masked, *words[start + length :]]


def spliced(words: Words, others: Words, random: np.random.Generator) -> Words:
    """Return the beginning of one text before the end of another, both cut at about the same depth."""
    depth = random.uniform(0.25, 0.75)
    end = others[int(depth * len(others)) :]
    return [*words[: max(1, round(depth * len(words)))], *([f" {end[0].lstrip()}", *end[1:]] if end else [])]


def words_of(text: str) -> Words:
    """Return the words of a text, or of its part that gives way, each with the white space before it.

    >>> words_of("so it  is")
    ['so', ' it', '  is']
    """
    part = text[text.start : text.stop] if isinstance(text, PartedText) else text
    return re.findall(r"\s*\S+", part)


def with_words(text: str, words: Words) -> str:
    """Return a text with other words; of a parted one in the place of the part that gives way."""
    part = "".join(words)
    if not isinstance(text, PartedText):
        return part.strip()
    stop = text.start + len(part)
    behind = text.boundary is not None and text.boundary >= text.stop
    boundary = text.boundary + stop - text.stop if behind and text.boundary is not None else text.boundary
    return PartedText(text[: text.start] + part + text[text.stop :], text.start, stop, boundary)


def _space(word: str) -> str:
    return word[: len(word) - len(word.lstrip())]
