"""Tune one classification network, whole or its top blocks over a trunk that ran once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from math import log

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from credibly.backbones.attention import attention_for_gradient
from credibly.backbones.blocks import BlockCut
from credibly.backbones.last_layer import exact_logits
from credibly.backbones.loading import Classifier
from credibly.backbones.trunk import TrunkStates, trunk_states
from credibly.batching import (
    TokenBatch,
    Tokens,
    length_batches,
    pad,
    shuffled_batches,
    some_of,
    split_columns,
    tokenise,
)
from credibly.parallel import each_batch
from credibly.progress import Progress
from credibly.records import IntArray
from credibly.settings import OptimiserSettings
from credibly.training import UNWATCHED, HeldOut, History, Monitor, Task, from_batch, stream, train

Loss = Callable[[Tensor, torch.Tensor], Tensor]
"""The mean loss of logits, (B, C), for the rows at these indices, (B,)."""


def cross_entropy(z: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy of softmax(z), (B, C), against target probabilities, (B, C), in nats."""
    return -(targets * torch.log_softmax(z.float(), dim=-1)).sum(dim=-1).mean()


def target_loss(targets: NDArray[np.float32]) -> Loss:
    """Return cross-entropy against targets, (N, C): labels one-hot, soft, or weighted by class."""
    wanted = torch.from_numpy(targets)
    return lambda z, rows: cross_entropy(z, wanted[rows].to(z.device))


@dataclass(frozen=True)
class TuningTexts:
    """Texts to tune on: tokenised, with the trunk's states where it is frozen.

    Args:
        tokens: N texts.
        states: the frozen trunk's hidden states; None where the whole network is tuned.
        blocks: number of blocks that are tuned; None where it is the whole network.
    """

    tokens: Tokens
    states: TrunkStates | None = None
    blocks: int | None = None

    @classmethod
    def prepare(
        cls,
        classifier: Classifier,
        texts: Sequence[str],
        blocks: int | None,
        progress: Progress | None = None,
        cut: BlockCut | None = None,
    ) -> TuningTexts:
        """Tokenise the texts and, where only the top blocks are tuned, run the trunk once.

        All networks that are loaded from the same weights have the same trunk, whatever their heads.

        Args:
            classifier: which reads the texts.
            texts: N texts.
            blocks: number of blocks that are tuned; None where it is the whole network.
            progress: told of the trunk's batches.
            cut: of a network that is cut below these blocks already; one held in fewer bits than it was
                loaded in can be cut no more.

        Raises:
            InputError: the model has not so many blocks.
        """
        tokens = tokenise(classifier.tokenizer, texts, classifier.max_tokens)
        if blocks is None:
            return cls(tokens)
        cut = cut or BlockCut(classifier.model, blocks)
        return cls(tokens, trunk_states(classifier, cut, tokens, progress), blocks)


@dataclass(frozen=True)
class HeldOutTexts:
    """Texts that are not tuned on, and their target probabilities, float32, (N, C)."""

    texts: TuningTexts
    targets: NDArray[np.float32]


def tune(
    classifier: Classifier,
    texts: TuningTexts,
    loss: Loss,
    optimiser: OptimiserSettings,
    seed: int,
    rows: IntArray | None = None,
    held_out: HeldOutTexts | None = None,
    monitor: Monitor = UNWATCHED,
) -> History:
    """Tune a network in place and return its history.

    With the same seed two networks see the same texts in the same order. One that can use only some
    rows takes as many steps as one that uses all, going round its rows more often.

    Args:
        classifier: the network, with a head started anew.
        texts: N texts, with trunk states where the trunk is frozen.
        loss: of logits and row indices.
        optimiser: rate, schedule, epochs.
        seed: of the order of the texts and of dropout.
        rows: int64, the rows to train on, repeated ones included; all once if left out.
        held_out: measured on the way, for the history and for stopping early.
        monitor: told of every step; keeps the checkpoints.
    """
    cut = None if texts.blocks is None else BlockCut(classifier.model, texts.blocks)
    if cut is None:
        classifier.model.requires_grad_(True)
    chosen = np.arange(len(texts.tokens)) if rows is None else rows
    lengths = texts.tokens.lengths
    size = optimiser.batch_size

    def dealt(turn: int) -> Iterator[IntArray]:
        order = stream(seed, f"order {turn}")
        for some in shuffled_batches(lengths[chosen], size, order):
            yield chosen[some]

    def losses(batch: IntArray) -> Iterator[Tensor]:
        for (part,) in split_columns(batch[None], lengths, classifier.token_budget):
            padded = pad(texts.tokens, part).to(classifier.device)
            longest = padded.input_ids.shape[1]
            attention = attention_for_gradient(classifier.device, classifier.precision, longest)
            with classifier.autocast(), attention:
                z = _logits(classifier, cut, texts.states, padded)
            yield loss(z.float(), torch.from_numpy(part))[None] * (len(part) / len(batch))

    def validate(limit: int | None) -> HeldOut:
        assert held_out
        return _measured(classifier, cut, held_out, limit)

    task = Task(
        module=classifier.model,
        batches=lambda start: from_batch(start, -(-len(chosen) // size), dealt),
        losses=losses,
        batches_per_epoch=-(-len(texts.tokens) // size),
        seed=seed,
        validate=validate if held_out else None,
        tokens=lambda batch: int(lengths[batch].sum()),
    )
    with nullcontext() if cut is None else cut.resumed():
        (history,) = train(task, optimiser, monitor)
    return history


def _measured(
    classifier: Classifier, cut: BlockCut | None, held_out: HeldOutTexts, limit: int | None
) -> HeldOut:
    """Return loss and accuracy on held-out texts, or on so many batches of them."""
    tokens, wanted = held_out.texts.tokens, torch.from_numpy(held_out.targets)

    def parts() -> Iterator[tuple[Tensor, Tensor]]:
        for some in some_of(length_batches(tokens.lengths, classifier.token_budget), limit):
            batch = pad(tokens, some).to(classifier.device)
            with classifier.autocast():
                z = _logits(classifier, cut, held_out.texts.states, batch)
            # Where z holds several answers, head after head, they count by the mean of their probabilities.
            heads = torch.log_softmax(z.float().view(len(some), -1, wanted.shape[1]), dim=-1)
            log_probs = heads.logsumexp(dim=1) - log(heads.shape[1])
            yield log_probs[None], wanted[torch.from_numpy(some)].to(z.device)

    return HeldOut.over(parts())


def class_logits(classifier: Classifier, batches: Iterable[TokenBatch], N: int) -> NDArray[np.float32]:
    """Return a network's logits, float32, (N, C), over batches that together hold N texts."""
    logits = np.empty((N, len(classifier.class_names)), dtype=np.float32)

    def logits_of(batch: TokenBatch) -> NDArray[np.float32]:
        there = batch.to(classifier.device)
        with torch.inference_mode(), classifier.autocast():
            output = classifier.model(**there.inputs())
        own: NDArray[np.float32] = output.logits.float().cpu().numpy()
        return own

    with exact_logits(classifier):
        for batch, own in each_batch(logits_of, batches, classifier.device):
            logits[batch.indices] = own
    return logits


def _logits(
    classifier: Classifier, cut: BlockCut | None, states: TrunkStates | None, batch: TokenBatch
) -> Tensor:
    if cut is not None and states is not None:
        return cut.logits(batch, states.of(batch))
    logits: Tensor = classifier.model(**batch.inputs()).logits
    return logits
