"""Texts compared as people would: without case, spaces and punctuation, in any script."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence

CHUNK = 10_000
"""Longer texts are normalised piece by piece: sorting a long run of combining marks takes quadratic time."""

VARIATION_SELECTORS = ("\ufe0e", "\ufe0f")


class KeptCharacters(dict[int, str | None]):
    """For `str.translate`: drops punctuation, spaces, controls and accents that stand alone.

    Letters, marks (vowel signs among them), digits, and symbols such as emoji and currency stay. Filled as
    characters are met, so that a text costs one look-up a character.
    """

    def __missing__(self, code: int) -> str | None:
        character = chr(code)
        category = unicodedata.category(character)
        dropped = category[0] in "PZ" or category in ("Cc", "Cf", "Sk") or character in VARIATION_SELECTORS
        self[code] = None if dropped else character
        return self[code]


KEPT = KeptCharacters()


def normalised(text: str) -> str:
    """Return a text for comparison: NFKC, without case, spaces and punctuation; never empty.

    Where nothing is left (a text of punctuation only), punctuation stays and only outer spaces go.

    >>> normalised("Don't  PANIC!"), normalised("don’t panic"), normalised(" :-) ")
    ('dontpanic', 'dontpanic', ':-)')
    >>> normalised("你好，世界！") == normalised("你好世界")
    True
    """
    whole = without_case(text)
    return whole.translate(KEPT) or whole.strip() or text.strip()


def words(text: str) -> str:
    """Return the words of a text, normalised, with one space between; without what is punctuation alone.

    >>> words("Don't  PANIC - said she!")
    'dont panic said she'
    """
    return " ".join(kept for word in without_case(text).split() if (kept := word.translate(KEPT)))


def without_case(text: str) -> str:
    """Return a text in one form of each character and without case, long ones piece by piece."""
    if text.isascii():
        return text.lower()
    return "".join(folded(text[start : start + CHUNK]) for start in range(0, len(text), CHUNK))


def folded(text: str) -> str:
    """Return a text in one form of each character and without case."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def text_key(text: str) -> str:
    """Return a sha256 of the normalised text: equal for texts that differ in case, spaces and punctuation."""
    return hashlib.sha256(normalised(text).encode("utf-8", "surrogatepass")).hexdigest()


def seeded_hash(seed: int, key: str) -> str:
    """Return a hash by which a seed puts keys in an order."""
    return hashlib.sha256(f"{seed}\n{key}".encode()).hexdigest()


def ordered_by_hash(texts: Sequence[str], seed: int, purpose: str = "") -> list[int]:
    """Return the rows of texts in the order of a seeded hash, in which only copies keep the order they had.

    Draws one after the other with one seed need a purpose each: else what the first one took from the front
    would be the front of the next.
    """
    keys = [seeded_hash(seed, f"{purpose}{text_key(text)}") for text in texts]
    return sorted(range(len(texts)), key=keys.__getitem__)
