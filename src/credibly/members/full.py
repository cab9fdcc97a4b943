"""Members that each tune the whole model, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from credibly.backbones.loading import Classifier, load_classifier, open_classifier, quietly
from credibly.batching import padded_batches, tokenise
from credibly.members.common import (
    Histories,
    LogProbs,
    TrainingData,
    count_weights,
    training_rows,
    weighted_targets,
)  # fmt: skip
from credibly.progress import Progress, Stages
from credibly.records import normalised_log_probs
from credibly.settings import BackboneSettings, FullSettings
from credibly.tuning import TuningTexts, class_logits, target_loss, tune


@dataclass(frozen=True)
class FullMembers:
    """M whole models.

    Args:
        classifiers: one a member.
    """

    classifiers: list[Classifier]

    @property
    def count(self) -> int:
        """M."""
        return len(self.classifiers)

    @property
    def shared_parameters(self) -> int:
        """Nothing is shared."""
        return 0

    @property
    def member_parameters(self) -> int:
        """Number of weights of one model."""
        return count_weights(self.classifiers[0].model.parameters())

    def log_probs(self, texts: Sequence[str], cached: bool = False) -> LogProbs:
        """Return log-probabilities, float32, (M, N, C), normalised; the texts are tokenised once."""
        first = self.classifiers[0]
        batches = list(padded_batches(tokenise(first.tokenizer, texts, first.max_tokens), first.token_budget))
        return normalised_log_probs(
            np.stack([class_logits(classifier, batches, len(texts)) for classifier in self.classifiers])
        )

    def save(self, member: int, folder: Path) -> None:
        """Write one model as transformers writes it, with its tokenizer."""
        with quietly():
            self.classifiers[member].model.save_pretrained(folder)
            self.classifiers[member].tokenizer.save_pretrained(folder)


@dataclass(frozen=True)
class Texts:
    """The training texts, and targets, float32, (N, C)."""

    backbone: BackboneSettings
    texts: TuningTexts
    targets: NDArray[np.float32]
    class_names: tuple[str, ...]


def group_size(settings: FullSettings) -> int:
    """Return how many members are trained in one pass: one."""
    return 1


def prepare(data: TrainingData, backbone: BackboneSettings, settings: FullSettings, stages: Stages) -> Texts:
    """Tokenise the texts once."""
    classifier = load_classifier(backbone, data.class_names, settings.dropout, seed=0)
    texts = TuningTexts.prepare(classifier, data.texts, None)
    return Texts(backbone, texts, weighted_targets(data.targets, settings.class_weights), data.class_names)


def fit(
    material: Texts, settings: FullSettings, seeds: Sequence[int], progress: Progress | None = None
) -> tuple[FullMembers, Histories]:
    """Train one member a seed, one after the other.

    Raises:
        TrainingError: a loss is no longer finite.
    """
    classifiers, histories = [], []
    for seed in seeds:
        classifier = load_classifier(material.backbone, material.class_names, settings.dropout, seed)
        rows = training_rows(len(material.targets), seed, settings.bootstrap)
        loss = target_loss(material.targets)
        histories.append(tune(classifier, material.texts, loss, settings.optimiser, seed, rows, progress))
        classifiers.append(classifier)
    return FullMembers(classifiers), histories


def load(
    folders: Sequence[Path], backbone: BackboneSettings, settings: FullSettings, class_names: Sequence[str]
) -> FullMembers:
    """Return saved models.

    Raises:
        AssetError: a folder holds no model, or a damaged one.
    """
    return FullMembers([open_classifier(folder, backbone) for folder in folders])
