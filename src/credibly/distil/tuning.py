"""Tune the student and its controls: the same shape, texts, order, steps and trunk for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from credibly.backbones.blocks import BlockCut
from credibly.backbones.loading import Classifier, load_classifier
from credibly.backbones.trunk import TrunkStates, trunk_states
from credibly.batching import TokenBatch, Tokens, pad, shuffled_batches, tokenise
from credibly.distil.losses import cross_entropy, reverse_kl
from credibly.distil.network import Network
from credibly.distil.targets import DirichletTargets
from credibly.progress import Progress
from credibly.records import IntArray
from credibly.settings import BackboneSettings, DistilSettings
from credibly.training import StepRecord, train

Loss = Callable[[Tensor, torch.Tensor], Tensor]
"""The loss of logits, (B, C), for the rows at these indices, (B,)."""


@dataclass(frozen=True)
class TransferSet:
    """The texts on which networks are tuned, tokenised, with the trunk's states where it is frozen.

    Args:
        tokens: N texts.
        states: the frozen trunk's hidden states; None where the whole network is tuned.
    """

    tokens: Tokens
    states: TrunkStates | None

    @classmethod
    def prepare(
        cls,
        texts: Sequence[str],
        backbone: BackboneSettings,
        distil: DistilSettings,
        class_names: Sequence[str],
        progress: Progress | None = None,
    ) -> TransferSet:
        """Tokenise the texts and, where only the top blocks are tuned, run the trunk once."""
        classifier = load_classifier(backbone, class_names, distil.dropout, seed=0)
        tokens = tokenise(classifier.tokenizer, texts, classifier.max_tokens)
        if distil.tune == "full":
            return cls(tokens, None)
        return cls(
            tokens, trunk_states(classifier, BlockCut(classifier.model, distil.blocks), tokens, progress)
        )


def direct_loss(targets: NDArray[np.float32]) -> Loss:
    """Return cross-entropy against target probabilities, (N, C): true labels, or soft labels at T = 1."""
    wanted = torch.from_numpy(targets)
    return lambda z, rows: cross_entropy(z, wanted[rows].to(z.device))


def student_loss(
    targets: DirichletTargets, labels: NDArray[np.float32] | None = None, label_share: float = 0.0
) -> Loss:
    """Return the reverse KL to the ensemble's Dirichlet, mixed with cross-entropy against true labels.

    Args:
        targets: for the N transfer texts.
        labels: (N, C), normalised; rows of zeros have no label.
        label_share: weight of the cross-entropy.
    """
    mean, precision = torch.from_numpy(targets.mean), torch.from_numpy(targets.precision)
    wanted = torch.zeros_like(mean) if labels is None else torch.from_numpy(labels)
    share = 0.0 if labels is None else label_share

    def loss(z: Tensor, rows: Tensor) -> Tensor:
        opinion = reverse_kl(z, mean[rows].to(z.device), precision[rows].to(z.device))
        if not share:
            return opinion
        return (1.0 - share) * opinion + share * cross_entropy(z, wanted[rows].to(z.device))

    return loss


def tune_network(
    transfer: TransferSet,
    loss: Loss,
    backbone: BackboneSettings,
    distil: DistilSettings,
    class_names: Sequence[str],
    seed: int,
    emits_dirichlet: bool,
    rows: IntArray | None = None,
    progress: Progress | None = None,
) -> tuple[Network, list[StepRecord]]:
    """Tune one network on the transfer set and return it with its history.

    Networks tuned with the same seed start from the same weights and see the same texts in the same
    order, so that only their loss differs. One that can use only some rows (those with a label) takes
    as many steps as the others, going round its rows more often.

    Args:
        transfer: texts and trunk states.
        loss: of logits and row indices.
        backbone: what the network starts from.
        distil: shape and training.
        class_names: C names.
        seed: of the new head, the order of the texts and dropout.
        emits_dirichlet: what the network's logits mean.
        rows: int64, the rows to train on; all if left out.
        progress: told of every step.

    Raises:
        TrainingError: the loss is no longer finite.
    """
    classifier = load_classifier(backbone, class_names, distil.dropout, seed)
    cut = None if transfer.states is None else BlockCut(classifier.model, distil.blocks)
    chosen = np.arange(len(transfer.tokens)) if rows is None else rows
    order = np.random.default_rng([seed, *b"order"])
    size = distil.optimiser.batch_size
    steps = -(-len(transfer.tokens) // size)

    def endless() -> Iterator[TokenBatch]:
        while True:
            for some in shuffled_batches(transfer.tokens.lengths[chosen], size, order):
                yield pad(transfer.tokens, chosen[some]).to(classifier.device)

    stream = endless()

    def batches(epoch: int) -> Iterator[TokenBatch]:
        return islice(stream, steps)

    def losses(batch: TokenBatch) -> Tensor:
        with classifier.autocast():
            z = _logits(classifier, cut, transfer.states, batch)
        return loss(z.float(), torch.from_numpy(batch.indices))[None]

    with nullcontext() if cut is None else cut.resumed(), torch.random.fork_rng(devices=_gpus(classifier)):
        torch.manual_seed(seed)
        histories = train(classifier.model, batches, losses, steps, distil.optimiser, progress=progress)
    return Network(classifier, emits_dirichlet), histories[0]


def _logits(
    classifier: Classifier, cut: BlockCut | None, states: TrunkStates | None, batch: TokenBatch
) -> Tensor:
    if cut is not None and states is not None:
        return cut.logits(batch, states.of(batch))
    logits: Tensor = classifier.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    return logits


def _gpus(classifier: Classifier) -> list[torch.device]:
    return [classifier.device] if classifier.device.type == "cuda" else []
