"""Texts to batches: tokenised once, grouped by length, padded only to the longest of a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from credibly.encoding import encoded
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
class TokenBatch:
    """A padded batch.

    Args:
        indices: int64, (B,): rows of the texts.
        input_ids: int64, (B, L).
        attention_mask: int64, (B, L): 1 on tokens, 0 on padding.
        positions: int64, (B, L): where each token lies in `Tokens.flat`; any place on padding.
        token_type_ids: int64, (B, L): 1 on tokens of a pair's second text; None where it is left out.
    """

    indices: IntArray
    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    positions: torch.Tensor
    token_type_ids: torch.Tensor | None = None

    def inputs(self) -> dict[str, torch.Tensor]:
        """Return what the model is called with, by the names of its arguments."""
        inputs = {"input_ids": self.input_ids, "attention_mask": self.attention_mask}
        return inputs if self.token_type_ids is None else {**inputs, "token_type_ids": self.token_type_ids}

    def to(self, device: torch.device) -> TokenBatch:
        """Return the batch on a device."""
        return self.changed(lambda tensor: tensor.to(device))

    def changed(self, change: Callable[[torch.Tensor], torch.Tensor]) -> TokenBatch:
        """Return the batch with all that the model is called with changed alike."""
        types = self.token_type_ids
        return replace(
            self,
            input_ids=change(self.input_ids),
            attention_mask=change(self.attention_mask),
            token_type_ids=None if types is None else change(types),
        )


def tokenise(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_tokens: int) -> Tokens:
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


def shuffled_batches(
    lengths: IntArray, batch_size: int, generator: np.random.Generator, pool_batches: int = 32
) -> list[IntArray]:
    """Deal rows into random batches whose lengths are alike: shuffle, sort within pools, shuffle batches.

    Every row is in exactly one batch; all but one batch hold `batch_size` rows.
    """
    order = generator.permutation(len(lengths))
    pool = batch_size * pool_batches
    batches: list[IntArray] = []
    for start in range(0, len(order), pool):
        rows = order[start : start + pool]
        rows = rows[np.argsort(lengths[rows], kind="stable")]
        batches += [rows[first : first + batch_size] for first in range(0, len(rows), batch_size)]
    return [batches[index] for index in generator.permutation(len(batches))]


def split_columns(rows: IntArray, lengths: IntArray, token_budget: int) -> list[IntArray]:
    """Split the rows of one step, (M, B), into parts of like lengths, each within a budget of padded tokens.

    A part has some columns of all M members, one at least. Rows that fit in one stay in their order.

    >>> rows = np.array([[0, 1, 2], [3, 4, 5]])
    >>> [part.tolist() for part in split_columns(rows, np.array([5, 2, 2, 5, 2, 2]), token_budget=10)]
    [[[0], [3]], [[1, 2], [4, 5]]]
    """
    longest = lengths[rows].max(axis=0)
    parts = length_batches(longest, token_budget // len(rows))
    return [rows] if len(parts) == 1 else [rows[:, some] for some in parts]


def pad(tokens: Tokens, indices: IntArray) -> TokenBatch:
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
    ids = np.where(mask, tokens.flat[positions], tokens.padding_id)
    types = None if tokens.types is None else np.where(mask, tokens.types[positions], 0)
    return TokenBatch(
        indices=indices,
        input_ids=torch.from_numpy(ids.astype(np.int64)),
        attention_mask=torch.from_numpy(mask.astype(np.int64)),
        positions=torch.from_numpy(positions),
        token_type_ids=None if types is None else torch.from_numpy(types.astype(np.int64)),
    )


def padded_batches(tokens: Tokens, token_budget: int) -> Iterator[TokenBatch]:
    """Yield all rows as padded batches, longest first, so that a lack of memory shows at once."""
    for indices in length_batches(tokens.lengths, token_budget, tokens.max_tokens):
        yield pad(tokens, indices)


def some_of(batches: Sequence[IntArray], limit: int | None) -> Sequence[IntArray]:
    """Return so many of the batches, evenly spread over them; all where there is no limit.

    >>> [int(batch[0]) for batch in some_of([np.array([i]) for i in range(10)], 4)]
    [0, 3, 6, 9]
    """
    if limit is None or limit >= len(batches):
        return batches
    return [batches[place] for place in np.linspace(0, len(batches) - 1, limit).round().astype(int)]


def padding_share(lengths: IntArray, batches: Sequence[IntArray]) -> float:
    """Return the share of padded positions over all batches.

    >>> padding_share(np.array([4, 2]), [np.array([0, 1])])
    0.25
    """
    padded = sum(len(batch) * int(lengths[batch].max()) for batch in batches)
    return 1.0 - float(lengths.sum()) / padded if padded else 0.0


def aligned_batches(
    lengths: IntArray, batch_size: int, streams: Sequence[np.random.Generator], pool_batches: int = 32
) -> list[IntArray]:
    """Deal each of M members its rows, by its own order: batches (M, B) of rows of like lengths.

    Each member shuffles by its own stream and sorts within pools, so that the members' batches of one
    step are of about one length and pad each other little. Every row of a member is in exactly one
    batch, and what a member is dealt does not depend on the others.

    Args:
        lengths: int64, (M, N), of each member's rows.
        batch_size: B.
        streams: one a member.
        pool_batches: batches in a pool.
    """
    N = lengths.shape[1]
    pool = batch_size * pool_batches
    orders = np.empty_like(lengths)
    for member, own in enumerate(streams):
        order = own.permutation(N)
        for start in range(0, N, pool):
            part = order[start : start + pool]
            orders[member, start : start + pool] = part[np.argsort(lengths[member, part], kind="stable")]
    batches = [orders[:, start : start + batch_size] for start in range(0, N, batch_size)]
    common = np.random.default_rng([N, len(batches)])
    return [batches[index] for index in common.permutation(len(batches))]
