"""What class an answer names: whole words, in any case, whatever the punctuation."""

from __future__ import annotations

import re
from collections.abc import Sequence

from credibly.errors import InputError, listed

Words = tuple[str, ...]

DENIALS = ("not", "non", "no", "never", "cannot")
"""What, before a class's name, says that the text is not of it; so does the end of "isn't"."""
BETWEEN = ("a", "an", "the", "be", "very", "really")
"""What may stand between the two."""


def words_of(text: str) -> Words:
    """Return the words of a text without case and punctuation.

    >>> words_of(" Not-spam!")
    ('not', 'spam')
    """
    return tuple(re.findall(r"\w+", text.casefold()))


def checked_names(words: Sequence[str]) -> tuple[Words, ...]:
    """Return what an answer must hold to name each class.

    Raises:
        InputError: a class has no letters, or two are the same but for case and punctuation.
    """
    names = tuple(words_of(word) for word in words)
    wrong = [word for word, name in zip(words, names, strict=True) if not name or names.count(name) > 1]
    if wrong:
        raise InputError(
            f"expected classes that an answer can name by whole words, got {listed(map(repr, wrong))}, which "
            "have no letters or differ in case and punctuation alone; give words as members.label_words"
        )
    return names


def named_class(answer: str, ended: bool, names: Sequence[Words]) -> int | None:
    """Return the class that an answer names; None where it names none or several.

    Where names overlap the longest counts, so that "not spam" names that class and not "spam". Where it is no
    class's name, it names none: what else the text may be is not said. An answer that was broken off may have
    been about to go on with its last word, which then does not count.

    >>> named_class("Not spam.", True, (("spam",), ("ham",)))
    >>> names = (("spam",), ("not", "spam"))
    >>> [named_class(answer, True, names) for answer in ("Spam.", "Not spam!", "spam, not spam", "ham")]
    [0, 1, None, None]
    >>> named_class("It is spam", False, names), named_class("It is spam,", False, names)
    (None, 0)
    """
    words = words_of(answer)
    if not ended and re.search(r"\w\Z", answer):
        words = words[:-1]
    found, place, end = set[int](), 0, 0
    while place < len(words):
        here = [number for number, name in enumerate(names) if words[place : place + len(name)] == name]
        longest = max(here, key=lambda number: len(names[number]), default=None)
        if longest is None:
            place += 1
            continue
        if not _denied(words[end:place]):
            found.add(longest)
        place = end = place + len(names[longest])
    return found.pop() if len(found) == 1 else None


def _denied(before: Words) -> bool:
    """Return whether the words since the last class's name, before the next, deny the next.

    >>> _denied(("it", "is", "not", "a")), _denied(("it", "isn", "t")), _denied(("answer", "t"))
    (True, True, False)
    """
    last = [word for word in before if word not in BETWEEN][-2:]
    return bool(last) and (last[-1] in DENIALS or (last[-1] == "t" and last[0].endswith("n")))
