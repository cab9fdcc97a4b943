"""What sources that tune networks one after the other share: their texts, and the loop over seeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from credibly.backbones.blocks import BlockCut
from credibly.backbones.loading import Classifier, load_classifier
from credibly.members.common import TrainingData, training_rows, weighted_targets
from credibly.progress import Progress
from credibly.settings import (
    BackboneSettings,
    FullSettings,
    SnapshotsSettings,
    TopBlocksSettings,
    TunedSettings,
)
from credibly.training import UNWATCHED, History, Monitor
from credibly.tuning import HeldOutTexts, TuningTexts, target_loss, tune

WithDropout = FullSettings | TopBlocksSettings | SnapshotsSettings


@dataclass(frozen=True)
class TuningMaterial:
    """The training texts, with the trunk's states where it is frozen, and targets, float32, (N, C)."""

    backbone: BackboneSettings
    texts: TuningTexts
    targets: NDArray[np.float32]
    class_names: tuple[str, ...]
    held_out: HeldOutTexts | None = None


def prepare_texts(
    data: TrainingData,
    backbone: BackboneSettings,
    settings: WithDropout,
    blocks: int | None,
    progress: Progress | None = None,
) -> TuningMaterial:
    """Tokenise the texts once and, where `blocks` are tuned, run the trunk below them once.

    Raises:
        InputError: the model has not so many blocks.
    """
    classifier = load_classifier(backbone, data.class_names, dropout=0.0, seed=0)
    return material_of(classifier, backbone, data, settings, blocks, progress)


def material_of(
    classifier: Classifier,
    backbone: BackboneSettings,
    data: TrainingData,
    settings: TunedSettings,
    blocks: int | None,
    progress: Progress | None = None,
    cut: BlockCut | None = None,
) -> TuningMaterial:
    """Do what `prepare_texts` does, by a network that is loaded already, and perhaps cut."""
    texts = TuningTexts.prepare(classifier, data.texts, blocks, progress, cut)
    held_out = None
    if data.validation:
        held_out_texts = TuningTexts.prepare(classifier, data.validation.texts, blocks, cut=cut)
        held_out = HeldOutTexts(held_out_texts, data.validation.targets)
    targets = weighted_targets(data.targets, settings.class_weights)
    return TuningMaterial(backbone, texts, targets, data.class_names, held_out)


def open_for_tuning(material: TuningMaterial, settings: WithDropout, seed: int) -> Classifier:
    """Load the network that is to be tuned, its head started by a seed."""
    return load_classifier(
        material.backbone,
        material.class_names,
        settings.dropout,
        seed,
        words=settings.words,
        attention_dropout=settings.attention_dropout,
    )


def tune_each(
    material: TuningMaterial, settings: WithDropout, seeds: Sequence[int], monitor: Monitor = UNWATCHED
) -> Iterator[tuple[Classifier, History]]:
    """Yield one tuned network a seed, with its history."""
    loss = target_loss(material.targets)
    for seed in seeds:
        classifier = open_for_tuning(material, settings, seed)
        rows = training_rows(len(material.targets), seed, settings.bootstrap)
        history = tune(
            classifier, material.texts, loss, settings.optimiser, seed, rows, material.held_out, monitor
        )
        yield classifier, history
