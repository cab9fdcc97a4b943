"""The only place where members are averaged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from credibly.errors import InputError, did_you_mean
from credibly.records import Predictions, log_of_probs
from credibly.uncertainty.numerics import log_softmax, probs_of, votes_of

FloatArray = NDArray[np.float64]

RULES: tuple[str, ...] = ("mean_probs", "mean_logits", "majority_vote")
"""How members can be combined; the mean of their probabilities unless another is named."""


def combine(
    predictions: Predictions, rule: str = "mean_probs", weights: ArrayLike | None = None
) -> FloatArray:
    """Return one prediction a row, float64, (N, C), probabilities, each row normalised.

    - ``mean_probs``: the mean of the members' probabilities (Lakshminarayanan et al. 2017,
      https://arxiv.org/abs/1612.01474).
    - ``mean_logits``: the softmax of the mean of the members' logits, which is the normalised
      geometric mean of their probabilities.
    - ``majority_vote``: each member votes for its most probable class, and where several are divides its
      vote among them; the shares are (votes + 1) / (M + C), Laplace's rule, so that no class has
      probability zero and the NLL stays finite. Of classes with equal votes ``argmax`` gives the lowest
      index.

    A system that emits a Dirichlet is one member, and its mean is what it predicts.

    Args:
        predictions: M members.
        rule: one of `RULES`.
        weights: (M,), non-negative, of any positive sum; equal weights if left out. Under
            ``majority_vote`` they are scaled to sum to M.

    Raises:
        InputError: an unknown rule, or weights that do not fit.
    """
    M, _, _ = predictions.shape
    check_rule(rule)
    shares = checked_weights(weights, M)
    if rule == "majority_vote":
        return _vote_shares(predictions, shares)
    if predictions.concentrations is not None:
        alpha = predictions.concentrations.astype(np.float64)
        return np.asarray(alpha / alpha.sum(axis=-1, keepdims=True))
    if rule == "mean_logits":
        return _mean_logits(predictions, shares)
    return _mean_probs(predictions, shares)


def averaged(predictions: Predictions, rule: str = "mean_probs") -> Predictions:
    """Return the record of one member, (1, N, C), that says what the members say combined.

    A Dirichlet's concentrations are gone: its mean is the member.

    Args:
        predictions: M members.
        rule: one of `RULES`.

    Raises:
        InputError: an unknown rule.
    """
    log_probs = log_of_probs(combine(predictions, rule))[None]
    return replace(predictions, log_probs=log_probs, concentrations=None)


def check_rule(rule: str) -> None:
    """Raise InputError unless a rule is one of `RULES`."""
    if rule not in RULES:
        raise InputError(
            f"unknown rule '{rule}'{did_you_mean(rule, RULES)}; expected one of {', '.join(RULES)}"
        )


def checked_weights(weights: ArrayLike | None, M: int) -> FloatArray:
    """Return member weights, float64, (M,), that sum to one.

    Raises:
        InputError: wrong shape, negative, not finite, or all zero.
    """
    if weights is None:
        return np.full(M, 1 / M)
    array = np.asarray(weights, dtype=np.float64)
    if array.shape != (M,):
        raise InputError(f"expected one weight a member, shape ({M},), got shape {array.shape}")
    if not np.isfinite(array).all() or (array < 0).any() or array.sum() <= 0:
        raise InputError(f"expected finite weights >= 0 with a positive sum, got {array.tolist()}")
    return np.asarray(array / array.sum())


def _mean_probs(predictions: Predictions, shares: FloatArray) -> FloatArray:
    # Member by member, so that memory stays at (N, C) for any number of members.
    total = np.zeros(predictions.shape[1:])
    for share, log_probs in zip(shares, predictions.log_probs, strict=True):
        total += share * probs_of(log_probs)
    return np.asarray(total / total.sum(axis=-1, keepdims=True))


def _mean_logits(predictions: Predictions, shares: FloatArray) -> FloatArray:
    total = np.zeros(predictions.shape[1:])
    for share, log_probs in zip(shares, predictions.log_probs, strict=True):
        total += share * log_probs.astype(np.float64)
    return np.exp(log_softmax(total))


def _vote_shares(predictions: Predictions, shares: FloatArray) -> FloatArray:
    M, N, C = predictions.shape
    votes = np.zeros((N, C))
    equal = bool(np.ptp(shares) == 0)
    for share, log_probs in zip(shares, predictions.log_probs, strict=True):
        # Whole votes for equal members: sums of 1/M would break ties by rounding.
        votes += (1.0 if equal else M * share) * votes_of(log_probs)
    return (votes + 1) / (M + C)
