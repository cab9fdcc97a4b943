"""Where calibration fails: groups of rows on which an answer is surer, or less sure, than it is right."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from credibly.errors import InputError
from credibly.records import UNKNOWN, IntArray, Interval
from credibly.uncertainty.scoring.clusters import units_of, widening
from credibly.uncertainty.scoring.resampling import Resampling
from credibly.uncertainty.systems import Answer

FloatArray = NDArray[np.float64]
Masks = Mapping[tuple[str, str], NDArray[np.bool_]]

FEWEST_ROWS = 30
"""Smaller slices are left out: of them hardly anything could be told."""
LEAST_VARIANCE = 5.0
"""Of the number of right answers: where hardly a mistake is expected, one would look like an alarm."""
MOST_GROUPS = 20
"""Of the groups the largest so many are looked at."""
QUARTERS = ("shortest quarter", "second quarter", "third quarter", "longest quarter")


@dataclass(frozen=True)
class Slice:
    """Calibration in the large of one slice.

    Args:
        kind: "predicted class", "group" or "length".
        name: of the slice.
        rows: of known label.
        confidence: the mean probability of the predicted class.
        accuracy: the share of right answers.
        gap: confidence - accuracy, with its interval: above zero the answer is too sure.
        p: two-sided p-value of the gap if the probabilities hold.
        adjusted_p: corrected for the number of slices.
    """

    kind: str
    name: str
    rows: int
    confidence: float
    accuracy: float
    gap: Interval
    p: float
    adjusted_p: float

    def as_json(self) -> dict[str, Any]:
        """Return the slice as report.json holds it."""
        return {**vars(self), "gap": self.gap.as_json()}


def slices(
    answer: Answer,
    groups: Sequence[str] | None = None,
    lengths: Sequence[int] | None = None,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> list[Slice]:
    """Return how well calibrated an answer is by predicted class, group and length of text.

    If the probabilities hold, the number of right answers in a slice is a sum of independent draws with
    probabilities p; its distribution is the normal one, corrected for skewness and steps (Volkova 1996,
    https://doi.org/10.1137/1140093), and widened where rows come in groups. Slices of fewer than 30 rows, or
    in which the variance sum p (1 - p) is under 5 (hardly a mistake is expected), are left out. The p-values
    are adjusted by Holm's method (1979, https://www.jstor.org/stable/4615733), so that under 0.05 any false
    alarm among all slices has a chance of 5 % at most.

    Args:
        answer: of one system; rows of unknown label are left out.
        groups: N names.
        lengths: N numbers, cut into quarters.
        resamples: of the bootstrap intervals of the gaps.
        confidence: of these intervals.
        seed: of the resamples.

    Raises:
        InputError: there are not as many groups or lengths as rows.
    """
    resampling = Resampling(resamples, confidence, seed)
    known = np.asarray(answer.labels) != UNKNOWN
    gap = answer.confidence - (answer.predicted == answer.labels)
    variance = answer.confidence * (1 - answer.confidence)
    masks = {
        place: mask & known
        for place, mask in _masks(answer, groups, lengths)
        if (mask & known).sum() >= FEWEST_ROWS and variance[mask & known].sum() >= LEAST_VARIANCE
    }
    right = answer.predicted == answer.labels
    units = [units_of(None if answer.groups is None else answer.groups[mask]) for mask in masks.values()]
    p = [
        chance_of_as_far(answer.confidence[mask], int(right[mask].sum()), widening(gap[mask], own))
        for mask, own in zip(masks.values(), units, strict=True)
    ]
    return [
        Slice(
            kind=kind,
            name=name,
            rows=int(mask.sum()),
            confidence=float(answer.confidence[mask].mean()),
            accuracy=float((answer.predicted == answer.labels)[mask].mean()),
            gap=_mean(gap[mask], resampling, own),
            p=chance,
            adjusted_p=adjusted,
        )
        for ((kind, name), mask), own, chance, adjusted in zip(masks.items(), units, p, holm(p), strict=True)
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted by Holm's method.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    factors = np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1.0)
    return [float(value) for value in adjusted]


def _masks(
    answer: Answer, groups: Sequence[str] | None, lengths: Sequence[int] | None
) -> Iterator[tuple[tuple[str, str], NDArray[np.bool_]]]:
    for place, name in enumerate(answer.class_names):
        yield ("predicted class", name), answer.predicted == place
    for what, given in (("groups", groups), ("lengths", lengths)):
        if given is not None and len(given) != len(answer.ids):
            raise InputError(f"expected {len(answer.ids)} {what}, one a row, got {len(given)}")
    if groups is not None:
        names, sizes = np.unique(np.asarray(groups, dtype=object).astype(str), return_counts=True)
        for name in names[np.argsort(-sizes, kind="stable")][:MOST_GROUPS]:
            yield ("group", str(name)), np.array([own == name for own in groups])
    if lengths is not None and len(lengths):
        quarter = np.searchsorted(np.quantile(lengths, [0.25, 0.5, 0.75]), np.asarray(lengths))
        for place, name in enumerate(QUARTERS):
            yield ("length", name), quarter == place


def chance_of_as_far(confidence: FloatArray, right: int, by: float = 1.0) -> float:
    """Return the two-sided p-value of so many right answers if each is right with its confidence, (N,).

    Args:
        confidence: of each row's answer.
        right: how many are.
        by: how much wider their number's distribution is where rows come in groups (`widening`); of that
            the skewness is not known, and it is left out.
    """
    variance = confidence * (1 - confidence)
    alone = np.sqrt(variance.sum())
    deviation = by * alone
    skewness = (variance * (1 - 2 * confidence)).sum() / alone**3 if by == 1 else 0.0

    def at_most(count: int) -> float:
        x = (count + 0.5 - confidence.sum()) / deviation
        density = np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
        return float(np.clip(ndtr(x) + skewness * (1 - x**2) * density / 6, 0.0, 1.0))

    return min(1.0, 2 * min(at_most(right), 1 - at_most(right - 1)))


def _mean(values: FloatArray, resampling: Resampling, units: IntArray | None) -> Interval:
    """Return the mean of values, (N,), with its interval; rows of one unit, (N,), are drawn as one."""
    chunks = resampling.chunks(len(values), units)
    samples = [values @ counts / counts.sum(axis=0) for counts in chunks]
    return Interval(float(values.mean()), *resampling.ends(np.concatenate(samples)))
