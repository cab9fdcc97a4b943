"""Members as draws from a last-layer Laplace approximation: linear heads on one frozen model's embeddings.

One head is fitted, and each member is a draw of its weights from their posterior, by the member's own seed:
what a member is depends on its seed and the texts alone. Members are `heads` without a hidden layer, saved,
loaded and run as these are.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from credibly.backbones.footprint import Needs, Work
from credibly.backbones.outline import Outline, Texts
from credibly.members import head_stack, heads
from credibly.members.common import Histories, TrainingData, weighted_targets
from credibly.members.heads import Embedded, HeadMembers
from credibly.members.posterior import CHUNK, Doubles, Rows, is_full, posterior_of
from credibly.progress import Stages
from credibly.settings import BackboneSettings, HeadsSettings, LaplaceSettings
from credibly.training import UNWATCHED, History, Monitor, StepRecord, stream

LOOKS, ROUNDS = 500, 10
"""Measured: a fit looks about so often at all rows, and takes the curvature about so often."""
DOUBLE = 8
LOGGED = 25
"""At least so many looks, where there are as many, are kept in the history."""


def group_size(settings: LaplaceSettings) -> int:
    """Return how many members are drawn in one pass: all."""
    return settings.count


def prepare(
    data: TrainingData, backbone: BackboneSettings, settings: LaplaceSettings, stages: Stages
) -> Embedded:
    """Embed the texts once."""
    return heads.prepare(data, backbone, linear(settings), stages)


def fit(
    material: Embedded, settings: LaplaceSettings, seeds: Sequence[int], monitor: Monitor = UNWATCHED
) -> tuple[HeadMembers, Histories]:
    """Fit one head and draw one member a seed; they share the fit's history.

    Raises:
        InputError: the embeddings hold what is no number.
    """
    rows = Rows(material.embeddings, weighted_targets(material.targets, settings.class_weights))
    records: list[StepRecord] = []
    began = time.perf_counter()

    def watch(loss: float, gradient: Doubles) -> None:
        step, norm = len(records) + 1, float(np.linalg.norm(gradient))
        # Every look goes over all rows; a quasi-Newton step has no rate but one.
        records.append(StepRecord(step, step, loss, norm, 1.0, time.perf_counter() - began))

    posterior = posterior_of(rows, settings.hessian, settings.prior_precision, watch)
    every = max(1, len(records) // LOGGED)
    records = records[-1::-every][::-1]
    if material.held_out:
        found = head_stack.measured(stacked([posterior.weights]), *material.held_out)
        records[-1] = replace(
            records[-1],
            validation_loss=found.loss.item(),
            validation_accuracy=found.accuracy.item(),
            validation_rows=found.rows,
        )
    stack = stacked([posterior.sample(stream(seed, "posterior")) for seed in seeds])
    return HeadMembers(material.backbone, stack, material.class_names), [History(records) for _ in seeds]


def stacked(weights: Sequence[Doubles]) -> head_stack.Heads:
    """Return linear heads, each given as (C, D + 1) with the bias as the last column."""
    all_of_them = torch.from_numpy(np.stack(weights)).float()
    C, inputs = all_of_them.shape[1:]
    stack = head_stack.Heads([inputs - 1, C], len(weights), dropout=0.0)
    with torch.no_grad():
        stack.weights[0].copy_(all_of_them[:, :, :-1])
        stack.biases[0].copy_(all_of_them[:, :, -1])
    return stack.eval()


def load(
    folders: Sequence[Path],
    backbone: BackboneSettings,
    settings: LaplaceSettings,
    class_names: Sequence[str],
) -> HeadMembers:
    """Return saved members on their backbone.

    Raises:
        RunFolderError: a file is damaged.
    """
    return heads.load(folders, backbone, linear(settings), class_names)


def linear(settings: LaplaceSettings) -> HeadsSettings:
    """Return the settings of heads that have these members' shape."""
    return HeadsSettings(count=settings.count, hidden=[], dropout=0.0)


def needs(outline: Outline, texts: Texts, backbone: BackboneSettings, settings: LaplaceSettings) -> Needs:
    """Return what these members need: those of linear heads, but one head is fitted, in double precision."""
    own = heads.needs(outline, texts, backbone, linear(settings))
    N, C, D = len(texts), outline.classes, outline.width + 1
    side = C * D if is_full(settings.hessian, C * D) else D
    # The matrix, its eigenvectors, and what finding them takes beside; a chunk of rows and its product.
    found = DOUBLE * (4 * side**2 + 3 * min(N, CHUNK) * (D + C))
    memory = replace(own.memory, gradients=0, moments=0, best=0, activations=found)
    looks = LOOKS * 4 * C * D * N
    curvatures = ROUNDS * (2 * N * (side * side) + 9 * side**3)
    return replace(own, memory=memory, training=Work(looks + curvatures))
