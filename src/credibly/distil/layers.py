"""A student with fewer layers: it starts from every other block of its backbone."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel

from credibly.backbones.blocks import blocks_of
from credibly.backbones.loading import Classifier
from credibly.backbones.quiet import quietly


def every_other(classifier: Classifier) -> Classifier:
    """Return a classifier of the first, third, fifth block and so on, all else as it was.

    DistilBERT was started like this (Sanh et al. 2019, https://arxiv.org/abs/1910.01108, section 3). The
    model is built anew from a config with fewer layers, so that transformers loads it as any other.

    Raises:
        InputError: the model keeps no list of its blocks.
    """
    model = classifier.model
    count = len(blocks_of(model))
    kept = range(0, count, 2)
    with quietly(), torch.random.fork_rng(devices=[]):
        config = _config(model.config, kept, count)
        smaller = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    smaller.load_state_dict(_weights(model, kept))
    return replace(classifier, model=smaller.eval().to(classifier.device))


def _config(config: PreTrainedConfig, kept: range, count: int) -> PreTrainedConfig:
    """Return a config with fewer layers, and of what it lists by layer (the kinds of attention) as many."""
    smaller = deepcopy(config)
    own = smaller.get_text_config()
    own.num_hidden_layers = len(kept)
    for name, value in own.to_dict().items():
        if "layer" in name and isinstance(value, list) and len(value) == count:
            setattr(own, name, [value[place] for place in kept])
    return smaller


def _weights(model: PreTrainedModel, kept: range) -> dict[str, torch.Tensor]:
    """Return a model's weights with those of the kept blocks under their new numbers."""
    blocks = blocks_of(model)
    prefix = next(name for name, module in model.named_modules() if module is blocks)
    places = {old: new for new, old in enumerate(kept)}
    weights = {}
    for name, tensor in model.state_dict().items():
        if not name.startswith(f"{prefix}."):
            weights[name] = tensor
            continue
        number, _, rest = name.removeprefix(f"{prefix}.").partition(".")
        if int(number) in places:
            weights[f"{prefix}.{places[int(number)]}.{rest}"] = tensor
    return weights
