"""How models read texts, without their weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import AutoConfig, AutoModel, PreTrainedTokenizerBase

from credibly.backbones.loading import load_tokenizer, longest_text, matched
from credibly.backbones.quiet import quietly
from credibly.backbones.sources import clear_failures, source_of
from credibly.settings import BackboneSettings


@dataclass(frozen=True)
class Reading:
    """A `Reader` without its model."""

    tokenizer: PreTrainedTokenizerBase
    max_tokens: int


def load_reader(settings: BackboneSettings) -> Reading:
    """Return how a model reads texts, by its config and tokenizer.

    Raises:
        AssetError: the model is not there, or needs code of its own.
    """
    source = source_of(settings.name)
    with clear_failures(settings.name), quietly():
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        with torch.device("meta"):
            model = AutoModel.from_config(config, trust_remote_code=False)
        tokenizer = matched(load_tokenizer(source), model)
    return Reading(tokenizer, longest_text(settings.max_tokens, tokenizer, model))
