"""What sources that tune networks one after the other share: their texts, and the loop over seeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from credibly.backbones.loading import Classifier, load_classifier
from credibly.members.common import TrainingData, training_rows, weighted_targets
from credibly.progress import Progress
from credibly.settings import BackboneSettings, FullSettings, TopBlocksSettings
from credibly.training import StepRecord
from credibly.tuning import TuningTexts, target_loss, tune

TunedSettings = FullSettings | TopBlocksSettings


@dataclass(frozen=True)
class TuningMaterial:
    """The training texts, with the trunk's states where it is frozen, and targets, float32, (N, C)."""

    backbone: BackboneSettings
    texts: TuningTexts
    targets: NDArray[np.float32]
    class_names: tuple[str, ...]


def prepare_texts(
    data: TrainingData,
    backbone: BackboneSettings,
    settings: TunedSettings,
    blocks: int | None,
    progress: Progress | None = None,
) -> TuningMaterial:
    """Tokenise the texts once and, where `blocks` are tuned, run the trunk below them once.

    Raises:
        InputError: the model has not so many blocks.
    """
    classifier = load_classifier(backbone, data.class_names, settings.dropout, seed=0)
    texts = TuningTexts.prepare(classifier, data.texts, blocks, progress)
    return TuningMaterial(
        backbone, texts, weighted_targets(data.targets, settings.class_weights), data.class_names
    )


def tune_each(
    material: TuningMaterial, settings: TunedSettings, seeds: Sequence[int], progress: Progress | None = None
) -> Iterator[tuple[Classifier, list[StepRecord]]]:
    """Yield one tuned network a seed, with its history.

    Raises:
        TrainingError: a loss is no longer finite.
    """
    loss = target_loss(material.targets)
    for seed in seeds:
        classifier = load_classifier(material.backbone, material.class_names, settings.dropout, seed)
        rows = training_rows(len(material.targets), seed, settings.bootstrap)
        yield classifier, tune(classifier, material.texts, loss, settings.optimiser, seed, rows, progress)
