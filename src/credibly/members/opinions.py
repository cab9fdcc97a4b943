"""What labellers share, members of which nothing is trained: what they say of texts, less their bias."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from credibly.members.common import LogProbs, Source
from credibly.progress import Progress
from credibly.reading import Reader
from credibly.records import normalised_log_probs
from credibly.runs import write_json

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Said:
    """What M labellers say of N texts.

    Args:
        log_probs: float64, (M, N, C): prompts' of the classes' words within the model's whole distribution,
            others' normalised.
        cut: how many texts were too long for one of them.
    """

    log_probs: FloatArray
    cut: int

    @property
    def mass(self) -> FloatArray:
        """float64, (M, N): the probability that the model says any of the words."""
        return np.asarray(np.exp(self.log_probs).sum(axis=-1))


@dataclass(frozen=True)
class Labellers(ABC):
    """M labellers on one language model.

    Args:
        bias: float64, (M, C), taken off what they say.
        class_names: C names.
    """

    bias: FloatArray
    class_names: tuple[str, ...]

    @property
    def count(self) -> int:
        """M."""
        return len(self.bias)

    @property
    @abstractmethod
    def shared_parameters(self) -> int:
        """Number of weights of the language model, which all members share."""

    @property
    def member_parameters(self) -> int:
        """A labeller has no weights of its own."""
        return 0

    @property
    @abstractmethod
    def reader(self) -> Reader:
        """The language model, with the room that the longest words beside a text leave for it."""

    @abstractmethod
    def said(self, texts: Sequence[str], progress: Progress | None = None) -> Said:
        """Return what the labellers say, before any bias is taken off."""

    def log_probs(self, texts: Sequence[str], cached: bool = False) -> LogProbs:
        """Return log-probabilities, float32, (M, N, C), normalised."""
        return normalised_log_probs(self.said(texts).log_probs - self.bias[:, None])

    def without_bias(self, texts: Sequence[str], progress: Progress | None = None) -> Self:
        """Return these labellers with the bias that they show on some texts, whose labels are not looked at.

        The bias is the mean log-probability of each class (batch calibration, Zhou et al. 2023,
        https://arxiv.org/abs/2309.17249).
        """
        said = normalised_log_probs(self.said(texts, progress).log_probs)
        return replace(self, bias=said.mean(axis=1, dtype=np.float64))

    @abstractmethod
    def save(self, member: int, folder: Path) -> None:
        """Write one labeller, as text."""


def rewrite_bias(folder: Path, bias: FloatArray) -> None:
    """Give a saved labeller, a folder with one file of text, another bias, (C,)."""
    (file,) = folder.glob("*.json")
    write_json(file, {**json.loads(file.read_text(encoding="utf-8")), "bias": bias.tolist()})


class LabellerSource(Source, Protocol):
    """A member source that answers without any training."""

    def labellers(self, material: Any, settings: Any, seeds: Sequence[int]) -> Labellers:
        """Return one labeller a seed, with no bias taken off."""
