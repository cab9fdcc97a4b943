"""Members as fixed dropout masks of one tuned network: MC dropout, drawn once.

Gal & Ghahramani (2016, https://arxiv.org/abs/1506.02142) take each pass with dropout for a draw from an
approximate posterior of the weights. Here each member is one such draw for all texts, so that what it says of
a text does not depend on the texts beside it, and is the same each time. The network is stored once, in the
folder of the first of those that were trained together; the others name it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from credibly.backbones.blocks import BlockCut, holding
from credibly.backbones.footprint import Needs, tuned_needs
from credibly.backbones.loading import Classifier, load_classifier
from credibly.backbones.outline import Outline, Texts
from credibly.batching import pad, padded_batches, tokenise
from credibly.errors import InputError, RunFolderError
from credibly.members.common import Histories, LogProbs, TrainingData, count_weights
from credibly.members.masks import Masks, drop_whole_units, masked, masks_of, noting_widths
from credibly.members.top_blocks import Weights, over_trunk, read_weights, upper_weights
from credibly.members.tuned import TuningMaterial, material_of
from credibly.progress import Stages
from credibly.records import normalised_log_probs
from credibly.runs import steady, write_bytes
from credibly.settings import BackboneSettings, DropoutSettings
from credibly.training import UNWATCHED, Monitor
from credibly.tuning import class_logits, target_loss, tune

NETWORK, MASKS = "model.safetensors", "masks.safetensors"


@dataclass(frozen=True)
class Member:
    """One member.

    Args:
        seed: its own.
        network: the seed of the member that holds the network.
        weights: the network's tuned weights, by name; members of one network share them.
        masks: the units that it drops.
    """

    seed: int
    network: int
    weights: Weights
    masks: Masks


@dataclass(frozen=True)
class DropoutMembers:
    """M sets of masks over one network.

    Args:
        classifier: the model, with layers that can hold masks.
        cut: below the blocks that are tuned and masked; None where it is the whole model.
        members: in their order.
    """

    classifier: Classifier
    cut: BlockCut | None
    members: list[Member]

    @property
    def count(self) -> int:
        """M."""
        return len(self.members)

    @property
    def shared_parameters(self) -> int:
        """Number of weights of the network."""
        return count_weights(self.classifier.model.parameters())

    @property
    def member_parameters(self) -> int:
        """Number of units that a member keeps or drops."""
        return count_weights(self.members[0].masks.values())

    @property
    def reader(self) -> Classifier:
        """The model that reads the texts."""
        return self.classifier

    def log_probs(self, texts: Sequence[str], cached: bool = False) -> LogProbs:
        """Return log-probabilities, float32, (M, N, C), normalised; what lies below the masks runs once."""
        classifier = self.classifier
        contexts = [partial(self._as, member) for member in self.members]
        if self.cut is not None:
            return over_trunk(classifier, self.cut, texts, contexts)
        tokens = tokenise(classifier.tokenizer, texts, classifier.max_tokens)
        batches = list(padded_batches(tokens, classifier.token_budget))
        logits = np.empty((self.count, len(texts), len(classifier.class_names)), dtype=np.float32)
        for member, held in enumerate(contexts):
            with held():
                logits[member] = class_logits(classifier, batches, len(texts))
        return normalised_log_probs(logits)

    @contextmanager
    def _as(self, member: Member) -> Iterator[None]:
        """Within this context the model is one member."""
        with holding(self.classifier.model, member.weights), masked(self.classifier.model, member.masks):
            yield

    def save(self, member: int, folder: Path) -> None:
        """Write one member's masks, and the network where it is this member that holds it."""
        own = self.members[member]
        write_bytes(
            folder / MASKS, steady(save(own.masks, {"seed": str(own.seed), "network": str(own.network)}))
        )
        if own.seed == own.network:
            tensors = {name: tensor.contiguous() for name, tensor in own.weights.items()}
            write_bytes(folder / NETWORK, steady(save(tensors)))


def group_size(settings: DropoutSettings) -> int:
    """Return how many members come out of one training: all."""
    return settings.count


def prepare(
    data: TrainingData, backbone: BackboneSettings, settings: DropoutSettings, stages: Stages
) -> TuningMaterial:
    """Tokenise the texts once and, where only the top blocks are tuned, run the trunk below them once.

    Raises:
        InputError: the model has not so many blocks, or no units to drop in them.
    """
    classifier, cut = open_network(backbone, data.class_names, settings)
    widths_of(classifier, cut)
    progress = None if cut is None else stages("running the frozen trunk")
    return material_of(classifier, backbone, data, settings, settings.blocks, progress)


def fit(
    material: TuningMaterial,
    settings: DropoutSettings,
    seeds: Sequence[int],
    monitor: Monitor = UNWATCHED,
) -> tuple[DropoutMembers, Histories]:
    """Tune one network by the first seed, and draw masks for each; they share its history."""
    first, loss = seeds[0], target_loss(material.targets)
    classifier, cut = open_network(material.backbone, material.class_names, settings, first)
    history = tune(
        classifier,
        material.texts,
        loss,
        settings.optimiser,
        first,
        held_out=material.held_out,
        monitor=monitor,
    )
    weights, widths = upper_weights(classifier), widths_of(classifier, cut)
    members = [Member(seed, first, weights, masks_of(widths, settings.dropout, seed)) for seed in seeds]
    return DropoutMembers(classifier, cut, members), [history] * len(seeds)


def load(
    folders: Sequence[Path],
    backbone: BackboneSettings,
    settings: DropoutSettings,
    class_names: Sequence[str],
) -> DropoutMembers:
    """Return saved members over their network.

    Raises:
        RunFolderError: a file is missing or damaged.
    """
    classifier, cut = open_network(backbone, class_names, settings)
    known, widths = set(upper_weights(classifier)), widths_of(classifier, cut)
    networks: dict[int, Weights] = {}
    members = []
    for folder in folders:
        seed, holder, masks = read_masks(folder / MASKS, widths)
        if holder not in networks:
            networks[holder] = read_weights(folder.parent / str(holder) / NETWORK, known)
        members.append(Member(seed, holder, networks[holder], masks))
    return DropoutMembers(classifier, cut, members)


def open_network(
    backbone: BackboneSettings, class_names: Sequence[str], settings: DropoutSettings, seed: int = 0
) -> tuple[Classifier, BlockCut | None]:
    """Load a network whose dropout layers drop whole units, and cut it below the blocks that are tuned.

    Raises:
        InputError: the model has not so many blocks.
    """
    classifier = load_classifier(
        backbone,
        class_names,
        settings.dropout,
        seed,
        words=settings.words,
        attention_dropout=settings.attention_dropout,
    )
    drop_whole_units(classifier.model)
    cut = None if settings.blocks is None else BlockCut(classifier.model, settings.blocks)
    return classifier, cut


def widths_of(classifier: Classifier, cut: BlockCut | None) -> dict[str, int]:
    """Return the number of units, by the layer's name, of the dropout layers above the cut.

    Raises:
        InputError: there are none.
    """
    batch = pad(tokenise(classifier.tokenizer, ["a"], classifier.max_tokens), np.arange(1))
    with noting_widths(classifier.model, None if cut is None else cut.blocks[cut.first]) as widths:
        class_logits(classifier, [batch], 1)
    if not widths:
        raise _all_the_same(classifier.model)
    return widths


def _all_the_same(model: nn.Module) -> InputError:
    return InputError(
        f"{type(model).__name__} has no dropout layers to mask, so that all members would "
        "be the same; take lora, top_blocks or heads"
    )


def read_masks(file: Path, widths: Mapping[str, int]) -> tuple[int, int, Masks]:
    """Return a member's seed, the seed of the member that holds its network, and its masks.

    Raises:
        RunFolderError: the file is damaged, or its masks are not for these layers.
    """
    try:
        with safe_open(file, framework="pt") as handle:
            metadata = handle.metadata()
            masks = {name: handle.get_tensor(name) for name in handle.keys()}
            seed, holder = int(metadata["seed"]), int(metadata["network"])
    except (SafetensorError, KeyError, ValueError, TypeError, OSError) as error:
        raise RunFolderError(f"{file} is damaged ({error}); run again with --overwrite") from None
    if {name: len(mask) for name, mask in masks.items()} != widths:
        raise RunFolderError(f"{file} holds masks for other layers than this backbone has above the cut")
    return seed, holder, masks


def needs(outline: Outline, texts: Texts, backbone: BackboneSettings, settings: DropoutSettings) -> Needs:
    """Return what these members need: one network is tuned, and runs once a member above the cut.

    Raises:
        InputError: the model has not so many blocks, or no dropout layers.
    """
    if not any(type(module) is nn.Dropout for module in outline.classifier.modules()):
        raise _all_the_same(outline.classifier)
    one, each = (
        tuned_needs(outline, texts, backbone.token_budget, settings, settings.blocks, networks)
        for networks in (1, settings.count)
    )
    return replace(one, predicting=each.predicting, one_network=True)
