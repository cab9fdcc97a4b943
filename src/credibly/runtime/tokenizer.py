"""A tokenizer.json, read by the tokenizers library alone, that gives the ids that transformers would."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from credibly.encoding import TYPES
from credibly.errors import RunFolderError
from credibly.runtime.contents import AGAIN, GraphFile


@dataclass(frozen=True)
class Read:
    """What a tokenizer made of texts."""

    encodings: list[Any]

    @property
    def input_ids(self) -> list[list[int]]:
        """Each text's token ids."""
        return [encoding.ids for encoding in self.encodings]


class PlainTokenizer:
    """Reads texts as the trained model's tokenizer does, and is called as transformers calls that one.

    Args:
        inner: the tokenizers library's own.
        settings: how the graph reads texts.
    """

    eos_token_id = None
    padding_side = "right"

    def __init__(self, inner: Tokenizer, settings: GraphFile) -> None:
        self.inner = inner
        self.truncation_side = settings.truncation_side
        self.unk_token_id, self.pad_token_id = settings.unknown_id, settings.padding_id
        self.model_input_names = ["input_ids", "attention_mask"]
        self.model_input_names += [TYPES] if settings.tells_pairs_apart else []
        inner.no_padding()

    @classmethod
    def open(cls, folder: Path, settings: GraphFile) -> PlainTokenizer:
        """Read a graph's tokenizer.

        Raises:
            RunFolderError: the file is damaged.
        """
        file = folder / settings.tokenizer
        try:
            return cls(Tokenizer.from_file(str(file)), settings)
        except Exception as error:  # the library raises nothing narrower
            raise RunFolderError(f"{file} is no tokenizer ({error}); {AGAIN}") from None

    def __call__(
        self,
        text: list[str],
        text_pair: list[str] | None = None,
        /,
        *,
        truncation: bool,
        max_length: int | None = None,
        padding: bool = False,
        verbose: bool = False,
    ) -> Read:
        """Return the texts' tokens, or the pairs', with the model's special ones."""
        if truncation and max_length is not None:
            self.inner.enable_truncation(max_length, direction=self.truncation_side)
        else:
            self.inner.no_truncation()
        given = text if text_pair is None else list(zip(text, text_pair, strict=True))
        return Read(self.inner.encode_batch(given))

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """Return how many tokens stand around a text, or around and between a pair's."""
        return int(self.inner.num_special_tokens_to_add(pair))
