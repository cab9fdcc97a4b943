"""Small deterministic language models, made from configs, that stand in for real ones.

Each is saved to a folder as `from_pretrained` wants it. The weights are random, with word embeddings
that are large beside the rest, so that small problems can be learned from the texts' embeddings.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

BLOCKS, WIDTH, HEADS, POSITIONS = 3, 32, 4, 64
SPECIAL = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]"]
"""Padding is not id 0, so that whatever takes 0 for padding fails."""

TELLING = (
    ("bad", "awful", "poor", "dull"),
    ("good", "fine", "great", "lovely"),
    ("even", "plain", "middling", "usual"),
)
"""Words that tell a text's class: 0, 1 or 2."""

FILLER = (
    "film", "plot", "actor", "scene", "music", "story", "the", "a", "was", "is", "and", "very", "not", "so",
    "it", "this", "that", "with", "of",
)  # fmt: skip
WORDS = [word for words in (*TELLING, FILLER) for word in words]
CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,!?'\"-:;()/&<>你好世界مرحبا"

ARCHITECTURES = ("bert", "distilbert", "roberta", "electra", "deberta-v2", "mpnet")
FURTHER_ENCODERS = ("deberta", "modernbert")
DECODERS = ("gpt2", "llama", "mistral", "gemma2", "gemma3_text", "qwen2", "qwen3")
"""These have a tokenizer without padding, as most of their kin do."""

READS_IMAGES = "gemma3"
"""A decoder of texts and images."""

PAIRS = dict.fromkeys(("roberta", "mpnet"), "[CLS] $A [SEP] [SEP] $B [SEP]")
"""How sentence pairs are put together, where it is not as BERT does it."""

WINDOW = 4
"""Tokens that a block of sliding attention sees, far fewer than a text has."""


def tokenizer(padding_side: str = "right", causal: bool = False, architecture: str = "bert"):
    """Return a WordPiece tokenizer of few words and all their characters.

    A causal one has no padding and knows no sentence pairs; RoBERTa's kin have two separators and one type.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    pieces = [*SPECIAL, *WORDS, *dict.fromkeys(CHARACTERS), *(f"##{c}" for c in dict.fromkeys(CHARACTERS))]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    inner = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer(lowercase=True)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A" if causal else "[CLS] $A [SEP]",
        pair="[CLS] $A $B" if causal else PAIRS.get(architecture, "[CLS] $A [SEP] $B:1 [SEP]:1"),
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
    named = (
        {"bos_token": "[CLS]", "eos_token": "[SEP]", "unk_token": "[UNK]"}
        if causal
        else dict(
            zip(("unk_token", "pad_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True)
        )
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, model_max_length=POSITIONS, padding_side=padding_side, **named
    )


def config(architecture: str, width: int = WIDTH):
    """Return the config of a tiny model of this architecture."""
    from transformers import AutoConfig

    sizes = {"hidden_size": width, "num_hidden_layers": BLOCKS, "num_attention_heads": HEADS}
    usual = {**sizes, "intermediate_size": 64, "max_position_embeddings": POSITIONS}
    causal = {
        **usual,
        "num_key_value_heads": 2,
        "head_dim": width // HEADS,
        "bos_token_id": 2,
        "eos_token_id": 3,
    }
    alternating = ["sliding_attention", "full_attention", "sliding_attention"]
    gemma = {**causal, "query_pre_attn_scalar": 8, "sliding_window": WINDOW, "layer_types": alternating}
    special = {
        "distilbert": {
            "dim": width, "n_layers": BLOCKS, "n_heads": HEADS, "hidden_dim": 64,
            "max_position_embeddings": POSITIONS,
        },
        "roberta": {**usual, "max_position_embeddings": POSITIONS + 2, "type_vocab_size": 1},
        "electra": {**usual, "embedding_size": 16},
        "deberta-v2": {
            **usual, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 16,
            "norm_rel_ebd": "layer_norm", "share_att_key": True, "position_biased_input": False,
            "type_vocab_size": 0,
        },
        "mpnet": {**usual, "max_position_embeddings": POSITIONS + 2},
        "deberta": {
            **usual, "relative_attention": True, "pos_att_type": ["c2p", "p2c"], "max_relative_positions": 16,
        },
        "modernbert": {
            **usual, "layer_types": alternating, "local_attention": 2 * WINDOW, "cls_token_id": 2,
            "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3,
        },
        "gpt2": {
            "n_embd": width, "n_layer": BLOCKS, "n_head": HEADS, "n_positions": POSITIONS, "bos_token_id": 2,
            "eos_token_id": 3,
        },
        "mistral": {**causal, "sliding_window": WINDOW},
        "gemma2": gemma,
        "gemma3_text": gemma,
        "gemma3": gemma,
    }.get(architecture, causal if architecture in DECODERS else usual)  # fmt: skip
    every = {
        # One row more for the token that transformers' own class for Qwen 2 brings along.
        "vocab_size": len(tokenizer()) + (architecture == "qwen2"),
        "pad_token_id": None if architecture in DECODERS else SPECIAL.index("[PAD]"),
        "initializer_range": 0.1,
    }
    if architecture == READS_IMAGES:
        images = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
                  "num_attention_heads": 2, "image_size": 16, "patch_size": 8}  # fmt: skip
        parts = {"text_config": {**special, **every}, "vision_config": images, "mm_tokens_per_image": 4}
        return AutoConfig.for_model(architecture, **parts)
    return AutoConfig.for_model(architecture, **special, **every)


def save_model(
    folder: Path,
    architecture: str = "bert",
    padding_side: str = "right",
    seed: int = 0,
    output_layer: bool = False,
    width: int = WIDTH,
) -> Path:
    """Make a tiny model and save it with its tokenizer; the same arguments give the same weights.

    A decoder can have its output layer with it; GPT-2 and the Gemmas tie theirs to the word embeddings.
    """
    import torch
    from transformers import AutoModel, AutoModelForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        kind = AutoModelForCausalLM if output_layer else AutoModel
        model = kind.from_config(config(architecture, width))
        for parameter in model.parameters():
            # Biases and norms too, which start at 0 and 1: an equal pair could be swapped unnoticed.
            parameter.data += 0.02 * torch.randn_like(parameter)
        # What a text's words are must outweigh what a random network makes of them.
        model.get_input_embeddings().weight.data *= 10
    model.save_pretrained(folder)
    causal = architecture in (*DECODERS, READS_IMAGES)
    tokenizer(padding_side, causal, architecture).save_pretrained(folder)
    return folder


def save_inference_model(
    folder: Path,
    architecture: str = "bert",
    names: Sequence[str] = ("contradiction", "neutral", "entailment"),
) -> Path:
    """Make a tiny classifier of pairs of texts and save it with its tokenizer; its head is random, too."""
    import torch
    from transformers import AutoModelForSequenceClassification

    own = config(architecture)
    own.id2label, own.label2id = dict(enumerate(names)), {name: place for place, name in enumerate(names)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_config(own)
        model.get_input_embeddings().weight.data *= 10
        for name, parameter in model.named_parameters():
            # What a sentence says must show in the logits.
            if name.startswith(("classifier", "score", "pooler")):
                parameter.data *= 10
    model.save_pretrained(folder)
    tokenizer(causal=architecture in DECODERS, architecture=architecture).save_pretrained(folder)
    return folder


def made_texts(labels: Sequence[int], seed: int = 0, words: int = 6, noise: float = 0.0) -> list[str]:
    """Return a text for each label: filler with two words that tell the class (0 bad, 1 good, 2 even).

    Args:
        labels: class indices below 3.
        seed: of the words.
        words: of filler, at most; lengths differ.
        noise: chance of a telling word of another class.
    """
    generator = np.random.default_rng(seed)
    texts = []
    for number, label in enumerate(labels):
        said = label if generator.random() >= noise else int(generator.integers(len(TELLING)))
        chosen = list(generator.choice(FILLER, generator.integers(1, words + 1)))
        chosen += list(generator.choice(TELLING[said], 2))
        generator.shuffle(chosen)
        # A number makes texts differ, so that none is dropped as a leak.
        texts.append(f"{' '.join(chosen)} {number}")
    return texts


def quiet_environment() -> None:
    """Set what must be set before torch and tokenizers are imported."""
    # Tiny models lose more by sharing out their work than they win.
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["HF_HUB_OFFLINE"] = "1"
