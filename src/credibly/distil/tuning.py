"""Tune the student and its controls: the same shape, texts, order, steps and trunk for each."""

from __future__ import annotations

from collections.abc import Sequence

from credibly.backbones.loading import load_classifier
from credibly.distil.layers import every_other
from credibly.distil.network import Network
from credibly.errors import TrainingError
from credibly.progress import Progress
from credibly.records import IntArray
from credibly.settings import BackboneSettings, DistilSettings
from credibly.training import UNWATCHED, History, Monitor
from credibly.tuning import HeldOutTexts, Loss, TuningTexts, tune


def transfer_texts(
    texts: Sequence[str],
    backbone: BackboneSettings,
    distil: DistilSettings,
    class_names: Sequence[str],
    progress: Progress | None = None,
) -> TuningTexts:
    """Prepare the texts on which student and controls are tuned, the trunk run once for all of them."""
    classifier = load_classifier(backbone, class_names, dropout=0.0, seed=0)
    blocks = distil.blocks if distil.tune == "top_blocks" else None
    return TuningTexts.prepare(classifier, texts, blocks, progress)


def tune_network(
    texts: TuningTexts,
    loss: Loss,
    backbone: BackboneSettings,
    distil: DistilSettings,
    class_names: Sequence[str],
    seed: int,
    emits_dirichlet: bool,
    rows: IntArray | None = None,
    monitor: Monitor = UNWATCHED,
    heads: int = 1,
    held_out: HeldOutTexts | None = None,
) -> tuple[Network, History]:
    """Tune one network on the transfer texts and return it with its history.

    Networks tuned with the same seed start from the same weights and see the same texts in the same
    order, so that only their loss differs.

    Args:
        texts: the transfer texts, as `transfer_texts` prepares them.
        loss: of logits and row indices.
        backbone: what the network starts from.
        distil: shape and training.
        class_names: C names.
        seed: of the new head, the order of the texts and dropout.
        emits_dirichlet: what the network's logits mean.
        rows: int64, the rows to train on; all if left out.
        monitor: told of every step; keeps the checkpoints.
        heads: how many answers it gives of each text, each of C logits.
        held_out: measured on the way, for the history and for stopping early.

    Raises:
        TrainingError: the loss is no longer finite.
    """
    outputs = class_names if heads == 1 else outputs_of(heads, class_names)
    classifier = load_classifier(
        backbone, outputs, distil.dropout, seed, attention_dropout=distil.attention_dropout
    )
    if distil.layers == "every_other":
        classifier = every_other(classifier)
    history = tune(classifier, texts, loss, distil.optimiser, seed, rows, held_out, monitor)
    if history.failure:
        raise TrainingError(history.failure)
    return Network.of(classifier, emits_dirichlet, heads), history


def outputs_of(heads: int, class_names: Sequence[str]) -> list[str]:
    """Return what the outputs of a network with several heads are called, head after head.

    >>> outputs_of(2, ("no", "yes"))
    ['head 0: no', 'head 0: yes', 'head 1: no', 'head 1: yes']
    """
    return [f"head {head}: {name}" for head in range(heads) for name in class_names]
