"""Prompts around texts: what they have in common runs once, and the texts run in batches behind it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase
from transformers.cache_utils import DynamicCache

from credibly.backbones.language_model import LanguageModel
from credibly.backbones.shared_prefix import (
    KeysValues,
    behind_texts,
    can_share,
    kept_states,
    output_layer_at,
    prefix_states,
    shared_cache,
)
from credibly.batching import TOKENISE_ROWS, TokenBatch, Tokens, length_batches, pad
from credibly.encoding import Encoded, encoded
from credibly.errors import InputError
from credibly.parallel import each_batch
from credibly.parted import PartedText, on_one_line
from credibly.records import IntArray

Result = TypeVar("Result")

LEAST_TEXT = 16
"""A prompt that leaves room for fewer tokens of a text is refused."""
MOST_ROWS = 128
"""Rows of a batch: each has logits over the whole vocabulary."""
PROBES = ("a", "The", "0", "é", "!", '"')
"""Beginnings of texts; what a prompt's tokens have in common with all of them, is its prefix."""


@dataclass(frozen=True)
class Frame:
    """A prompt around a text.

    Args:
        before: instructions, examples, and whatever else stands before the text.
        after: what stands behind it; the answer follows at once.
        words: C words, of which one is the answer.
    """

    before: str
    after: str
    words: tuple[str, ...]

    def around(self, text: str) -> PartedText:
        """Return the prompt with a text on one line, which gives way where the whole is too long.

        Of a text that has a part which gives way, this does so before the rest.
        """
        line, before = on_one_line(text), len(self.before)
        return PartedText(
            f"{self.before}{line}{self.after}",
            before + line.start,
            before + line.stop,
            wider=(before, before + len(line)),
        )


@dataclass(frozen=True)
class Behind:
    """What a batch of texts was read to: what comes next, and what may follow it.

    Args:
        logits: float32, (B, V), of the next token.
        layers: keys and values of prompts and texts, each row's last token at the end; none where nothing
            is to be read on.
        mask: (B, K), which places of them hold tokens.
    """

    logits: Tensor
    layers: Sequence[KeysValues]
    mask: Tensor


@dataclass(frozen=True)
class Prompted:
    """A model behind a shared prefix.

    Args:
        model: that is asked.
        layers: keys and values of the prefix; none where there is no prefix.
        prefix: its number of tokens.
        choose: see `output_layer_at`.
    """

    model: LanguageModel
    layers: Sequence[KeysValues]
    prefix: int
    choose: Callable[[Tensor], None]

    def read(self, batch: TokenBatch, keep: bool) -> Behind:
        """Read texts behind the prefix; `keep` what may be read on from."""
        batch = batch.to(self.model.device)
        lengths = batch.attention_mask.sum(dim=1)
        cache = shared_cache(self.layers, keep) if self.layers else DynamicCache()
        seen = batch.attention_mask.new_ones(len(lengths), self.prefix)
        mask = torch.cat([seen, batch.attention_mask], dim=1)
        self.choose(lengths[:, None] - 1)
        logits = self.model.model(
            input_ids=batch.input_ids, attention_mask=mask, past_key_values=cache, use_cache=True
        ).logits[:, 0]
        if not keep:
            return Behind(logits, [], mask)
        return Behind(logits, *behind_texts(kept_states(cache), self.prefix + lengths))

    def read_on(
        self, ids: Tensor, layers: Sequence[KeysValues], mask: Tensor, keep: bool = False
    ) -> tuple[Tensor, list[KeysValues], Tensor]:
        """Read the same number of tokens, (B, K), behind what each row was read to.

        Returns:
            The logits behind each of them, float32, (B, K, V), the layers with them where they are to be
            kept, and the mask with them.
        """
        places = torch.arange(ids.shape[1], device=mask.device).expand(len(mask), -1)
        whole = torch.cat([mask, torch.ones_like(ids)], dim=1)
        cache = shared_cache(layers, keep)
        self.choose(places)
        logits = self.model.model(
            input_ids=ids,
            attention_mask=whole,
            position_ids=mask.sum(dim=1, keepdim=True) + places,
            past_key_values=cache,
            use_cache=True,
        ).logits
        return logits, kept_states(cache) if keep else [], whole


@dataclass(frozen=True)
class Prompts:
    """N prompts as tokens: those that all begin with run once.

    Args:
        model: that reads them.
        read: N prompts.
        prefix: what they begin with.
    """

    model: LanguageModel
    read: Sequence[Encoded]
    prefix: Sequence[int]

    @classmethod
    def of(cls, model: LanguageModel, frame: Frame, texts: Sequence[str], behind: int) -> Prompts:
        """Put a prompt around texts, with room for so many tokens behind it.

        Raises:
            InputError: it leaves no room for a text.
        """
        room = model.max_tokens - behind
        _check_room(model, frame, room)
        read = _read(model.tokenizer, frame, texts, room)
        return cls(model, read, _common([one.ids for one in _read(model.tokenizer, frame, PROBES, room)]))

    @property
    def cut(self) -> int:
        """How many texts were too long."""
        return sum(one.cut for one in self.read)

    def each(
        self, exact: Sequence[int], ask: Callable[[Prompted, TokenBatch, IntArray], Result]
    ) -> Iterator[tuple[IntArray, Result]]:
        """Yield batches of rows, (B,), and what comes of asking the model about them.

        Args:
            exact: tokens whose logits are computed in float32.
            ask: called with the model behind its prefix, a batch, and the batch's rows.
        """
        # Where a text's first letters join the prompt's last to one token, it is read whole.
        length = len(self.prefix)
        sharing = np.array([one.ids[:-1][:length] == self.prefix for one in self.read], dtype=bool)
        for prefix, rows in ((self.prefix, np.flatnonzero(sharing)), ([], np.flatnonzero(~sharing))):
            yield from self._behind(prefix, rows, exact, ask)

    def _behind(
        self,
        prefix: Sequence[int],
        rows: IntArray,
        exact: Sequence[int],
        ask: Callable[[Prompted, TokenBatch, IntArray], Result],
    ) -> Iterator[tuple[IntArray, Result]]:
        """Yield the batches of rows behind one prefix."""
        if not len(rows):
            return
        model = self.model
        with torch.inference_mode():
            layers = prefix_states(model.model, prefix) if prefix else []
        tails = [self.read[row].ids[len(prefix) :] for row in rows]
        lengths = np.array([len(tail) for tail in tails], dtype=np.int64)
        tokens = Tokens(
            flat=np.concatenate([np.asarray(tail, dtype=np.int32) for tail in tails]),
            starts=np.concatenate([[0], np.cumsum(lengths)]),
            padding_id=model.tokenizer.pad_token_id or 0,
            padding_side="right",  # so that each text stands right behind the prefix
            max_tokens=model.max_tokens - len(prefix),
        )
        every = (pad(tokens, some) for some in _batches(lengths, len(prefix), model.token_budget))
        with output_layer_at(model.model, exact) as choose:
            prompted = Prompted(model, layers, len(prefix), choose)

            @torch.inference_mode()
            def asked(batch: TokenBatch) -> Result:
                return ask(prompted, batch, rows[batch.indices])

            for batch, result in each_batch(asked, every, model.device):
                yield rows[batch.indices], result


def check_shares(model: LanguageModel) -> None:
    """Raise InputError for a model that cannot share a prefix."""
    if not can_share(model.model):
        raise InputError(
            f"prompts need a model of attention layers alone, each with keys and values of its own; "
            f"{model.name} has others; take another model"
        )


def _check_room(model: LanguageModel, frame: Frame, room: int) -> None:
    bare = len(_read(model.tokenizer, frame, [""], room + LEAST_TEXT)[0].ids)
    if bare + LEAST_TEXT > room:
        raise InputError(
            f"the prompt alone has {bare} tokens, and {model.name} reads {model.max_tokens}, which leaves no "
            "room for a text; give fewer or shorter examples"
        )


def _read(tokenizer: PreTrainedTokenizerBase, frame: Frame, texts: Sequence[str], room: int) -> list[Encoded]:
    """Return prompts around texts as tokens, without what a tokenizer puts behind a text."""
    read: list[Encoded] = []
    ending = _appended(tokenizer)
    for start in range(0, len(texts), TOKENISE_ROWS):
        prompts = [frame.around(text) for text in texts[start : start + TOKENISE_ROWS]]
        some = encoded(tokenizer, prompts, room + ending)
        read += [one._replace(ids=one.ids[: len(one.ids) - ending]) for one in some] if ending else some
    return read


def _appended(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return how many tokens a tokenizer puts behind a text: an end that would close the prompt."""
    special = tokenizer("a", return_special_tokens_mask=True)["special_tokens_mask"]
    return next(count for count, value in enumerate(reversed(special)) if not value)


def _common(sequences: Sequence[Sequence[int]]) -> list[int]:
    """Return what all sequences begin with.

    >>> _common([[1, 2, 3], [1, 2, 4]])
    [1, 2]
    """
    together = itertools.takewhile(lambda tokens: len(set(tokens)) == 1, zip(*sequences, strict=False))
    return [tokens[0] for tokens in together]


def _batches(lengths: IntArray, prefix: int, token_budget: int) -> Iterator[IntArray]:
    """Yield rows of similar length, with the prefix within the budget, and never too many at once."""
    for rows in length_batches(lengths + prefix, token_budget):
        yield from (rows[start : start + MOST_ROWS] for start in range(0, len(rows), MOST_ROWS))
