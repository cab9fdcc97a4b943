"""How far a text lies from those a model was trained on, by the embeddings of a language model.

Each is a scorer with `fit` and `score`, larger for what is stranger; a new one is one class here and a
row in `shift`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular

from credibly.errors import InputError
from credibly.records import UNKNOWN, IntArray

FloatArray = NDArray[np.float64]
Embeddings = NDArray[np.floating]
"""(N, D), one row a text."""

NEIGHBOURS = 10
"""Which of the nearest training texts counts: the first may be a chance likeness or a mistake."""


HELD_OUT = 5
"""One of so many training texts shows which distances from the others are usual."""


class Scorer(Protocol):
    """What has seen embeddings of training texts, and says how strange others are beside them."""

    @classmethod
    def fit(cls, embeddings: Embeddings, labels: IntArray) -> Self:
        """Return the scorer of training texts.

        Args:
            embeddings: (N, D).
            labels: int64, (N,), -1 where unknown.
        """

    def score(self, embeddings: Embeddings) -> FloatArray:
        """Return float64, (N,), larger for stranger texts, of embeddings (N, D)."""


@dataclass(frozen=True)
class Mahalanobis:
    """Squared Mahalanobis distance to the nearest class (Lee et al. 2018, https://arxiv.org/abs/1807.03888).

    The covariance is that around the classes' means, one for all. Where the paper takes the empirical one,
    this shrinks it towards a multiple of the identity by Ledoit and Wolf's rule (2004,
    https://doi.org/10.1016/S0047-259X(03)00096-4): with fewer texts than dimensions the other has no inverse.

    Args:
        means: of the classes, whitened, (C, D).
        whitening: (D, D), which makes the covariance the identity.
    """

    means: FloatArray
    whitening: FloatArray

    @classmethod
    def fit(cls, embeddings: Embeddings, labels: IntArray) -> Mahalanobis:
        """Return the scorer of training texts; those of unknown label are left out where others are known.

        Raises:
            InputError: no texts, or numbers that are not finite.
        """
        z, labels = checked(embeddings), np.asarray(labels)
        if (labels != UNKNOWN).any():
            z, labels = z[labels != UNKNOWN], labels[labels != UNKNOWN]
        classes, place = np.unique(labels, return_inverse=True)
        means = np.stack([z[place == index].mean(axis=0) for index in range(len(classes))])
        whitening = _whitening(shrunk_covariance(z - means[place]))
        return cls(means @ whitening, whitening)

    def score(self, embeddings: Embeddings) -> FloatArray:
        """Return the distance of each of N texts to the class nearest to it, (N,)."""
        white = checked(embeddings) @ self.whitening
        to_means = (self.means**2).sum(axis=1) - 2 * white @ self.means.T
        return np.asarray(np.maximum((white**2).sum(axis=1) + to_means.min(axis=1), 0.0))


@dataclass(frozen=True)
class RelativeMahalanobis:
    """Mahalanobis distance to the nearest class less that to all texts as one (Ren et al. 2021).

    https://arxiv.org/abs/2106.09022. What is unusual for texts of every class does not count, so that
    classes that lie close to one another are told from what belongs to none of them.

    Args:
        classes: distances to the classes.
        background: to one class of all texts.
    """

    classes: Mahalanobis
    background: Mahalanobis

    @classmethod
    def fit(cls, embeddings: Embeddings, labels: IntArray) -> RelativeMahalanobis:
        """Return the scorer of training texts; see `Mahalanobis.fit`."""
        together = np.zeros(len(embeddings), dtype=np.int64)
        return cls(Mahalanobis.fit(embeddings, labels), Mahalanobis.fit(embeddings, together))

    def score(self, embeddings: Embeddings) -> FloatArray:
        """Return the difference for each of N texts, (N,)."""
        return self.classes.score(embeddings) - self.background.score(embeddings)


@dataclass(frozen=True)
class NearestNeighbours:
    """Distance to the k-th nearest training text, all embeddings made of length one (Sun et al. 2022).

    https://arxiv.org/abs/2204.06507. It assumes no shape of the training texts and needs no labels.

    Args:
        reference: embeddings of training texts, float32, (N, D), each of length one.
        k: which of the nearest counts.

    >>> scorer = NearestNeighbours(np.array([[1.0, 0.0], [0.0, 1.0]]), k=1)
    >>> scorer.score(np.array([[5.0, 0.0], [-1.0, 0.0]])).round(4).tolist()
    [0.0, 1.4142]
    """

    reference: Embeddings
    k: int

    @classmethod
    def fit(cls, embeddings: Embeddings, labels: IntArray, k: int = NEIGHBOURS) -> NearestNeighbours:
        """Return the scorer of training texts, with the farthest of them where there are fewer than k.

        Raises:
            InputError: no texts, or numbers that are not finite.
        """
        return cls(unit_length(checked(embeddings)).astype(np.float32), min(k, len(embeddings)))

    def score(self, embeddings: Embeddings) -> FloatArray:
        """Return the distance of each of N texts, (N,), from 0 to 2."""
        likeness = unit_length(checked(embeddings)).astype(np.float32) @ self.reference.T
        kth = np.partition(likeness, -self.k, axis=1)[:, -self.k].astype(np.float64)
        # Of vectors of length one, |a - b|^2 = 2 - 2 ab.
        return np.asarray(np.sqrt(np.maximum(2 - 2 * kth, 0.0)))


@dataclass(frozen=True)
class Embedded:
    """Texts as a language model sees them, at two depths.

    Args:
        last: (N, D), the model's embeddings, pooled of its last hidden states: what a text is about.
        middle: (N, E), averages of the hidden states half-way up: how it is put.

    Raises:
        InputError: the two are not of as many texts.
    """

    last: Embeddings
    middle: Embeddings

    def __post_init__(self) -> None:
        if len(self.last) != len(self.middle):
            raise InputError(
                f"expected both depths of each text, got {len(self.last)} and {len(self.middle)}"
            )

    def __len__(self) -> int:
        return len(self.last)

    def take(self, rows: IntArray | slice) -> Embedded:
        """Return the texts at these rows."""
        return Embedded(self.last[rows], self.middle[rows])


@dataclass(frozen=True)
class TwoDepths:
    """How far a text lies from the training texts in what it says and in how it is put, added up.

    The first is the distance to the nearest neighbours among the last embeddings, the second the Mahalanobis
    distance of the middle ones, made of length one, to the middle of all training texts. Each is told in
    standard deviations from what is usual for training texts beside others. Distances at several depths
    of a network were first added up by Lee et al. 2018 (https://arxiv.org/abs/1807.03888).

    Args:
        last: nearest neighbours of the last embeddings.
        middle: distances of the middle ones.
        usual: mean and standard deviation of either, of training texts from others.
    """

    last: NearestNeighbours
    middle: Mahalanobis
    usual: tuple[tuple[float, float], tuple[float, float]]

    @classmethod
    def fit(cls, texts: Embedded) -> TwoDepths:
        """Return the scorer of training texts.

        Raises:
            InputError: no texts, or numbers that are not finite.
        """
        # Of the texts that it was fitted on themselves, a distance says too little.
        held_out = np.arange(len(texts)) % HELD_OUT == 0
        others = texts.take(np.flatnonzero(~held_out)) if len(texts) > 1 else texts
        parts = _distances(_depths(others), texts.take(np.flatnonzero(held_out)))
        first, second = ((float(own.mean()), float(own.std()) or 1.0) for own in parts)
        return cls(*_depths(texts), (first, second))

    def score(self, texts: Embedded) -> FloatArray:
        """Return the sum for each of N texts, (N,), about 0 for a usual one."""
        parts = _distances((self.last, self.middle), texts)
        return np.asarray(
            sum((own - mean) / deviation for own, (mean, deviation) in zip(parts, self.usual, strict=True))
        )


def _depths(texts: Embedded) -> tuple[NearestNeighbours, Mahalanobis]:
    """Return what has seen training texts at either depth."""
    one_class = np.zeros(len(texts), dtype=np.int64)
    middle = Mahalanobis.fit(unit_length(checked(texts.middle)), one_class)
    return NearestNeighbours.fit(texts.last, one_class), middle


def _distances(
    depths: tuple[NearestNeighbours, Mahalanobis], texts: Embedded
) -> tuple[FloatArray, FloatArray]:
    """Return the distances of each of N texts at either depth, (N,) each."""
    last, middle = depths
    return last.score(texts.last), middle.score(unit_length(checked(texts.middle)))


def checked(embeddings: Embeddings) -> FloatArray:
    """Return embeddings as float64, (N, D).

    Raises:
        InputError: no rows, another shape, or numbers that are not finite.
    """
    z = np.asarray(embeddings, dtype=np.float64)
    if z.ndim != 2 or not len(z):
        raise InputError(f"expected embeddings of one text or more, (N, D), got shape {z.shape}")
    if not np.isfinite(z).all():
        raise InputError("expected finite embeddings, got NaN or infinity")
    return z


def unit_length(embeddings: FloatArray) -> FloatArray:
    """Return each row divided by its length; a row of zeros stays."""
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return embeddings / np.where(lengths > 0, lengths, 1.0)


def shrunk_covariance(deviations: FloatArray) -> FloatArray:
    """Return the covariance of deviations from their means, (N, D), shrunk as Ledoit and Wolf say, (D, D).

    (1 - s) S + s m I, S the empirical covariance (divided by N), m its mean variance, and s in [0, 1] what
    makes the expected squared error least. Where nothing varies it is the identity.
    """
    N, D = deviations.shape
    empirical = deviations.T @ deviations / N
    variance = np.trace(empirical) / D
    if variance == 0:
        return np.eye(D)
    squares = deviations**2
    spread = ((empirical - variance * np.eye(D)) ** 2).sum()
    # Sum over all entries of their sampling variance.
    error = ((squares.T @ squares).sum() / N - (empirical**2).sum()) / N
    share = min(max(error, 0.0) / spread, 1.0) if spread > 0 else 1.0
    return np.asarray((1 - share) * empirical + share * variance * np.eye(D))


def _whitening(covariance: FloatArray) -> FloatArray:
    """Return the matrix that turns rows of this covariance into rows whose covariance is the identity."""
    D = len(covariance)
    # What hardly varies at all must not divide by zero.
    lower = cholesky(covariance + 1e-10 * np.trace(covariance) / D * np.eye(D), lower=True)
    return np.asarray(solve_triangular(lower, np.eye(D), lower=True).T)
