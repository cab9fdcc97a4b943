"""What a causal language model says of a few words behind each text of a prompt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from credibly.backbones.language_model import LanguageModel
from credibly.backbones.packing import packed_linears
from credibly.backbones.prompted import Behind, Frame, Prompted, Prompts, check_shares
from credibly.backbones.word_tree import Path, WordTree, word_tree
from credibly.batching import TokenBatch
from credibly.progress import Progress
from credibly.records import IntArray

FloatArray = NDArray[np.float64]


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
    check_shares(model)
    scores = []
    with packed_linears(model.model):
        for number, frame in enumerate(frames):
            told = told_from(progress, number * len(texts), len(frames) * len(texts))
            scores.append(_behind(model, frame, texts, told))
    return scores


def told_from(progress: Progress | None, before: int, total: int) -> Callable[[int], None]:
    """Return what tells the texts done of one prompt as those of all."""
    return lambda done: progress(before + done, total) if progress else None


def _behind(
    model: LanguageModel, frame: Frame, texts: Sequence[str], told: Callable[[int], None]
) -> WordScores:
    """Return one prompt's scores."""
    tree = word_tree(model.tokenizer, frame.after, frame.words)
    prompts = Prompts.of(model, frame, texts, tree.depth)

    def ask(prompted: Prompted, batch: TokenBatch, rows: IntArray) -> FloatArray:
        return _scores(prompted, tree, prompted.read(batch, keep=bool(tree.paths)))

    result, done = np.empty((len(texts), len(frame.words))), 0
    for rows, scores in prompts.each(tree.tokens, ask):
        result[rows] = scores
        done += len(rows)
        told(done)
    return WordScores(result, prompts.cut)


def _scores(prompted: Prompted, tree: WordTree, behind: Behind) -> FloatArray:
    """Return the words' log-probabilities behind a batch of texts, float64, (B, C)."""
    at: dict[Path, FloatArray] = {(): _tokens_of(tree, (), behind.logits)}
    for path in tree.paths:
        at |= _along(prompted, tree, path, behind)
    return tree.log_probs(at)


def _along(prompted: Prompted, tree: WordTree, path: Path, behind: Behind) -> Mapping[Path, FloatArray]:
    """Return the log-probabilities of what counts at each place of a path behind the texts."""
    ids = torch.tensor(path, device=behind.mask.device).expand(len(behind.mask), -1)
    found, _, _ = prompted.read_on(ids, behind.layers, behind.mask)
    nodes = {path[: place + 1]: place for place in range(len(path))}
    return {
        node: _tokens_of(tree, node, found[:, place]) for node, place in nodes.items() if node in tree.nodes
    }


def _tokens_of(tree: WordTree, node: Path, logits: Tensor) -> FloatArray:
    """Return the log-probabilities of the tokens that count at a node, float64, (B, tokens)."""
    own = logits[:, list(tree.nodes[node])] - logits.logsumexp(dim=-1, keepdim=True)
    return own.double().cpu().numpy()
