"""What labellers share, members of which nothing is trained: what they say of texts, less their bias."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from credibly.data.strata import Strata
from credibly.errors import RunFolderError
from credibly.members.common import LogProbs, Source, TrainingData, drawn, labels_of
from credibly.progress import Progress
from credibly.reading import Reader
from credibly.records import IntArray, normalised_log_probs
from credibly.runs import write_json
from credibly.training import stream

FloatArray = NDArray[np.float64]

WARM_UP_SEED = 0
"""All members' biases are found on the same texts, whatever their seeds."""


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


ANY_LENGTH = Strata()


@dataclass(frozen=True)
class Bias:
    """What labellers say of each class whatever the text: the same for all texts, or by their length.

    Args:
        values: float64, (M, K, C), of M labellers in K ranges of lengths.
        strata: the ranges.
    """

    values: FloatArray
    strata: Strata = ANY_LENGTH

    @classmethod
    def none(cls, M: int, C: int) -> Bias:
        """Return no bias of M labellers for C classes."""
        return cls(np.zeros((M, 1, C)))

    def of(self, texts: Sequence[str]) -> FloatArray:
        """Return what is to be taken off log-probabilities of these texts, float64, (M, N or 1, C)."""
        return (
            self.values if self.strata.count == 1 else np.asarray(self.values[:, self.strata.places(texts)])
        )

    def content(self, member: int) -> dict[str, Any]:
        """Return one labeller's bias as its file holds it."""
        own = self.values[member].tolist()
        if self.strata.count == 1:
            return {"bias": own[0]}
        return {"bias": own, "longest": list(self.strata.edges)}

    @classmethod
    def read(cls, content: Mapping[str, Any], C: int) -> Bias:
        """Return one labeller's bias, as its file holds it.

        Raises:
            ValueError: it is not of C classes, or not of as many ranges of lengths as there are edges.
            KeyError: there is none.
            TypeError: it is no number.
        """
        strata = Strata(tuple(map(float, content.get("longest", ()))))
        values = np.atleast_2d(np.array(content["bias"], dtype=np.float64))
        if values.shape != (strata.count, C):
            raise ValueError(f"expected a bias of {C} classes, got an array of shape {values.shape}")
        return cls(values[None], strata)

    @classmethod
    def joined(cls, biases: Sequence[Bias]) -> Bias:
        """Return the bias of several labellers in one.

        Raises:
            RunFolderError: their ranges of lengths are not the same, so they are not of one run.
        """
        strata = {own.strata for own in biases}
        if len(strata) != 1:
            raise RunFolderError(
                f"expected labellers of the same ranges of lengths, got {len(strata)} kinds: their files are "
                "damaged; run again with --overwrite"
            )
        return cls(np.concatenate([own.values for own in biases]), strata.pop())


@dataclass(frozen=True)
class Labellers(ABC):
    """M labellers on one language model.

    Args:
        bias: taken off what they say.
        class_names: C names.
    """

    bias: Bias
    class_names: tuple[str, ...]

    @property
    def count(self) -> int:
        """M."""
        return len(self.bias.values)

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
        return normalised_log_probs(self.said(texts).log_probs - self.bias.of(texts))

    def without_bias(
        self, texts: Sequence[str], progress: Progress | None = None, labels: IntArray | None = None
    ) -> Self:
        """Return these labellers with the bias that they show on some texts.

        The bias is the mean log-probability of each class (batch calibration, Zhou et al. 2023,
        https://arxiv.org/abs/2309.17249). That of texts which are mostly of one class holds what the texts
        say as well; where labels are known, the mean is one over the classes, of the mean over each one's
        texts.

        Args:
            texts: N texts.
            progress: told of the texts done.
            labels: (N,), their classes, where these are known.
        """
        said = normalised_log_probs(self.said(texts, progress).log_probs)
        parts = [said] if labels is None else [said[:, labels == own] for own in np.unique(labels)]
        means = [part.mean(axis=1, keepdims=True, dtype=np.float64) for part in parts]
        return replace(self, bias=Bias(np.mean(means, axis=0)))

    def warmed_up(self, data: TrainingData, count: int, progress: Progress | None = None) -> Self:
        """Return these labellers without the bias that they show on so many training texts at most.

        The texts are drawn in balance over the classes, the same for whatever members; where no text has a
        class, they are drawn from all.
        """
        labels = labels_of(data.targets)
        known = labels if (labels >= 0).any() else np.zeros_like(labels)
        rows = drawn(known, count, stream(WARM_UP_SEED, "warm-up"))
        return self.without_bias([data.texts[row] for row in rows], progress, known[rows])

    @abstractmethod
    def save(self, member: int, folder: Path) -> None:
        """Write one labeller, as text."""


def rewrite_bias(folder: Path, bias: Mapping[str, Any]) -> None:
    """Give a saved labeller, a folder with one file of text, another bias, as `Bias.content` holds it."""
    (file,) = folder.glob("*.json")
    write_json(file, {**json.loads(file.read_text(encoding="utf-8")), **bias})


class LabellerSource(Source, Protocol):
    """A member source that answers without any training."""

    def labellers(self, material: Any, settings: Any, seeds: Sequence[int]) -> Labellers:
        """Return one labeller a seed, with no bias taken off."""
