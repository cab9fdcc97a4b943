"""Pre-trained language models: the only place that loads them and their tokenizers."""

from credibly.backbones.blocks import BlockCut, blocks_of
from credibly.backbones.embedding import embed, embedded_once
from credibly.backbones.loading import Backbone, Classifier, load_backbone, load_classifier, resolve_precision

__all__ = [
    "Backbone",
    "BlockCut",
    "Classifier",
    "blocks_of",
    "embed",
    "embedded_once",
    "load_backbone",
    "load_classifier",
    "resolve_precision",
]
