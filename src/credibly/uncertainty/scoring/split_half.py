"""How far halves of an ensemble doubt the same texts: what a student's doubts can be held against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from credibly.records import Interval, Predictions
from credibly.uncertainty.decompose import KINDS, Uncertainty, decompose
from credibly.uncertainty.scoring.clusters import units_of
from credibly.uncertainty.scoring.influence import Influence, spearman_influence
from credibly.uncertainty.scoring.resampling import Resampling

FloatArray = NDArray[np.float64]

FEWEST_MEMBERS = 6
"""With fewer, halves of two understate it: by 0.08 for epistemic uncertainty, halves of three by 0.03."""
HALVINGS = 10


def agreement_of_halves(predictions: Predictions, resampling: Resampling) -> dict[str, Interval]:
    """Return how the uncertainties of two ensembles of M such members would correlate, by kind.

    The members are parted at random into two halves, several times, and Spearman's rank correlation of what
    the halves say of the same texts, averaged, is carried over to M members by the formula of Spearman (1910,
    https://doi.org/10.1111/j.2044-8295.1910.tb00206.x) and Brown. Members of one training have that in common
    with those of the other half, so that ensembles of two trainings would agree less. Intervals are over
    texts, to first order (`influence`), and not over members.

    Args:
        predictions: of M members, six or more.
        resampling: of the texts; its seed also parts the members.

    Returns:
        The correlation for total, aleatoric and epistemic uncertainty, each from 0 (nothing in common) to 1;
        None where a half says the same of every text. Empty where there are too few members.
    """
    M = len(predictions.log_probs)
    if M < FEWEST_MEMBERS:
        return {}
    random = np.random.default_rng(resampling.seed)
    pairs = [_halves(predictions, random.permutation(M)) for _ in range(HALVINGS)]
    found = {kind: _mean_correlation(pairs, kind) for kind in KINDS}
    samples = _resampled({kind: own for kind, own in found.items() if own}, predictions, resampling)
    times = M / (M // 2)
    return {
        kind: Interval(
            lengthened(np.array(own[0]), times).item(), *resampling.ends(lengthened(samples[kind], times))
        )
        if own
        else Interval(None)
        for kind, own in found.items()
    }


def lengthened(correlation: FloatArray, times: float) -> FloatArray:
    """Return what a correlation becomes where both measures are made of so many times as many parts.

    >>> lengthened(np.array([-0.1, 0.0, 0.5, 1.0]), 2.0).round(3)
    array([0.   , 0.   , 0.667, 1.   ])
    """
    positive = np.maximum(correlation, 0.0)
    return np.asarray(times * positive / (1 + (times - 1) * positive))


def _halves(predictions: Predictions, order: NDArray[np.int64]) -> tuple[Uncertainty, Uncertainty]:
    half = len(order) // 2

    def of(members: NDArray[np.int64]) -> Uncertainty:
        return decompose(replace(predictions, log_probs=predictions.log_probs[members]))

    return of(order[:half]), of(order[half : 2 * half])


def _mean_correlation(pairs: list[tuple[Uncertainty, Uncertainty]], kind: str) -> Influence | None:
    """Return the mean over pairs of Spearman's correlation, with its influence; None where one has none."""
    values = [[getattr(half, kind) for half in pair] for pair in pairs]
    if any(np.ptp(own) == 0 for pair in values for own in pair):
        return None
    found = [spearman_influence(*(np.unique(own, return_inverse=True)[1] for own in pair)) for pair in values]
    return float(np.mean([value for value, _ in found])), np.mean([change for _, change in found], axis=0)


def _resampled(
    found: Mapping[str, Influence], predictions: Predictions, resampling: Resampling
) -> dict[str, FloatArray]:
    """Return correlations on every resample of the texts, (R,) by kind."""
    if not found:
        return {}
    changes = np.stack([change for _, change in found.values()])
    chunks = resampling.chunks(len(predictions.ids), units_of(predictions.groups))
    moved = np.concatenate([changes @ (counts - 1) for counts in chunks], axis=1)
    return {kind: own[0] + by for (kind, own), by in zip(found.items(), moved, strict=True)}
