"""The classes' words as a tree of tokens, so that words which begin alike are told apart and scored whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from credibly.errors import InputError, listed

FloatArray = NDArray[np.float64]
Path = tuple[int, ...]
SMALLEST_REST = 1e-12
"""What is left of a probability where rounding leaves less."""


@dataclass(frozen=True)
class WordTree:
    """C words as token sequences.

    The probability of a word is the product over its tokens of what the model says of each behind those
    before. Where a word goes on as another one ("good" as "goodness"), it counts only as far as neither of
    those follows, so that the words exclude each other and their probabilities sum to one at most.

    Args:
        words: the tokens of each word; no two alike.
    """

    words: tuple[Path, ...]

    @property
    def nodes(self) -> dict[Path, tuple[int, ...]]:
        """The places at which the model is asked for the next token, with the tokens that count there.

        >>> WordTree(((1,), (1, 2), (3,))).nodes
        {(): (1, 3), (1,): (2,)}
        """
        found: dict[Path, dict[int, None]] = {}
        for word in self.words:
            for place, token in enumerate(word):
                found.setdefault(word[:place], {})[token] = None
        return {node: tuple(tokens) for node, tokens in found.items()}

    @property
    def paths(self) -> tuple[Path, ...]:
        """What has to be read behind a prompt to come by every place; none where all words are one token.

        >>> WordTree(((1,), (1, 2, 3), (4, 5))).paths
        ((1, 2), (4,))
        """
        nodes = [node for node in self.nodes if node]
        return tuple(
            node for node in nodes if not any(other[: len(node)] == node for other in nodes if other != node)
        )

    @property
    def tokens(self) -> list[int]:
        """All tokens of all words, once each.

        >>> WordTree(((3,), (1, 2), (1, 3))).tokens
        [1, 2, 3]
        """
        return sorted({token for word in self.words for token in word})

    @property
    def depth(self) -> int:
        """Tokens of the longest path."""
        return max((len(path) for path in self.paths), default=0)

    def log_probs(self, at: Mapping[Path, FloatArray]) -> FloatArray:
        """Return the words' log-probabilities, float64, (N, C), within the model's whole distribution.

        Args:
            at: for each of `nodes` the log-probabilities of its tokens, (N, number of tokens).
        """
        columns = {(node, token): at[node][:, place] for node, tokens in self.nodes.items()
                   for place, token in enumerate(tokens)}  # fmt: skip
        return np.stack([self._log_prob(word, columns, at) for word in self.words], axis=1)

    def _log_prob(
        self, word: Path, columns: Mapping[tuple[Path, int], FloatArray], at: Mapping[Path, FloatArray]
    ) -> FloatArray:
        total: FloatArray = np.sum(
            [columns[word[:place], token] for place, token in enumerate(word)], axis=0, dtype=np.float64
        )
        if word in at:  # another word goes on from here
            total = total + np.log(np.maximum(1.0 - np.exp(at[word]).sum(axis=1), SMALLEST_REST))
        return total


def word_tree(tokenizer: PreTrainedTokenizerBase, ending: str, words: Sequence[str]) -> WordTree:
    """Return the tokens of words behind a prompt that ends so.

    A word follows after a space, unless the prompt ends with one or with a line break, or the tokenizer keeps
    the space as a token of its own. Where nothing stands behind the text, the prompt ends with the text.

    Raises:
        InputError: a word that the tokenizer does not know, or two that are the same tokens.
    """
    found = [word_tokens(tokenizer, ending, word) for word in words]
    unknown = [repr(word) for word, tokens in zip(words, found, strict=True) if tokens is None]
    if unknown:
        raise InputError(
            f"the model's tokenizer does not know {listed(unknown)}; give other words as members.label_words"
        )
    known = [tokens for tokens in found if tokens is not None]
    for tokens in known:
        alike = [repr(word) for word, own in zip(words, known, strict=True) if own == tokens]
        if len(alike) > 1:
            raise InputError(
                f"{listed(alike)} are the same tokens to the model, so it cannot say one and not the other; "
                "give words that differ as members.label_words"
            )
    return WordTree(tuple(known))


def word_tokens(tokenizer: PreTrainedTokenizerBase, ending: str, word: str) -> Path | None:
    """Return the tokens that a word adds to a prompt's ending; None where the tokenizer does not know it."""
    spaced = word if ending[-1:].isspace() else f" {word}"
    for text in dict.fromkeys((spaced, word)):
        before, whole = tokenizer([ending, ending + text], add_special_tokens=False)["input_ids"]
        added = tuple(int(token) for token in whole[len(before) :])
        if whole[: len(before)] == before and added and tokenizer.decode(added[:1]).strip():
            return None if tokenizer.unk_token_id in added else added
    return None
