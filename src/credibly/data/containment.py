"""Texts that stand word for word within others: phrases of one sentence, quotes, letters with their answers.

A random cut lays the sentence into train and its phrases into calibration, where they look easier than
anything new will be. So they are cut as one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from credibly.data.text import text_key, words
from credibly.records import Examples

FEWEST_WORDS = 3
"""Shorter texts stand within too many others to belong to any."""


def families(texts: Sequence[str]) -> list[str]:
    """Return a key a text: its own, or that of the longest text which it stands within.

    >>> keys = families(["A film of quiet charm.", "quiet charm", "Of quiet charm!", "A film of loud charm."])
    >>> [keys.index(key) for key in keys]
    [0, 1, 0, 3]
    """
    spaced = [words(text) for text in texts]
    longest = containers(spaced, spaced)
    return [text_key(texts[longest.get(own, place)]) for place, own in enumerate(spaced)]


def grouped(examples: Examples) -> Examples:
    """Return examples whose groups are their families, where there are no groups and some text has a family.

    A family is called by the id of its longest text.
    """
    if examples.groups is not None:
        return examples
    keys = families(examples.texts)
    longest: dict[str, int] = {}
    for row, key in enumerate(keys):
        if len(examples.texts[row]) > len(examples.texts[longest.setdefault(key, row)]):
            longest[key] = row
    if len(longest) == len(keys):
        return examples
    return replace(examples, groups=tuple(examples.ids[longest[key]] for key in keys))


def containers(phrases: Sequence[str], texts: Sequence[str]) -> dict[str, int]:
    """Return, for every phrase that stands within a longer text, the place of the longest such text.

    Phrases of fewer than `FEWEST_WORDS` words are left out. Of texts of as many words the first in the
    alphabet counts, so that the order of the rows has no say.

    Args:
        phrases: each as `words` gives it.
        texts: likewise.
    """
    known, lengths = set(phrases), lengths_by_beginning(phrases)
    found: dict[str, int] = {}
    for place in sorted(range(len(texts)), key=lambda place: (-texts[place].count(" "), texts[place])):
        own = texts[place].split(" ")
        for start in range(len(own) - FEWEST_WORDS + 1):
            for length in lengths.get(tuple(own[start : start + FEWEST_WORDS]), ()):
                if length < len(own) and start + length <= len(own):
                    phrase = " ".join(own[start : start + length])
                    if phrase in known:
                        found.setdefault(phrase, place)
    return found


def lengths_by_beginning(phrases: Sequence[str]) -> dict[tuple[str, ...], set[int]]:
    """Return how many words the phrases have that begin with the same `FEWEST_WORDS`, by these."""
    lengths: dict[tuple[str, ...], set[int]] = {}
    for phrase in phrases:
        if (count := phrase.count(" ") + 1) >= FEWEST_WORDS:
            beginning = tuple(phrase.split(" ", FEWEST_WORDS)[:FEWEST_WORDS])
            lengths.setdefault(beginning, set()).add(count)
    return lengths
