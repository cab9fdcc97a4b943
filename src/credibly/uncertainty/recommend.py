"""Which of several candidates to use: the cheapest that held-out losses do not show to be worse.

A rule in the spirit of "one standard error" (Breiman et al. 1984, Classification and Regression Trees,
section 3.4.3), with paired losses: what makes a row hard for all candidates alike cancels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from credibly.errors import InputError
from credibly.records import IntArray, Interval
from credibly.uncertainty.scoring.clusters import clusters_of, standard_error
from credibly.uncertainty.scoring.mean_losses import unseen_variance
from credibly.uncertainty.scoring.slices import holm

FloatArray = NDArray[np.float64]

SAME_COST = 1.1
"""Costs less than a tenth apart count as equal, for so they are measured; the losses decide between them."""


@dataclass(frozen=True)
class Behind:
    """How far a candidate's mean loss lies above the least.

    Args:
        difference: its mean loss less the least, with its interval.
        adjusted_p: two-sided, of no difference, by Holm's method for all candidates; None for the best.
    """

    difference: Interval
    adjusted_p: float | None


@dataclass(frozen=True)
class Recommendation:
    """What is recommended, and why.

    Args:
        chosen: the cheapest candidate that is not shown to be worse than the best; of several that cost about
            as little, the one of the least loss.
        best: the candidate of the least mean loss.
        behind: each candidate's distance from the best, in the order given.
        as_good: those that are not shown to be worse, the cheapest first.
    """

    chosen: str
    best: str
    behind: Mapping[str, Behind]
    as_good: tuple[str, ...]


def recommend(
    losses: Mapping[str, FloatArray],
    costs: Mapping[str, float | None],
    confidence: float = 0.95,
    groups: Sequence[str] | None = None,
    by_label: Mapping[str, FloatArray] | None = None,
) -> Recommendation:
    """Return the cheapest candidate whose losses are not truly above the least.

    Of several that cost less than a tenth more than the cheapest (`SAME_COST`) it is the one of the least
    mean loss. Each candidate is held against that of the least mean loss, row by row, as if the mean
    difference were normal. (The best is the best of several, so a candidate as good as it is called worse a
    little more often than said; Holm's correction makes up for more than that.)

    Args:
        losses: by candidate, (N,) each, of the same rows, which no candidate was fitted on.
        costs: of an answer; where one is None it counts as dearer than all others.
        confidence: of the intervals; 1 - confidence is the level of the test.
        groups: N names; rows of one group may depend on one another, and the standard errors allow for it
            (`scoring.clusters`). None where all are independent.
        by_label: where losses are -ln p(label), what they would be for each of the C labels, (N, C) by
            candidate: standard errors then allow for mistakes that these rows do not show
            (`scoring.mean_losses`).

    Raises:
        InputError: no candidates, fewer than two rows or groups, other numbers of rows, or losses that are
            not finite.

    >>> quick, slow = np.array([0.2, 0.4, 0.3, 0.1]), np.array([0.1, 0.3, 0.5, 0.0])
    >>> recommend({"quick": quick, "slow": slow}, {"quick": 0.01, "slow": 0.1}).chosen
    'quick'
    """
    sizes = {len(loss) for loss in losses.values()}
    if len(sizes) != 1 or min(sizes) < 2 or not all(np.isfinite(loss).all() for loss in losses.values()):
        raise InputError("expected finite losses of two rows or more, the same rows for every candidate")
    clusters = clusters_of(groups, min(sizes))
    best = min(losses, key=lambda name: float(losses[name].mean()))
    differences = {name: loss - losses[best] for name, loss in losses.items()}
    others = [name for name in losses if name != best]
    errors = {name: standard_error(own, clusters) for name, own in differences.items()}
    if by_label is not None:
        pairs = {name: ((losses[name], by_label[name]), (losses[best], by_label[best])) for name in losses}
        errors = {name: _with_unseen(errors[name], *pairs[name], clusters) for name in losses}
    p_values = holm([_p_value(differences[name], errors[name]) for name in others])
    adjusted = dict(zip(others, p_values, strict=True))
    behind = {
        name: Behind(_interval(own, errors[name], confidence), adjusted.get(name))
        for name, own in differences.items()
    }
    known = {name: np.inf if (cost := costs.get(name)) is None else cost for name in losses}
    as_good = [name for name in losses if adjusted.get(name, 1.0) >= 1 - confidence]
    as_good.sort(key=lambda name: known[name])
    near = [name for name in as_good if known[name] <= SAME_COST * known[as_good[0]]]
    chosen = min(near, key=lambda name: float(losses[name].mean()))
    return Recommendation(chosen, best, behind, tuple(as_good))


def _with_unseen(
    error: float,
    first: tuple[FloatArray, FloatArray],
    second: tuple[FloatArray, FloatArray],
    clusters: IntArray,
) -> float:
    """Return the error of a mean difference of losses, (N,) and by label (N, C), with unseen mistakes."""
    wrong = np.any([loss > by_label.min(axis=1) for loss, by_label in (first, second)], axis=0)
    share = (np.exp(-first[1]) + np.exp(-second[1])) / 2
    together = len(clusters) / (int(clusters.max()) + 1)
    return float(np.sqrt(error**2 + unseen_variance(first[1] - second[1], share, wrong, error**2, together)))


def _p_value(difference: FloatArray, error: float) -> float:
    """Return the two-sided p-value of a mean of zero, as the interval beside it is two-sided."""
    return float(2 * ndtr(-abs(difference.mean()) / error)) if error else float(difference.mean() == 0)


def _interval(difference: FloatArray, error: float, confidence: float) -> Interval:
    value, reach = float(difference.mean()), float(ndtri((1 + confidence) / 2)) * error
    return Interval(value, value - reach, value + reach)
