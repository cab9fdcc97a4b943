"""Texts to batches: tokenised once, grouped by length, padded only to the longest of a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from credibly.records import IntArray
from credibly.tokens import TOKENISE_ROWS, Tokens, length_batches, padded_length, padded_rows, tokenise

__all__ = [
    "TOKENISE_ROWS",
    "TokenBatch",
    "Tokens",
    "aligned_batches",
    "length_batches",
    "pad",
    "padded_batches",
    "padded_length",
    "padding_share",
    "shuffled_batches",
    "some_of",
    "split_columns",
    "tokenise",
]


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
    """Pad the sequences at these rows, as `padded_rows` does."""
    rows = padded_rows(tokens, indices)
    return TokenBatch(
        indices=indices,
        input_ids=torch.from_numpy(rows.ids),
        attention_mask=torch.from_numpy(rows.mask),
        positions=torch.from_numpy(rows.positions),
        token_type_ids=None if rows.types is None else torch.from_numpy(rows.types),
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
