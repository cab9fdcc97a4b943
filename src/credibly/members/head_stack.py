"""M small networks side by side, trained as one batched product.

The texts go through the language model once. Everything after that is a stack of matrices whose first
axis is the member, so one product serves all members and the optimiser takes M steps in one. Each
member keeps random streams of its own for its start, the order of its rows and its dropout, so what it
becomes does not depend on who is trained beside it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from credibly.backbones.loading import Precision
from credibly.errors import InputError, RunFolderError
from credibly.members.common import Histories, kept_units, training_rows, weighted_targets
from credibly.records import FloatArray, normalised_log_probs
from credibly.runs import steady, write_bytes
from credibly.settings import HeadsSettings
from credibly.training import UNWATCHED, HeldOut, Monitor, Task, from_batch, stream, train

PREDICTION_ROWS = 4096


class Heads(nn.Module):
    """M multi-layer perceptrons side by side.

    Args:
        widths: of the layers, input first and classes last.
        members: M.
        dropout: share of the inputs of each layer after the first that is dropped in training.
    """

    def __init__(self, widths: Sequence[int], members: int, dropout: float) -> None:
        super().__init__()
        self.widths = list(widths)
        self.members = members
        self.dropout = dropout
        pairs = list(pairwise(widths))
        self.weights = nn.ParameterList([torch.zeros(members, outputs, inputs) for inputs, outputs in pairs])
        self.biases = nn.ParameterList([torch.zeros(members, outputs) for _, outputs in pairs])

    def forward(self, embeddings: Tensor, streams: Sequence[np.random.Generator] | None = None) -> Tensor:
        """Return logits, float32, (M, B, C).

        Args:
            embeddings: (M, B, D), or (B, D) for the same rows to every member. All layers but the last
                compute in their precision, float32 or bfloat16; the weights are float32.
            streams: in training, each member's random stream for dropout.
        """
        rows = embeddings if embeddings.dim() == 3 else embeddings.expand(self.members, *embeddings.shape)
        # (M, units, B): a product is slow where its last axis is as short as the classes are.
        hidden = rows.transpose(1, 2)
        last = len(self.weights) - 1
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if layer:
                hidden = torch.relu(hidden)
                if streams is not None and self.dropout:
                    hidden = hidden * torch.from_numpy(kept_units(hidden.shape[1:], self.dropout, streams))
            kind = torch.float32 if layer == last else embeddings.dtype
            hidden = torch.baddbmm(bias[:, :, None].to(kind), weight.to(kind), hidden.to(kind))
        return hidden.transpose(1, 2)


def build(settings: HeadsSettings, width: int, classes: int, seeds: Sequence[int]) -> Heads:
    """Return M heads, each started from its own seed as a linear layer usually is."""
    heads = Heads([width, *settings.hidden, classes], len(seeds), settings.dropout)
    with torch.no_grad():
        for member, seed in enumerate(seeds):
            own = stream(seed, "start")
            for weight, bias in zip(heads.weights, heads.biases, strict=True):
                bound = 1.0 / np.sqrt(weight.shape[2])
                weight[member] = torch.from_numpy(own.uniform(-bound, bound, weight.shape[1:]))
                bias[member] = torch.from_numpy(own.uniform(-bound, bound, bias.shape[1:]))
    return heads


def fit(
    embeddings: FloatArray,
    targets: FloatArray,
    settings: HeadsSettings,
    seeds: Sequence[int],
    held_out: tuple[FloatArray, FloatArray] | None = None,
    monitor: Monitor = UNWATCHED,
    precision: Precision = "fp32",
) -> tuple[Heads, Histories]:
    """Train one head a seed, all at once, and return them with their histories.

    Args:
        embeddings: float32, (N, D).
        targets: float32, (N, C), normalised: one-hot labels or class probabilities.
        settings: shape and training.
        seeds: one a member.
        held_out: embeddings and targets that are not trained on, for the histories and early stopping.
        monitor: told of every step; keeps the checkpoints.
        precision: of all layers but the last while training; weights, logits and predictions are float32.

    Raises:
        InputError: there are fewer rows than members.
    """
    N = len(embeddings)
    if len(seeds) > N:
        raise InputError(f"expected at least as many training rows as members ({len(seeds)}), got {N}")
    heads = build(settings, embeddings.shape[1], targets.shape[1], seeds)
    inputs = torch.from_numpy(np.ascontiguousarray(embeddings, dtype=np.float32))
    inputs = inputs.bfloat16() if precision == "bf16" else inputs
    wanted = torch.from_numpy(weighted_targets(targets, settings.class_weights))
    rows = [training_rows(N, seed, settings.bootstrap) for seed in seeds]
    dropouts = [stream(seed, "dropout") for seed in seeds]
    size = min(settings.optimiser.batch_size, N)

    def dealt(epoch: int) -> Iterator[Tensor]:
        orders = [stream(seed, f"order {epoch}").permutation(N) for seed in seeds]
        shuffled = torch.from_numpy(np.stack([own[order] for own, order in zip(rows, orders, strict=True)]))
        for start in range(0, N, size):
            yield shuffled[:, start : start + size]

    def losses(indices: Tensor) -> Iterator[Tensor]:
        flat = indices.reshape(-1)
        batch = inputs.index_select(0, flat).view(*indices.shape, -1)
        log_probs = torch.log_softmax(heads(batch, dropouts), dim=-1)
        likelihoods = wanted.index_select(0, flat).view_as(log_probs) * log_probs
        yield likelihoods.sum(dim=(1, 2)) / -indices.shape[1]

    steps = -(-N // size)
    task = Task(
        module=heads,
        batches=lambda start: from_batch(start, steps, dealt),
        losses=losses,
        batches_per_epoch=steps,
        members=len(seeds),
        generators=dropouts,
        validate=(lambda limit: measured(heads, *held_out)) if held_out else None,
    )
    return heads, train(task, settings.optimiser, monitor)


def measured(heads: Heads, embeddings: FloatArray, targets: FloatArray) -> HeldOut:
    """Return loss and accuracy on held-out rows: always all of them, since they cost next to nothing."""
    log_probs = torch.from_numpy(predict(heads, embeddings))
    return HeldOut.over([(log_probs, torch.from_numpy(np.asarray(targets, dtype=np.float32)))])


def predict(heads: Heads, embeddings: FloatArray) -> np.ndarray[tuple[int, int, int], np.dtype[np.float32]]:
    """Return log-probabilities, float32, (M, N, C), normalised, for embeddings (N, D)."""
    parts = []
    with torch.inference_mode():
        for start in range(0, len(embeddings), PREDICTION_ROWS):
            rows = np.array(embeddings[start : start + PREDICTION_ROWS], dtype=np.float32)
            parts.append(normalised_log_probs(heads(torch.from_numpy(rows)).numpy()))
    if not parts:
        return np.zeros((heads.members, 0, heads.widths[-1]), dtype=np.float32)
    return np.concatenate(parts, axis=1)


def save_member(heads: Heads, member: int, file: Path, class_names: Sequence[str]) -> None:
    """Write one member's weights as safetensors, with its shape and class names beside them."""
    tensors = {}
    for layer, (weight, bias) in enumerate(zip(heads.weights, heads.biases, strict=True)):
        tensors[f"layers.{layer}.weight"] = weight[member].detach().clone()
        tensors[f"layers.{layer}.bias"] = bias[member].detach().clone()
    metadata = {
        "widths": json.dumps(heads.widths),
        "dropout": str(heads.dropout),
        "class_names": json.dumps(list(class_names), ensure_ascii=False),
    }
    write_bytes(file, steady(save(tensors, metadata)))


def load_members(files: Sequence[Path]) -> Heads:
    """Stack saved members into one batched network.

    Raises:
        RunFolderError: a file is damaged, or the members differ in shape.
    """
    heads: Heads | None = None
    for member, file in enumerate(files):
        try:
            with safe_open(file, framework="pt") as handle:
                widths = json.loads(handle.metadata()["widths"])
                if heads is None:
                    heads = Heads(widths, len(files), float(handle.metadata()["dropout"]))
                _copy_member(heads, member, widths, {name: handle.get_tensor(name) for name in handle.keys()})
        except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError, OSError) as error:
            raise RunFolderError(
                f"{file} is damaged or no head ({error}); run again with --overwrite"
            ) from None
    if heads is None:
        raise RunFolderError("expected one member or more, got none; run again with --overwrite")
    return heads.eval()


def _copy_member(heads: Heads, member: int, widths: list[int], tensors: dict[str, Tensor]) -> None:
    if widths != heads.widths:
        raise ValueError(f"widths {widths}, but the first member has {heads.widths}")
    with torch.no_grad():
        for layer in range(len(widths) - 1):
            heads.weights[layer][member] = tensors[f"layers.{layer}.weight"]
            heads.biases[layer][member] = tensors[f"layers.{layer}.bias"]
