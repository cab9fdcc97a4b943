"""A prompt's preference for some classes, found and removed without a label, and class shares that are known.

A prompted model says some words more readily than others, whatever the text. Its log-probabilities are
shifted by a constant a class, the bias, which is found for each member from texts whose labels nobody
knows; then the shares of the classes, where they are given or estimated, are put in its place.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from credibly.errors import InputError
from credibly.records import Predictions, normalised_log_probs
from credibly.uncertainty.numerics import log_of, log_softmax, probs_of

FloatArray = NDArray[np.float64]

CONTENT_FREE = ("N/A", "[MASK]", "")
"""Texts that say nothing."""
SMALLEST_CHANGE, CLOSE = 1e-8, 1e-3
MOST_STEPS = 500
SOFTNESS = (1.0, 0.25, 0.05)
"""Of labels, beside the spread of the log-probabilities, one after the other."""
RIDGE = 1e-6
ROUNDING = 1e-13
"""Of the whole variance: what is left of it within classes is a difference, known no better than so."""


def content_free_bias(log_probs: ArrayLike) -> FloatArray:
    """Return the bias that texts without content show, float64, (M, C), mean zero over the classes.

    Zhao et al. 2021 (https://arxiv.org/abs/2102.09690): the log of the mean probabilities, which they
    divide by. They average three inputs ("N/A", "[MASK]" and the empty string), as here the caller does.

    Args:
        log_probs: (M, K, C), of K inputs that say nothing.
    """
    return _centred(log_of(probs_of(log_probs).mean(axis=1)))


@dataclass(frozen=True)
class BatchBias:
    """The mean log-probability of each class over all texts seen, which in a stream grows as they come.

    Batch calibration (Zhou et al. 2023, https://arxiv.org/abs/2309.17249). They take the mean of the
    probabilities; the mean of their logarithms is as good and not moved by how sure the model is. That it
    should be the same for each class holds where the classes are about equally frequent.

    Args:
        total: float64, (M, C), sum of log-probabilities.
        count: texts seen.
        warm_up: texts from which on the bias is used.
    """

    total: FloatArray
    count: int = 0
    warm_up: int = 1

    @classmethod
    def of(cls, log_probs: ArrayLike) -> BatchBias:
        """Return the bias over a whole batch, (M, N, C)."""
        array = np.asarray(log_probs, dtype=np.float64)
        return cls(np.zeros((array.shape[0], array.shape[2]))).seen(array)

    def seen(self, log_probs: ArrayLike) -> BatchBias:
        """Return the bias with further texts, (M, N, C), seen: equal to that over all of them at once."""
        own = log_softmax(log_probs)
        return replace(self, total=self.total + own.sum(axis=1), count=self.count + own.shape[1])

    @property
    def ready(self) -> bool:
        """Whether enough texts were seen."""
        return self.count >= self.warm_up

    @property
    def bias(self) -> FloatArray:
        """float64, (M, C), mean zero over the classes.

        Raises:
            InputError: fewer texts were seen than `warm_up`.
        """
        if not self.ready or not self.count:
            raise InputError(
                f"expected {self.warm_up:,} texts or more to find the prompts' bias, got {self.count:,}; "
                "give more, or take content-free texts for it"
            )
        return _centred(self.total / self.count)


def batch_bias(log_probs: ArrayLike, strata: ArrayLike) -> FloatArray:
    """Return the bias of each stratum of a whole batch, float64, (M, K, C), as `BatchBias` finds it.

    Args:
        log_probs: (M, N, C).
        strata: (N,), each text's stratum, from 0 to K - 1, none without a text.
    """
    array, places = np.asarray(log_probs, dtype=np.float64), np.asarray(strata)
    parts = [array[:, places == place] for place in range(int(places.max()) + 1)]
    return np.stack([BatchBias.of(part).bias for part in parts], axis=1)


def share_between(log_probs: ArrayLike, strata: ArrayLike) -> float:
    """Return how much of the variance of log-ratios lies between strata, in [0, 1]; 0 where there is none.

    Args:
        log_probs: (M, N, C).
        strata: (N,), each text's stratum, from 0 to K - 1, none without a text.
    """
    z, places = _centred(log_softmax(log_probs)), np.asarray(strata)
    apart = z - z.mean(axis=1, keepdims=True)
    means = batch_bias(z, places) - z.mean(axis=1, keepdims=True)
    between = float((np.bincount(places)[None, :, None] * means**2).sum())
    whole = float((apart**2).sum())
    return min(between / whole, 1.0) if whole > 0 else 0.0


def _centred(values: FloatArray) -> FloatArray:
    return np.asarray(values - values.mean(axis=-1, keepdims=True))


def without_bias(predictions: Predictions, bias: ArrayLike) -> Predictions:
    """Return a record whose members' biases, (M, C) or (M, N, C), are taken off their log-probabilities."""
    taken = np.asarray(bias, dtype=np.float64)
    shifted = predictions.log_probs.astype(np.float64) - (taken[:, None] if taken.ndim == 2 else taken)
    return replace(predictions, log_probs=normalised_log_probs(shifted))


def with_shares(predictions: Predictions, shares: ArrayLike) -> Predictions:
    """Return a record whose members each give every class this share, (C,), of their labels.

    Each member's log-probabilities are shifted by a constant a class. Multiplying by the shares, as by Bayes'
    rule, would do for members that are as sure as they ought to be: prompts that waver give every text to
    the most frequent class then, and those that are too sure move by nothing. That as many texts be labelled
    with a class as are of it, holds however sure they are.
    """
    return without_bias(predictions, -share_shifts(predictions, shares))


def share_shifts(predictions: Predictions, shares: ArrayLike) -> FloatArray:
    """Return what `with_shares` adds to each member's log-probabilities, float64, (M, C)."""
    return np.stack([share_shift(member, shares) for member in predictions.log_probs.astype(np.float64)])


def share_shift(log_probs: ArrayLike, shares: ArrayLike) -> FloatArray:
    """Return what to add to log-probabilities, (N, C), for labels in these shares, float64, (C,).

    The labels are softened, in the end by little beside the spread of the log-probabilities, so that the
    shift is the one solution of a concave problem; each step moves every class by the log of what it lacks.
    """
    z = log_softmax(log_probs)
    spread = max(float((z - z.mean(axis=0)).std()), SMALLEST_CHANGE)
    wanted, shift = log_of(shares), np.zeros(z.shape[1])
    for softness in spread * np.array(SOFTNESS):
        for _ in range(MOST_STEPS):
            lacking = wanted - log_of(np.exp(log_softmax((z + shift) / softness)).mean(axis=0))
            shift = shift + softness * lacking
            if np.abs(lacking).max() < CLOSE:
                break
    return np.asarray(shift - shift.mean())


def checked_prior(prior: ArrayLike, C: int) -> FloatArray:
    """Return class shares, float64, (C,), that sum to one.

    Raises:
        InputError: they are not C, one is not above zero, or they do not sum to one within 0.01.
    """
    shares = np.asarray(prior, dtype=np.float64)
    if shares.shape != (C,) or not (shares > 0).all() or abs(shares.sum() - 1) > 0.01:
        raise InputError(
            f"expected a share above zero for each of the {C} classes, summing to one, got {shares.tolist()}"
        )
    return np.asarray(shares / shares.sum())


def estimated_shares(predictions: Predictions) -> FloatArray:
    """Return the class shares that the members' log-probabilities show by how they lie, float64, (C,).

    Texts of one class lie together: a mixture of C Gaussians with one covariance is fitted to the members'
    mean log-ratios by expectation maximisation, as Han et al. 2022 (https://arxiv.org/abs/2205.10183) do; its
    weights are the shares. It begins with the texts as the record labels them.

    The estimate of Saerens et al. 2002 (https://doi.org/10.1162/089976602753284446) takes probabilities for
    right that need but a prior. Prompts' are not: where their bias is found on the same texts it has the
    shares in it, so that nothing would be left to find.
    """
    z = np.mean([log_softmax(member) for member in predictions.log_probs], axis=0)
    scores = z @ _contrasts(z.shape[1])
    resting = np.eye(z.shape[1])[z.argmax(axis=1)]
    for _ in range(MOST_STEPS):
        shares, belonging = resting.mean(axis=0), _belonging(scores, resting)
        if np.abs(belonging - resting).max() < CLOSE:
            break
        resting = belonging
    return np.asarray(shares)


def _contrasts(C: int) -> FloatArray:
    """Return C - 1 directions, (C, C - 1), orthonormal, that leave out what all classes have in common."""
    return np.asarray(np.linalg.svd(np.eye(C) - 1 / C)[0][:, : C - 1])


def _belonging(scores: FloatArray, resting: FloatArray) -> FloatArray:
    """Return one step of the mixture: each text's probability of each class, (N, C), by those before.

    All is products of matrices, none of them larger than (N, C): for many classes there are many steps.
    """
    weights = resting.sum(axis=0)
    centre = scores.mean(axis=0)
    centred = scores - centre
    means = (resting.T @ scores) / np.maximum(weights, SMALLEST_CHANGE)[:, None] - centre
    total, cross = centred.T @ centred / len(scores), (resting.T @ centred).T @ means
    # All three terms of the square: of a class of hardly any weight the mean is none.
    covariance = total - (cross + cross.T - (means.T * weights) @ means) / len(scores)
    ridge = RIDGE * (max(np.trace(covariance), 0.0) + SMALLEST_CHANGE) + ROUNDING * np.trace(total)
    whitening = np.linalg.inv(np.linalg.cholesky(covariance + ridge * np.eye(len(covariance)))).T
    a, b = centred @ whitening, means @ whitening
    # Half the squared distance |a|^2 + |b|^2 - 2ab, but for |a|^2, which is the same for all classes.
    return np.exp(log_softmax(log_of(weights / len(scores)) + a @ b.T - (b**2).sum(axis=1) / 2))


def _above_zero(shares: FloatArray, N: int) -> FloatArray:
    """Return shares, (C,), of which none is below that of half a text of N: fewer are not told from none."""
    floored = np.maximum(shares, 0.5 / max(1, N))
    return np.asarray(floored / floored.sum())


@dataclass(frozen=True)
class Corrections:
    """What prompts say, side by side: as they said it, without their bias, and for known class shares.

    Args:
        raw: as it was said.
        corrected: without the bias.
        prior_corrected: for class shares that are not equal; None where none are given.
        moved: float64, (M, C), what was then added for class shares that are not equal.
        prior: float64, (C,), the class shares; None where equal ones are assumed.
        estimated: float64, (C,), the class shares that `corrected` shows.
    """

    raw: Predictions
    corrected: Predictions
    prior_corrected: Predictions | None
    moved: FloatArray
    prior: FloatArray | None
    estimated: FloatArray

    @property
    def systems(self) -> dict[str, Predictions]:
        """All records by name, the one to use last."""
        systems = {"raw": self.raw, "corrected": self.corrected}
        last = self.prior_corrected
        return systems if last is None else {**systems, "prior_corrected": last}

    @property
    def final(self) -> Predictions:
        """The record to use."""
        return self.corrected if self.prior_corrected is None else self.prior_corrected


def correct(raw: Predictions, bias: ArrayLike, prior: ArrayLike | Literal["estimate"] | None) -> Corrections:
    """Take a bias off a record, and give classes their shares where those are given or to be estimated.

    Args:
        raw: of M prompts.
        bias: (M, C), or (M, N, C) where each text has its own.
        prior: (C,), or "estimate", or None for equal shares. An estimate gives no class less than the share
            of half a text: one that is nobody's likeliest is rare, and may still come.

    Raises:
        InputError: as `checked_prior`.
    """
    corrected = without_bias(raw, bias)
    estimated = estimated_shares(corrected)
    shares = _above_zero(estimated, raw.shape[1]) if isinstance(prior, str) else prior
    checked = None if shares is None else checked_prior(shares, raw.shape[2])
    if checked is None:
        return Corrections(raw, corrected, None, np.zeros((raw.shape[0], raw.shape[2])), None, estimated)
    moved = share_shifts(corrected, checked)
    return Corrections(raw, corrected, without_bias(corrected, -moved), moved, checked, estimated)
