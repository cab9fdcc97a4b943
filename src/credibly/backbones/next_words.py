"""What a causal language model says of a few words behind each text of a prompt."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase
from transformers.cache_utils import Cache, DynamicCache

from credibly.backbones.language_model import LanguageModel
from credibly.backbones.packing import packed_linears
from credibly.backbones.shared_prefix import (
    KeysValues,
    behind_texts,
    can_share,
    kept_states,
    output_layer_at,
    prefix_states,
    shared_cache,
)
from credibly.backbones.word_tree import Path, WordTree, word_tree
from credibly.batching import TOKENISE_ROWS, TokenBatch, Tokens, length_batches, pad
from credibly.encoding import Encoded, encoded
from credibly.errors import InputError
from credibly.parallel import each_batch
from credibly.parted import PartedText
from credibly.progress import Progress
from credibly.records import IntArray

FloatArray = NDArray[np.float64]
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
        """Return the prompt with a text on one line, which gives way where the whole is too long."""
        line = " ".join(text.split())
        start = len(self.before)
        return PartedText(f"{self.before}{line}{self.after}", start, start + len(line))


@dataclass(frozen=True)
class WordScores:
    """What a model says of the words.

    Args:
        log_probs: float64, (N, C): log-probability of each word, within the model's whole distribution.
        cut: how many texts were too long.
    """

    log_probs: FloatArray
    cut: int


def next_words(
    model: LanguageModel, frames: Sequence[Frame], texts: Sequence[str], progress: Progress | None = None
) -> list[WordScores]:
    """Return the log-probabilities of each prompt's words behind each text.

    A prompt's tokens before the texts run through the model once; the texts run in batches of similar
    length, padded on the right. A batch holds `model.token_budget` tokens at most, the prefix counted for
    each row, so memory is bounded however long the prompt.

    Args:
        model: that is asked.
        frames: prompts, each of which is put around every text.
        texts: N texts.
        progress: told of the texts done, over all prompts.

    Raises:
        InputError: the model does not know a word, or a prompt leaves no room for a text.
    """
    if not can_share(model.model):
        raise InputError(
            f"prompts need a model of attention layers alone, each with keys and values of its own; "
            f"{model.name} has others; take another model"
        )
    scores = []
    with packed_linears(model.model):
        for number, frame in enumerate(frames):
            told = _told(progress, number * len(texts), len(frames) * len(texts))
            scores.append(_behind(model, frame, texts, told))
    return scores


def _told(progress: Progress | None, before: int, total: int) -> Callable[[int], None]:
    return lambda done: progress(before + done, total) if progress else None


def _behind(
    model: LanguageModel, frame: Frame, texts: Sequence[str], told: Callable[[int], None]
) -> WordScores:
    """Return one prompt's scores."""
    tree = word_tree(model.tokenizer, frame.after, frame.words)
    room = model.max_tokens - tree.depth
    _check_room(model, frame, room)
    read = _read(model.tokenizer, frame, texts, room)
    prefix = _common([one.ids for one in _read(model.tokenizer, frame, PROBES, room)])
    # Where a text's first letters join the prompt's last to one token, it is read whole.
    sharing = np.array([one.ids[:-1][: len(prefix)] == prefix for one in read], dtype=bool)
    result, done = np.empty((len(texts), len(frame.words))), 0
    for shared, rows in ((prefix, np.flatnonzero(sharing)), ([], np.flatnonzero(~sharing))):
        tails = [read[row].ids[len(shared) :] for row in rows]
        for batch, scores in _scored(model, tree, shared, tails):
            result[rows[batch]] = scores
            done += len(batch)
            told(done)
    return WordScores(result, sum(one.cut for one in read))


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


def _scored(
    model: LanguageModel, tree: WordTree, prefix: Sequence[int], tails: Sequence[Sequence[int]]
) -> Iterator[tuple[IntArray, FloatArray]]:
    """Yield batches of rows, (B,), and their words' log-probabilities, (B, C)."""
    if not tails:
        return
    with torch.inference_mode():
        layers = prefix_states(model.model, prefix) if prefix else []
    lengths = np.array([len(tail) for tail in tails], dtype=np.int64)
    tokens = Tokens(
        flat=np.concatenate([np.asarray(tail, dtype=np.int32) for tail in tails]),
        starts=np.concatenate([[0], np.cumsum(lengths)]),
        padding_id=model.tokenizer.pad_token_id or 0,
        padding_side="right",  # so that each text stands right behind the prefix
        max_tokens=model.max_tokens - len(prefix),
    )
    every = (pad(tokens, rows) for rows in _batches(lengths, len(prefix), model.token_budget))
    with output_layer_at(model.model, sorted({token for word in tree.words for token in word})) as choose:
        asked = Asked(model, tree, layers, len(prefix), choose)
        for batch, scores in each_batch(asked.scores, every, model.device):
            yield batch.indices, scores


def _batches(lengths: IntArray, prefix: int, token_budget: int) -> Iterator[IntArray]:
    """Yield rows of similar length, with the prefix within the budget, and never too many at once."""
    for rows in length_batches(lengths + prefix, token_budget):
        yield from (rows[start : start + MOST_ROWS] for start in range(0, len(rows), MOST_ROWS))


@dataclass(frozen=True)
class Asked:
    """A model that is asked for words behind a shared prefix.

    Args:
        model: that is asked.
        tree: the words.
        layers: keys and values of the prefix; none where there is no prefix.
        prefix: its number of tokens.
        choose: see `output_layer_at`.
    """

    model: LanguageModel
    tree: WordTree
    layers: Sequence[KeysValues]
    prefix: int
    choose: Callable[[Tensor], None]

    @torch.inference_mode()
    def scores(self, batch: TokenBatch) -> FloatArray:
        """Return the words' log-probabilities, float64, (B, C)."""
        batch = batch.to(self.model.device)
        lengths, keep = batch.attention_mask.sum(dim=1), bool(self.tree.paths)
        cache = shared_cache(self.layers, keep) if self.layers else DynamicCache()
        seen = batch.attention_mask.new_ones(len(lengths), self.prefix)
        mask = torch.cat([seen, batch.attention_mask], dim=1)
        found = self._at(batch.input_ids, mask, cache, lengths[:, None] - 1)
        at: dict[Path, FloatArray] = {(): self._tokens_of((), found[:, 0])}
        if keep:
            layers, mask = behind_texts(kept_states(cache), self.prefix + lengths)
            for path in self.tree.paths:
                at |= self._along(path, layers, mask)
        return self.tree.log_probs(at)

    def _along(self, path: Path, layers: Sequence[KeysValues], mask: Tensor) -> dict[Path, FloatArray]:
        """Return the log-probabilities of what counts at each place of a path behind the texts."""
        ids = torch.tensor(path, device=mask.device).expand(len(mask), -1)
        places = torch.arange(len(path), device=mask.device).expand(len(mask), -1)
        whole = torch.cat([mask, torch.ones_like(ids)], dim=1)
        positions = mask.sum(dim=1, keepdim=True) + places
        found = self._at(ids, whole, shared_cache(layers), places, position_ids=positions)
        nodes = {path[: place + 1]: place for place in range(len(path))}
        return {
            node: self._tokens_of(node, found[:, place])
            for node, place in nodes.items()
            if node in self.tree.nodes
        }

    def _at(
        self, ids: Tensor, mask: Tensor, cache: Cache, places: Tensor, position_ids: Tensor | None = None
    ) -> Tensor:
        """Return the logits over the vocabulary at some places, float32, (B, K, V)."""
        self.choose(places)
        logits: Tensor = self.model.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=True,
        ).logits
        return logits

    def _tokens_of(self, node: Path, logits: Tensor) -> FloatArray:
        """Return the log-probabilities of the tokens that count at a node, float64, (B, tokens)."""
        own = logits[:, list(self.tree.nodes[node])] - logits.logsumexp(dim=-1, keepdim=True)
        return own.double().cpu().numpy()
