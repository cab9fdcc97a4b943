"""Texts that stand word for word within others: phrases of one sentence, quotes, letters with their answers.

A random cut lays the sentence into train and its phrases into calibration, where they look easier than
anything new will be. So they are cut as one.
"""

from __future__ import annotations

from collections.abc import Sequence

from credibly.data.text import text_key, words

FEWEST_WORDS = 3
"""Shorter texts stand within too many others to belong to any."""

Words = Sequence[str]


def families(texts: Sequence[str]) -> list[str]:
    """Return a key a text: its own, or that of the longest text which it stands within.

    >>> keys = families(["A film of quiet charm.", "quiet charm", "Of quiet charm!", "A film of loud charm."])
    >>> [keys.index(key) for key in keys]
    [0, 1, 0, 3]
    """
    whole = [words(text) for text in texts]
    longest = containers(whole, whole)
    return [text_key(texts[longest.get(" ".join(own), place)]) for place, own in enumerate(whole)]


def containers(phrases: Sequence[Words], texts: Sequence[Words]) -> dict[str, int]:
    """Return, for every phrase that stands within a longer text, the place of the longest such text.

    Phrases of fewer than three words are left out. Of texts of one length the first in the alphabet counts,
    so that the order of the rows has no say.

    Args:
        phrases: each as its words.
        texts: each as its words.

    Returns:
        By the phrase's words, joined by spaces.
    """
    known = {" ".join(own) for own in phrases if len(own) >= FEWEST_WORDS}
    lengths: dict[Words, set[int]] = {}
    for own in phrases:
        if len(own) >= FEWEST_WORDS:
            lengths.setdefault(tuple(own[:FEWEST_WORDS]), set()).add(len(own))
    found: dict[str, int] = {}
    for place in sorted(range(len(texts)), key=lambda place: (-len(texts[place]), texts[place])):
        own = texts[place]
        for start, beginning in enumerate(zip(own, own[1:], own[2:], strict=False)):
            for length in lengths.get(beginning, ()):
                if length < len(own) and start + length <= len(own):
                    phrase = " ".join(own[start : start + length])
                    if phrase in known:
                        found.setdefault(phrase, place)
    return found
