"""Members that compare: how near a text's embedding lies to those of sentences that say each class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from credibly.backbones import Backbone, embed, load_backbone
from credibly.backbones.footprint import Needs, forward, untrained_needs
from credibly.backbones.outline import Outline, Texts
from credibly.members.common import Histories, TrainingData, count_weights
from credibly.members.opinions import Bias, FloatArray, Labellers, Said
from credibly.members.statements import Statements, load_statements, save_statements, statements_of
from credibly.progress import Progress, Stages
from credibly.reading import count_cut
from credibly.records import normalised_log_probs
from credibly.settings import BackboneSettings, SimilaritySettings
from credibly.training import UNWATCHED, History, Monitor

SHORTEST = 1e-12
"""An embedding of length zero is as near to one class as to another."""


@dataclass(frozen=True)
class SimilarityMembers(Labellers):
    """M sets of sentences, embedded by one model as the texts are.

    Args:
        backbone: embeds.
        statements: M members' sentences, C each.
        directions: float64, (M, C, D): their embeddings, of length one.
        temperature: which the cosines are divided by.
    """

    backbone: Backbone
    statements: Statements
    directions: FloatArray
    temperature: float

    @property
    def shared_parameters(self) -> int:
        """Number of weights of the backbone."""
        return count_weights(self.backbone.model.parameters())

    @property
    def reader(self) -> Backbone:
        """The model that reads the texts."""
        return self.backbone

    def said(self, texts: Sequence[str], progress: Progress | None = None) -> Said:
        """Return the softmax over the classes of cosine / temperature; the texts are embedded once."""
        cosines = np.einsum("nd,mcd->mnc", _directions(self.backbone, texts, progress), self.directions)
        log_probs = normalised_log_probs(cosines / self.temperature).astype(np.float64)
        return Said(log_probs, count_cut((self.backbone,), texts))

    def save(self, member: int, folder: Path) -> None:
        """Write one member's sentences and bias."""
        save_statements(folder, self.statements[member], self.bias.content(member))


def _directions(backbone: Backbone, texts: Sequence[str], progress: Progress | None = None) -> FloatArray:
    """Return embeddings of length one, float64, (N, D)."""
    embeddings = embed(backbone, texts, progress).astype(np.float64)
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return np.asarray(embeddings / np.maximum(lengths, SHORTEST))


@dataclass(frozen=True)
class Pool:
    """What members are made of: the model, and texts on which their bias is found."""

    backbone: Backbone
    data: TrainingData


def group_size(settings: SimilaritySettings) -> int:
    """Return how many members are made in one pass: all."""
    return settings.count


def prepare(
    data: TrainingData, backbone: BackboneSettings, settings: SimilaritySettings, stages: Stages
) -> Pool:
    """Load the model."""
    return Pool(load_backbone(backbone), data)


def fit(
    material: Pool, settings: SimilaritySettings, seeds: Sequence[int], monitor: Monitor = UNWATCHED
) -> tuple[SimilarityMembers, Histories]:
    """Make one member a seed; nothing is trained, but each one's bias is found on training texts.

    Raises:
        InputError: as `labellers`.
    """
    members = labellers(material, settings, seeds)
    unbiased = members.warmed_up(material.data, settings.warm_up, monitor.progress)
    return unbiased, [History() for _ in seeds]


def labellers(material: Pool, settings: SimilaritySettings, seeds: Sequence[int]) -> SimilarityMembers:
    """Make one member a seed, with no bias taken off.

    Raises:
        InputError: templates or words that do not fit, or more members than templates.
    """
    names = material.data.class_names
    statements = statements_of(names, settings, seeds)
    return _members(material.backbone, statements, settings, Bias.none(len(seeds), len(names)), names)


def _members(
    backbone: Backbone,
    statements: Statements,
    settings: SimilaritySettings,
    bias: Bias,
    class_names: Sequence[str],
) -> SimilarityMembers:
    flat = [sentence for own in statements for sentence in own]
    directions = _directions(backbone, flat).reshape(len(statements), len(class_names), backbone.width)
    return SimilarityMembers(bias, tuple(class_names), backbone, statements, directions, settings.temperature)


def load(
    folders: Sequence[Path],
    backbone: BackboneSettings,
    settings: SimilaritySettings,
    class_names: Sequence[str],
) -> SimilarityMembers:
    """Return saved members; their sentences are embedded again.

    Raises:
        RunFolderError: a file is damaged.
    """
    statements, bias = load_statements(folders, class_names)
    return _members(load_backbone(backbone), statements, settings, bias, class_names)


def needs(outline: Outline, texts: Texts, backbone: BackboneSettings, settings: SimilaritySettings) -> Needs:
    """Return what these members need: texts go through the encoder once, whatever their number."""
    parameters = outline.encoder_parameters
    base = outline.element_bytes * parameters + outline.packed_bytes
    kept = outline.passing(texts, backbone.token_budget, side_by_side=True)
    return untrained_needs(outline, parameters, base, kept, forward(outline, texts, outline.blocks))
