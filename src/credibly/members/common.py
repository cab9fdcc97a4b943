"""What all member sources share: their data, their random streams, and what trained members can do."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from credibly.backbones.footprint import Needs
from credibly.backbones.four_bit import count_held
from credibly.backbones.outline import Outline, Texts
from credibly.progress import Stages
from credibly.reading import Reader
from credibly.records import FloatArray, IntArray
from credibly.settings import BackboneSettings
from credibly.training import UNWATCHED, History, Monitor, stream

LogProbs = NDArray[np.float32]
Histories = list[History]


@dataclass(frozen=True)
class TrainingData:
    """What members learn from.

    Args:
        texts: N texts.
        targets: float32, (N, C), one-hot labels or class probabilities, normalised but for a row's weight.
        class_names: C names.
        validation: held out, for the histories and for stopping early.
    """

    texts: tuple[str, ...]
    targets: NDArray[np.float32]
    class_names: tuple[str, ...]
    validation: TrainingData | None = None


class Members(Protocol):
    """Trained members of one source on one backbone."""

    @property
    def count(self) -> int:
        """M."""

    @property
    def shared_parameters(self) -> int:
        """Number of weights that all members share."""

    @property
    def member_parameters(self) -> int:
        """Number of weights of one member alone."""

    @property
    def reader(self) -> Reader:
        """The model that reads the texts."""

    def log_probs(self, texts: Sequence[str], cached: bool = False) -> LogProbs:
        """Return log-probabilities, float32, (M, N, C), normalised."""

    def save(self, member: int, folder: Path) -> None:
        """Write one member's own weights into a folder that is there and empty."""


class Source(Protocol):
    """A member source is a module with these names, in this order."""

    def group_size(self, settings: Any) -> int:
        """Return how many members are trained in one pass."""

    def prepare(self, data: TrainingData, backbone: BackboneSettings, settings: Any, stages: Stages) -> Any:
        """Return what is computed once for all members: embeddings, trunk states, tokens."""

    def fit(
        self, material: Any, settings: Any, seeds: Sequence[int], monitor: Monitor = UNWATCHED
    ) -> tuple[Members, Histories]:
        """Train one member a seed and return them with their histories, which say whose training failed."""

    def load(
        self, folders: Sequence[Path], backbone: BackboneSettings, settings: Any, class_names: Sequence[str]
    ) -> Members:
        """Return saved members, one a folder."""

    def needs(self, outline: Outline, texts: Texts, backbone: BackboneSettings, settings: Any) -> Needs:
        """Return what these members need on training texts so long, by the model's structure alone."""


def count_weights(tensors: Iterable[Tensor]) -> int:
    """Return the number of weights in all tensors together."""
    return sum(count_held(tensor) for tensor in tensors)


def training_rows(N: int, seed: int, bootstrap: bool) -> IntArray:
    """Return the rows that a member trains on: all, or N drawn with replacement."""
    return stream(seed, "bootstrap").integers(0, N, N) if bootstrap else np.arange(N)


def labels_of(targets: ArrayLike) -> IntArray:
    """Return each row's likeliest class, int64, (N,); -1 where there is none.

    That is where the row weighs nothing, or several classes are as likely.

    >>> labels_of([[0.2, 0.8], [3.0, 0.0], [0.0, 0.0], [0.5, 0.5]]).tolist()
    [1, 0, -1, -1]

    Args:
        targets: (N, C), as in `TrainingData`.
    """
    rows = np.asarray(targets)
    highest = rows.max(axis=1, keepdims=True)
    single = (rows == highest).sum(axis=1) == 1
    return np.where(single & (highest[:, 0] > 0), rows.argmax(axis=1), -1)


def drawn(labels: IntArray, count: int, generator: np.random.Generator) -> IntArray:
    """Return rows in a random order, at most `count`, of every class as many as there are and will do.

    Rows of label -1 are of no class and never drawn.

    >>> rows = drawn(np.array([0, 0, 0, 1, 1]), 4, np.random.default_rng(0))
    >>> sorted(np.array([0, 0, 0, 1, 1])[rows].tolist())
    [0, 0, 1, 1]
    """
    order = generator.permutation(len(labels))
    order = order[labels[order] >= 0]
    classes = generator.permutation(np.unique(labels[order]))
    place = {int(row): rank for own in classes for rank, row in enumerate(order[labels[order] == own])}
    turn = {int(own): number for number, own in enumerate(classes)}
    fair = sorted((int(row) for row in order), key=lambda row: (place[row], turn[int(labels[row])]))
    return generator.permutation(np.asarray(fair[:count], dtype=np.int64))


def weighted_targets(targets: FloatArray, class_weights: str) -> NDArray[np.float32]:
    """Return targets, (N, C), times each class's weight.

    "balanced" weights a class by N / (C x rows of the class), so that each counts the same.
    """
    shares = targets.mean(axis=0)
    weights = 1.0 / (len(shares) * np.maximum(shares, 1e-12)) if class_weights == "balanced" else 1.0
    return np.asarray(targets * weights, dtype=np.float32)


def kept_units(
    shape: Sequence[int], dropout: float, streams: Sequence[np.random.Generator]
) -> NDArray[np.float32]:
    """Return a dropout mask, float32, (M, *shape), drawn from each member's own stream, of mean one.

    16 bits decide a unit: the share dropped is right to 1/65,536, at a quarter of the cost of floats.
    """
    threshold = min(round(dropout * 65536), 65535)
    units = math.prod(shape)
    words = [own.bit_generator.random_raw(-(-units // 4)) for own in streams]
    drawn = np.stack(words).view(np.uint16)[:, :units].reshape(-1, *shape)
    return np.multiply(drawn >= threshold, np.float32(65536 / (65536 - threshold)))
