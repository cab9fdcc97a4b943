"""Texts as token sequences: tokenised once, grouped by length, padded only to the longest of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from credibly.encoding import Tokenizer, encoded
from credibly.records import IntArray

TOKENISE_ROWS = 4096
ALIGNMENT = 16
MOST_ADDED = 1 / 12
"""A batch is padded to a multiple of 16 where that makes it longer by this share or less."""


@dataclass(frozen=True)
class Tokens:
    """N token sequences of their own lengths, laid end to end.

    Args:
        flat: int32, (sum of lengths,): token ids.
        starts: int64, (N + 1,): where each sequence starts; the last entry is the end.
        padding_id: the id that fills short rows.
        padding_side: "left" or "right".
        truncated: number of texts that were cut.
        max_tokens: where texts were cut; padding goes no further.
        types: int8, (sum of lengths,): which text of a pair each token is of; None where there are no
            pairs, or the model does not tell them apart.
    """

    flat: np.ndarray[tuple[int], np.dtype[np.int32]]
    starts: IntArray
    padding_id: int
    padding_side: str
    truncated: int = 0
    max_tokens: int = 0
    types: np.ndarray[tuple[int], np.dtype[np.int8]] | None = None

    @property
    def lengths(self) -> IntArray:
        """int64, (N,): tokens in each sequence."""
        return np.diff(self.starts)

    def __len__(self) -> int:
        return len(self.starts) - 1


@dataclass(frozen=True)
class PaddedRows:
    """Sequences side by side.

    Args:
        ids: int64, (B, L).
        mask: int64, (B, L): 1 on tokens, 0 on padding.
        positions: int64, (B, L): where each token lies in `Tokens.flat`; any place on padding.
        types: int64, (B, L): 1 on tokens of a pair's second text; None where it is left out.
    """

    ids: IntArray
    mask: IntArray
    positions: IntArray
    types: IntArray | None


def tokenise(tokenizer: Tokenizer, texts: Sequence[str], max_tokens: int) -> Tokens:
    """Tokenise texts with the model's special tokens, cutting each at `max_tokens`, and count the cuts.

    Where a text is cut, `encoded` says.

    Raises:
        InputError: as `encoded`.
    """
    ids: list[np.ndarray[tuple[int], np.dtype[np.int32]]] = []
    types: list[list[int] | None] = []
    truncated = 0
    for start in range(0, len(texts), TOKENISE_ROWS):
        for one in encoded(tokenizer, texts[start : start + TOKENISE_ROWS], max_tokens):
            ids.append(np.asarray(one.ids, dtype=np.int32))
            types.append(one.types)
            truncated += one.cut
    starts = np.concatenate([[0], np.cumsum([len(part) for part in ids], dtype=np.int64)])
    padding_id = tokenizer.pad_token_id
    return Tokens(
        flat=np.concatenate(ids) if ids else np.zeros(0, dtype=np.int32),
        starts=starts.astype(np.int64),
        padding_id=0 if padding_id is None else int(padding_id),
        padding_side=tokenizer.padding_side,
        truncated=truncated,
        max_tokens=max_tokens,
        types=_flat_types(ids, types),
    )


def _flat_types(
    ids: Sequence[np.ndarray[tuple[int], np.dtype[np.int32]]], types: Sequence[list[int] | None]
) -> np.ndarray[tuple[int], np.dtype[np.int8]] | None:
    """Lay token types end to end, zero for texts without; None where no text has any."""
    if all(part is None for part in types):
        return None
    return np.concatenate(
        [np.asarray(own or [0] * len(part), np.int8) for own, part in zip(types, ids, strict=True)]
    )


def padded_length(longest: int, most: int) -> int:
    """Return the length to which a batch is padded: the next multiple of 16 where that adds little.

    Attention on a processor goes by whole vectors: 127 tokens take about twice as long as 128.

    Args:
        longest: tokens of the batch's longest row.
        most: tokens that the model can take.

    >>> padded_length(127, 512), padded_length(129, 512), padded_length(127, 127)
    (128, 129, 127)
    """
    aligned = -(-longest // ALIGNMENT) * ALIGNMENT
    return aligned if aligned - longest <= MOST_ADDED * longest and aligned <= most else longest


def length_batches(lengths: IntArray, token_budget: int, most: int = 0) -> list[IntArray]:
    """Group rows of similar length so that a padded batch holds at most `token_budget` tokens.

    Every row is in exactly one batch; a row longer than the budget is a batch of its own. `most` is as
    in `padded_length`.

    >>> [batch.tolist() for batch in length_batches(np.array([5, 2, 5, 2]), token_budget=10)]
    [[0, 2], [1, 3]]
    """
    order = np.argsort(-lengths, kind="stable")
    batches: list[IntArray] = []
    start = 0
    while start < len(order):
        rows = max(1, token_budget // max(1, padded_length(int(lengths[order[start]]), most)))
        batches.append(order[start : start + rows])
        start += rows
    return batches


def padded_rows(tokens: Tokens, indices: IntArray) -> PaddedRows:
    """Pad the sequences at these rows to the `padded_length` of the longest, on the tokenizer's side."""
    lengths = tokens.lengths[indices]
    longest = padded_length(int(lengths.max(initial=1)), tokens.max_tokens)
    columns = np.arange(longest)
    offsets = (
        (longest - lengths)[:, None] if tokens.padding_side == "left" else np.zeros((len(indices), 1), int)
    )
    mask = (columns >= offsets) & (columns < offsets + lengths[:, None])
    positions = tokens.starts[indices][:, None] + np.maximum(columns - offsets, 0)
    positions = np.minimum(positions, len(tokens.flat) - 1)
    ids = np.where(mask, tokens.flat[positions], tokens.padding_id).astype(np.int64)
    types = None if tokens.types is None else np.where(mask, tokens.types[positions], 0).astype(np.int64)
    return PaddedRows(ids, mask.astype(np.int64), positions, types)
