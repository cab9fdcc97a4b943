"""Scores of the unknown: how strange a text is to what was trained, larger for stranger ones.

Some read what a system answers, others how far a text's embedding lies from those of training texts.
`FIXED` is the one that speaks where a single word is wanted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from credibly.errors import RecordError, RunFolderError
from credibly.records import IntArray, check_class_names, check_labels, frozen
from credibly.runs import FORMAT_VERSION, steady
from credibly.uncertainty.systems import Answer
from credibly.uncertainty.unknown.distances import (
    Embedded,
    Embeddings,
    Mahalanobis,
    NearestNeighbours,
    RelativeMahalanobis,
    Scorer,
    TwoDepths,
)  # fmt: skip

FloatArray = NDArray[np.float64]
Scores = dict[str, FloatArray]
"""Scores by name, each float64, (N,)."""


BLOCK = 1024
"""Texts that are scored at a time: memory goes by the block times the training texts."""


def energy(answer: Answer) -> FloatArray | None:
    """Return -ln alpha_0 of the Dirichlets that a network emits, (N,); None where it emits none.

    The free energy -logsumexp(z) of Liu et al. 2020 (https://arxiv.org/abs/2010.03759), for the student's
    logits are log-concentrations: z = ln alpha. Of other systems a record holds normalised log-probabilities,
    whose energy is zero for every text.
    """
    if answer.concentrations is None:
        return None
    return np.asarray(-np.log(answer.concentrations.sum(axis=-1, dtype=np.float64)))


ANSWER_SCORES: dict[str, Callable[[Answer], FloatArray | None]] = {
    "max_probability": lambda answer: 1 - answer.confidence,
    "total": lambda answer: answer.uncertainty.total,
    "epistemic": lambda answer: answer.uncertainty.epistemic,
    "energy": energy,
}
"""What a system's answer tells: 1 - max p (Hendrycks & Gimpel 2017, https://arxiv.org/abs/1610.02136), the
entropy of the prediction, the mutual information of label and member, and a Dirichlet's energy."""

LAST_SCORES: dict[str, type[Scorer]] = {
    "mahalanobis": Mahalanobis,
    "relative_mahalanobis": RelativeMahalanobis,
    "nearest_neighbours": NearestNeighbours,
}
"""What the last embedding of a text tells beside those of training texts."""

FIXED = "two_depths"
"""The score that speaks where one is wanted: `TwoDepths`. It was chosen without any set it is judged by."""

EMBEDDING_SCORES = (*LAST_SCORES, FIXED)
"""Scores that need embeddings."""


def answer_scores(answer: Answer) -> Scores:
    """Return the scores that a system's answer has, by name, each (N,)."""
    found = {name: score(answer) for name, score in ANSWER_SCORES.items()}
    return {name: score for name, score in found.items() if score is not None}


@dataclass(frozen=True)
class Reference:
    """Texts such as a model was trained on, as a language model sees them: what others are held against.

    Args:
        train: N training texts or a sample of them, float32.
        labels: int64, (N,), their classes, -1 where unknown.
        calibration: K such texts that nothing was trained on, float32.
        class_names: C names.
        backbone: the language model's name.

    Raises:
        RecordError: the parts do not fit together.
    """

    train: Embedded
    labels: IntArray
    calibration: Embedded
    class_names: tuple[str, ...]
    backbone: str

    def __post_init__(self) -> None:
        check_class_names(self.class_names)
        for side in ("train", "calibration"):
            given = getattr(self, side)
            object.__setattr__(self, side, Embedded(_kept(given.last, side), _kept(given.middle, side)))
        widths = [(side.last.shape[1], side.middle.shape[1]) for side in (self.train, self.calibration)]
        if widths[0] != widths[1]:
            raise RecordError(f"expected one width of train and calibration, got {widths[0]} and {widths[1]}")
        labels = check_labels(self.labels, len(self.train), len(self.class_names))
        object.__setattr__(self, "labels", frozen(labels))

    @cached_property
    def scorers(self) -> dict[str, Callable[[Embedded], FloatArray]]:
        """The embedding scores by name, fitted on the training texts."""
        fitted = {name: kind.fit(self.train.last, self.labels) for name, kind in LAST_SCORES.items()}
        by_last = {name: _of_last(scorer) for name, scorer in fitted.items()}
        return {**by_last, FIXED: TwoDepths.fit(self.train).score}

    def scores(self, texts: Embedded) -> Scores:
        """Return the scores of texts by name, each (N,).

        Raises:
            InputError: no texts, or numbers that are not finite.
        """
        blocks = [texts.take(slice(at, at + BLOCK)) for at in range(0, max(len(texts), 1), BLOCK)]
        return {
            name: np.concatenate([score(block) for block in blocks]) for name, score in self.scorers.items()
        }

    def as_bytes(self) -> bytes:
        """Return the reference as a safetensors file holds it."""
        arrays: dict[str, NDArray[Any]] = {"labels": self.labels}
        for side, texts in (("train", self.train), ("calibration", self.calibration)):
            arrays |= {f"{side}.last": texts.last, f"{side}.middle": texts.middle}
        metadata = {
            "format_version": str(FORMAT_VERSION),
            "class_names": json.dumps(self.class_names, ensure_ascii=False),
            "backbone": self.backbone,
        }
        return steady(save({name: np.ascontiguousarray(array) for name, array in arrays.items()}, metadata))

    @classmethod
    def read(cls, file: Path) -> Reference:
        """Return the reference that a file holds.

        Raises:
            RunFolderError: it is damaged or no such file.
        """
        try:
            with safe_open(file, framework="numpy") as handle:
                metadata: Mapping[str, Any] = handle.metadata() or {}
                train, calibration = (
                    Embedded(handle.get_tensor(f"{side}.last"), handle.get_tensor(f"{side}.middle"))
                    for side in ("train", "calibration")
                )
                labels = handle.get_tensor("labels")
            names = tuple(json.loads(metadata["class_names"]))
            return cls(train, labels, calibration, names, metadata["backbone"])
        except (SafetensorError, KeyError, ValueError, OSError) as error:
            raise RunFolderError(f"{file} is damaged or holds no reference ({error})") from None


def _kept(embeddings: Embeddings, side: str) -> Embeddings:
    array = np.asarray(embeddings, dtype=np.float32)
    if array.ndim != 2 or not array.size or not np.isfinite(array).all():
        raise RecordError(f"expected finite embeddings of {side}, (N, D), got shape {array.shape}")
    return frozen(array)


def _of_last(scorer: Scorer) -> Callable[[Embedded], FloatArray]:
    return lambda texts: scorer.score(texts.last)
