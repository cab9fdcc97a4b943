"""Texts made fit to be shown, and words joined into sentences."""

from __future__ import annotations


def visible(text: str) -> str:
    r"""Show control characters as their pictures, and what is no character as the replacement mark.

    A NUL or a lone surrogate would make the page, or the whole file, unreadable.

    >>> visible("a\x00b"), visible("two\nlines")
    ('a␀b', 'two\nlines')
    """
    if text.isprintable():
        return text
    pictures = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\t\n"} | {0x7F: 0x2421}
    clean = text.translate(pictures | dict.fromkeys(range(0x80, 0xA0), 0xFFFD))
    return clean.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def listed_words(items: list[str]) -> str:
    """Join words as a sentence does.

    >>> listed_words(["one"]), listed_words(["one", "two", "three"])
    ('one', 'one, two and three')
    """
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""


def capital(sentence: str) -> str:
    """Return a sentence with a capital first letter."""
    return sentence[:1].upper() + sentence[1:]
