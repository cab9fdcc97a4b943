"""Label words: a classification head made of the language model's own output rows.

A causal model as transformers classifies with it has a linear head on a text's last token, where the
language model has its output layer. With the rows of the label words in that head, and a prompt for a
text ("Review: ... Sentiment:"), softmax of its logits is what the language model says of the next word,
given that it is one of the label words. So tuning starts from the zero-shot answer.

What else an architecture does with its output layer's results, transformers' classifiers leave out: the
soft cap of Gemma 2, the factors of Granite and Cohere. It changes no order, so every zero-shot label is the
language model's own; the probabilities are sharper or softer, as far as a temperature does not mend it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import torch
from torch import Tensor
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from credibly.backbones.probing import is_causal
from credibly.errors import InputError, did_you_mean, listed

WHERE = "members.label_words"
PROMPTS_END = ":"
"""A word's tokens are those that it adds to this."""


def label_tokens(
    tokenizer: PreTrainedTokenizerBase, class_names: Sequence[str], words: Mapping[str, str]
) -> tuple[int, ...]:
    """Return the token that stands for each class, C ids.

    A word follows the prompt after a space, or at once where the tokenizer keeps that space as a token of
    its own. Of a word of several tokens it is the first: if all first tokens differ, the choice is made
    there, and what follows is forced for a model that may only say one of the words.

    Args:
        tokenizer: the model's own.
        class_names: C names.
        words: by class; empty: the names themselves.

    Raises:
        InputError: a class without a word, a word that is empty or unknown to the tokenizer, or words
            that begin with the same token.
    """
    chosen = checked_words(class_names, words)
    tokens = [_first_token(tokenizer, word) for word in chosen]
    unknown = [repr(word) for word, token in zip(chosen, tokens, strict=True) if token is None]
    if unknown:
        raise InputError(f"{WHERE}: the model's tokenizer does not know {listed(unknown)}; give other words")
    for token in tokens:
        alike = [repr(word) for word, own in zip(chosen, tokens, strict=True) if own == token]
        if len(alike) > 1:
            raise InputError(
                f"{WHERE}: {listed(alike)} begin with the same token ({tokenizer.decode([token])!r}), which "
                "tells their classes not apart; give words that begin differently"
            )
    return tuple(token for token in tokens if token is not None)


def checked_words(class_names: Sequence[str], words: Mapping[str, str]) -> list[str]:
    """Return the words in the order of the classes, their names where none are given.

    Raises:
        InputError: a class without a word, or a word of no class.
    """
    words = words or {name: name for name in class_names}
    missing = [name for name in class_names if not words.get(name, "").strip()]
    if missing:
        raise InputError(
            f"{WHERE}: expected a word for every class, got none for {listed(missing)}; "
            f"leave {WHERE} out to take the classes' names"
        )
    for name in words:
        if name not in class_names:
            raise InputError(f"{WHERE}: there is no class '{name}'{did_you_mean(name, class_names)}")
    return [words[name].strip() for name in class_names]


def _first_token(tokenizer: PreTrainedTokenizerBase, word: str) -> int | None:
    """Return the first token of a word behind a prompt; None where the tokenizer does not know it."""
    for text in (f" {word}", word):
        before, whole = tokenizer([PROMPTS_END, PROMPTS_END + text], add_special_tokens=False)["input_ids"]
        first = whole[len(before) :][:1]
        if first and tokenizer.decode(first).strip():
            return None if first[0] == tokenizer.unk_token_id else int(first[0])
    return None


@lru_cache(maxsize=8)
def output_rows(source: str, tokens: tuple[int, ...]) -> Tensor:
    """Return the rows of a language model's output layer for some tokens, float32, (C, H).

    The model is read for this alone and dropped; the rows are kept, for every member starts from them.

    Args:
        source: a folder or hub id.
        tokens: C ids.

    Raises:
        InputError: the model is no causal one, or has no output layer, or one with a bias.
    """
    config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise _unfit(config.model_type, "it is no causal language model")
    model, report = AutoModelForCausalLM.from_pretrained(
        source,
        dtype=torch.float32,
        use_safetensors=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    _check_output_layer(model, report["missing_keys"])
    rows: Tensor = model.get_output_embeddings().weight[list(tokens)]
    return rows.detach().clone()


def _check_output_layer(model: PreTrainedModel, missing: Sequence[str]) -> None:
    """Raise InputError where a model's output rows are no classification head."""
    layer, kind = model.get_output_embeddings(), model.config.model_type
    if layer is None or not is_causal(model):
        raise _unfit(kind, "it is no causal language model")
    if any(own is layer.weight for name, own in model.named_parameters() if name in set(missing)):
        raise _unfit(kind, "its files hold no output layer")
    if getattr(layer, "bias", None) is not None:
        raise _unfit(kind, "its output layer has a bias, for which transformers' classifiers have no place")


def _unfit(kind: str, reason: str) -> InputError:
    return InputError(
        f"members.head: label_words needs the output layer of a causal language model, such as smollm2, and "
        f"of this {kind} model it cannot be had: {reason}; take another backbone, or leave members.head out"
    )
