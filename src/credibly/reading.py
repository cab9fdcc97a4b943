"""What is to be known of a model to tell how it reads texts, and how many texts are too long for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from credibly.encoding import Tokenizer, encoded
from credibly.parted import PartedText
from credibly.tokens import TOKENISE_ROWS

SPECIAL_TOKENS = 8
"""A tokenizer puts fewer than so many around a text."""


class Reader(Protocol):
    """What is to be known of a model to tell how it reads a text: any loaded model knows it."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's own."""

    @property
    def max_tokens(self) -> int:
        """Where texts are cut."""


def count_cut(readers: Sequence[Reader], texts: Sequence[str]) -> int:
    """Return how many texts are too long for one of the readers.

    Raises:
        InputError: as `encoding.encoded`.
    """
    cut = np.zeros(len(texts), dtype=bool)
    for reader in readers:
        unsure = [row for row, text in enumerate(texts) if may_be_cut(text, reader.max_tokens)]
        for start in range(0, len(unsure), TOKENISE_ROWS):
            some = unsure[start : start + TOKENISE_ROWS]
            read = encoded(reader.tokenizer, [texts[row] for row in some], reader.max_tokens)
            cut[some] |= [one.cut for one in read]
    return int(cut.sum())


def may_be_cut(text: str, max_tokens: int) -> bool:
    """Return whether a text has to be tokenised to know whether it is cut.

    No tokenizer makes more tokens of a plain text in ASCII than it has characters, but for special ones.
    """
    plain = text.isascii() and not isinstance(text, PartedText)
    return not plain or len(text) + SPECIAL_TOKENS > max_tokens
