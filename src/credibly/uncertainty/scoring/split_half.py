"""How far members' doubts would come out the same with other members: what a student can be held to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from credibly.records import Interval, Predictions
from credibly.uncertainty.decompose import KINDS, Uncertainty, decompose
from credibly.uncertainty.scoring.clusters import units_of
from credibly.uncertainty.scoring.ranks import spearman
from credibly.uncertainty.scoring.resampling import Resampling

FloatArray = NDArray[np.float64]

FEWEST_MEMBERS = 6
"""Halves of two overstate how ensembles differ, by 0.08 for epistemic uncertainty; those of three by 0.03."""
HALVINGS = 10


def agreement_of_ensembles(predictions: Predictions, resampling: Resampling) -> dict[str, Interval]:
    """Return how the uncertainty of M members would correlate with that of M others trained alike, by kind.

    The members are parted at random into two halves, several times, and Spearman's rank correlation of what
    the halves say of the same texts, averaged, is carried over to M members by the formula of Spearman (1910,
    https://doi.org/10.1111/j.2044-8295.1910.tb00206.x) and Brown. Intervals are over texts.

    Args:
        predictions: of M members, six or more.
        resampling: of the texts; its seed also parts the members.

    Returns:
        The correlation for total, aleatoric and epistemic uncertainty, each from 0 (nothing in common) to 1;
        None where a half says the same of every text. Empty where there are too few members.
    """
    M, N, _ = predictions.shape
    if M < FEWEST_MEMBERS:
        return {}
    pairs = [_halves(predictions, order) for order in _orders(M, resampling.seed)]
    longer = M / (M // 2)

    def correlation(kind: str) -> Interval:
        weighted = [spearman(getattr(one, kind), getattr(other, kind)) for one, other in pairs]

        def of_all(counts: FloatArray) -> FloatArray:
            found = np.maximum(np.mean([each(counts) for each in weighted], axis=0), 0.0)
            return lengthened(found, longer)

        value = float(of_all(np.ones((N, 1)))[0])
        if not np.isfinite(value):
            return Interval(None)
        chunks = resampling.chunks(N, units_of(predictions.groups))
        return Interval(value, *resampling.ends(np.concatenate([of_all(counts) for counts in chunks])))

    return {kind: correlation(kind) for kind in KINDS}


def lengthened(correlation: FloatArray, times: float) -> FloatArray:
    """Return what a correlation of two measures becomes where both are made of so many times as many parts.

    >>> lengthened(np.array([0.0, 0.5, 1.0]), 2.0).round(3)
    array([0.   , 0.667, 1.   ])
    """
    return times * correlation / (1 + (times - 1) * correlation)


def _orders(M: int, seed: int) -> list[NDArray[np.int64]]:
    random = np.random.default_rng(seed)
    return [random.permutation(M) for _ in range(HALVINGS)]


def _halves(predictions: Predictions, order: NDArray[np.int64]) -> tuple[Uncertainty, Uncertainty]:
    half = len(order) // 2

    def of(members: NDArray[np.int64]) -> Uncertainty:
        return decompose(replace(predictions, log_probs=predictions.log_probs[members]))

    return of(order[:half]), of(order[half : 2 * half])
