"""Answers of a few tokens that a causal language model gives behind each text, drawn at a temperature.

What is drawn for a text depends on the text and on the draw's seed alone, not on the texts beside it.
Draws of one text that begin alike are one row up to where they part.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from credibly.backbones.language_model import LanguageModel
from credibly.backbones.packing import packed_linears
from credibly.backbones.prompted import Behind, Frame, Prompted, Prompts, check_shares
from credibly.backbones.shared_prefix import KeysValues, rows_of
from credibly.backbones.word_tree import word_tree
from credibly.batching import TokenBatch
from credibly.progress import Progress
from credibly.records import IntArray
from credibly.training import stream

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Answer:
    """What was drawn behind a text.

    Args:
        text: without what stands for an end.
        ended: whether it came to an end, or was broken off where it was long enough.
    """

    text: str
    ended: bool


@dataclass(frozen=True)
class Drawing:
    """How answers are drawn.

    Args:
        temperature: which logits are divided by.
        tokens: of an answer, at most.
    """

    temperature: float
    tokens: int


def sampled_answers(
    model: LanguageModel,
    frame: Frame,
    texts: Sequence[str],
    seeds: Sequence[int],
    drawing: Drawing,
    progress: Progress | None = None,
) -> tuple[list[list[Answer]], int]:
    """Return an answer a seed and text, (M, N), and how many texts were cut.

    Prompts run as `next_words` has them. An answer ends with the model's own end, or with its first line.

    Args:
        model: that is asked.
        frame: the prompt around every text; its words are the answers hoped for.
        texts: N texts.
        seeds: M seeds.
        drawing: temperature and length.
        progress: told of the texts done.

    Raises:
        InputError: the model does not know a word, or the prompt leaves no room for a text.
    """
    check_shares(model)
    tree = word_tree(model.tokenizer, frame.after, frame.words)
    prompts = Prompts.of(model, frame, texts, drawing.tokens)
    answers: list[list[Answer]] = [[Answer("", True)] * len(texts) for _ in seeds]

    def ask(prompted: Prompted, batch: TokenBatch, rows: IntArray) -> list[list[Answer]]:
        chances = np.stack([chances_of(texts[row], seeds, drawing.tokens) for row in rows])
        return _Draws(prompted, drawing, chances).of(prompted.read(batch, keep=drawing.tokens > 1))

    done = 0
    with packed_linears(model.model):
        for rows, drawn in prompts.each(tree.tokens, ask):
            for row, own in zip(rows, drawn, strict=True):
                for member, answer in enumerate(own):
                    answers[member][row] = answer
            done += len(rows)
            if progress:
                progress(done, len(texts))
    return answers, prompts.cut


def chances_of(text: str, seeds: Sequence[int], tokens: int) -> FloatArray:
    """Return a number below one for each token of each draw of a text, float64, (M, tokens)."""
    name = f"answer {hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}"
    return np.stack([stream(seed, name).random(tokens) for seed in seeds])


class _Draws:
    """The draws of one batch of texts, number d of which is of text d // M.

    Args:
        prompted: the model behind its prefix.
        drawing: temperature and length.
        chances: (B, M, tokens), in [0, 1).
    """

    def __init__(self, prompted: Prompted, drawing: Drawing, chances: FloatArray) -> None:
        B, self.M, _ = chances.shape
        self.prompted, self.drawing, self.rows = prompted, drawing, B
        self.chances = torch.from_numpy(chances.reshape(B * self.M, -1))
        self.said: list[list[int]] = [[] for _ in range(B * self.M)]
        self.ends = end_tokens(prompted.model)

    def of(self, behind: Behind) -> list[list[Answer]]:
        """Return the answers behind each text, (B, M)."""
        alike = [list(range(row * self.M, (row + 1) * self.M)) for row in range(self.rows)]
        self._go_on(alike, behind.logits, behind.layers, behind.mask)
        answers = [self._answer(tokens) for tokens in self.said]
        return [answers[row * self.M : (row + 1) * self.M] for row in range(self.rows)]

    def _go_on(
        self, alike: Sequence[list[int]], logits: Tensor, layers: Sequence[KeysValues], mask: Tensor
    ) -> None:
        """Draw the next token of draws that said the same so far, one row a group, and all that follow.

        Depth first, in batches no larger than the first: memory holds one such batch a token.
        """
        parted = [
            (place, draws)
            for place, group in enumerate(alike)
            for draws in self._drawn(group, logits[place])
            if not self._over(self.said[draws[0]])
        ]
        for start in range(0, len(parted), self.rows):
            some = parted[start : start + self.rows]
            places = torch.tensor([place for place, _ in some], device=mask.device)
            ids = torch.tensor([[self.said[draws[0]][-1]] for _, draws in some], device=mask.device)
            own = [rows_of(layer, places) for layer in layers]
            more = len(self.said[some[0][1][0]]) + 1 < self.drawing.tokens
            further, grown, whole = self.prompted.read_on(ids, own, mask[places], keep=more)
            self._go_on([draws for _, draws in some], further[:, 0], grown, whole)

    def _drawn(self, draws: list[int], logits: Tensor) -> list[list[int]]:
        """Draw a token for draws of one row, and return them parted by what it is."""
        place = len(self.said[draws[0]])
        probs = torch.softmax(logits.float() / self.drawing.temperature, dim=-1)
        shares = probs.cumsum(-1, dtype=torch.float64)
        wanted = self.chances[draws, place].to(shares.device) * shares[-1]
        tokens = torch.searchsorted(shares, wanted, right=True).clamp(max=len(shares) - 1).tolist()
        for draw, token in zip(draws, tokens, strict=True):
            self.said[draw].append(token)
        return [
            [draw for draw, own in zip(draws, tokens, strict=True) if own == token]
            for token in dict.fromkeys(tokens)
        ]

    def _over(self, tokens: list[int]) -> bool:
        return len(tokens) >= self.drawing.tokens or self._answer(tokens).ended

    def _answer(self, tokens: list[int]) -> Answer:
        tokenizer = self.prompted.model.tokenizer
        return answer_of(tokenizer, tokens, self.ends)


def answer_of(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int], ends: frozenset[int]) -> Answer:
    """Return the first line that tokens say, and whether it came to its end."""
    own = [token for token in tokens if token not in ends]
    line, broken, _ = tokenizer.decode(own, skip_special_tokens=True).lstrip().partition("\n")
    return Answer(line.strip() if broken else line, bool(broken) or len(own) < len(tokens))


def end_tokens(model: LanguageModel) -> frozenset[int]:
    """Return the tokens with which a model ends what it says."""
    generation = getattr(model.model, "generation_config", None)
    named = [model.tokenizer.eos_token_id, getattr(generation, "eos_token_id", None)]
    return frozenset(
        int(token) for own in named if own is not None for token in (own if isinstance(own, list) else [own])
    )
