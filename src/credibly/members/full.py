"""Members that each tune the whole model, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from credibly.backbones.footprint import Needs, tuned_needs
from credibly.backbones.loading import Classifier, open_classifier
from credibly.backbones.outline import Outline, Texts
from credibly.backbones.quiet import quietly
from credibly.batching import padded_batches, tokenise
from credibly.members.common import Histories, LogProbs, TrainingData, count_weights
from credibly.members.tuned import TuningMaterial, prepare_texts, tune_each
from credibly.progress import Stages
from credibly.records import normalised_log_probs
from credibly.settings import BackboneSettings, FullSettings
from credibly.training import UNWATCHED, Monitor
from credibly.tuning import class_logits


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

    @property
    def reader(self) -> Classifier:
        """The model that reads the texts."""
        return self.classifiers[0]

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


def group_size(settings: FullSettings) -> int:
    """Return how many members are trained in one pass: one."""
    return 1


def prepare(
    data: TrainingData, backbone: BackboneSettings, settings: FullSettings, stages: Stages
) -> TuningMaterial:
    """Tokenise the texts once."""
    return prepare_texts(data, backbone, settings, blocks=None)


def fit(
    material: TuningMaterial, settings: FullSettings, seeds: Sequence[int], monitor: Monitor = UNWATCHED
) -> tuple[FullMembers, Histories]:
    """Train one member a seed, one after the other."""
    tuned = list(tune_each(material, settings, seeds, monitor))
    return FullMembers([classifier for classifier, _ in tuned]), [history for _, history in tuned]


def load(
    folders: Sequence[Path], backbone: BackboneSettings, settings: FullSettings, class_names: Sequence[str]
) -> FullMembers:
    """Return saved models.

    Raises:
        AssetError: a folder holds no model, or a damaged one.
    """
    return FullMembers([open_classifier(folder, backbone) for folder in folders])


def needs(outline: Outline, texts: Texts, backbone: BackboneSettings, settings: FullSettings) -> Needs:
    """Return what these members need."""
    return tuned_needs(outline, texts, backbone.token_budget, settings, None, settings.count)
