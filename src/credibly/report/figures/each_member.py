"""The members one by one, where `single` is their mean: which are better, and what does each get right?

Intervals by formula, so that hundreds of members on many rows cost nothing: Wilson's for shares, the normal
one for the mean loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from credibly.records import UNKNOWN, Interval
from credibly.report.figures.curves import wilson
from credibly.report.figures.types import Json
from credibly.uncertainty.numerics import log_of
from credibly.uncertainty.scoring.mean_losses import unseen_variance
from credibly.uncertainty.systems import Answer

Floats = NDArray[np.float64]


def each_member(answers: Sequence[Answer], names: Sequence[str], confidence: float) -> list[Json]:
    """Return every member's accuracy, mean NLL in nats, and precision and recall by class, with intervals.

    Args:
        answers: one a member, on the same rows; rows of unknown label are left out.
        names: what the members are called.
        confidence: of the intervals.

    Returns:
        A dictionary a member: ``name``, ``accuracy``, ``nll``, and ``classes``, each with ``precision`` and
        ``recall``; None where a class was never predicted or has no rows, or no label is known.
    """
    return [
        {"name": name, **_figures(answer, confidence)} for name, answer in zip(names, answers, strict=True)
    ]


def _figures(answer: Answer, confidence: float) -> Json:
    known = answer.labels != UNKNOWN
    labels, predicted = answer.labels[known], answer.predicted[known]
    hits = labels == predicted
    return {
        "accuracy": _share(hits, confidence),
        "nll": _loss(answer.probs[known], labels, ~hits, confidence),
        "classes": {
            name: {
                "precision": _share(hits[predicted == place], confidence),
                "recall": _share(hits[labels == place], confidence),
            }
            for place, name in enumerate(answer.class_names)
        },
    }


def _share(hits: NDArray[np.bool_], confidence: float) -> Json:
    if not len(hits):
        return Interval(None).as_json()
    low, high = wilson(np.array([float(hits.sum())]), np.array([float(len(hits))]), confidence)
    return Interval(float(hits.mean()), float(low[0]), float(high[0])).as_json()


def _loss(probs: Floats, labels: NDArray[np.int64], wrong: NDArray[np.bool_], confidence: float) -> Json:
    """Return the mean NLL with its normal interval, mistakes allowed for that these rows do not show."""
    N = len(labels)
    if N < 2:
        return Interval(None).as_json()
    by_label = -log_of(probs)
    losses = by_label[np.arange(N), labels]
    seen = float(losses.var(ddof=1)) / N
    half = NormalDist().inv_cdf((1 + confidence) / 2) * np.sqrt(
        seen + unseen_variance(by_label, probs, wrong, seen)
    )
    mean = float(losses.mean())
    return Interval(mean, max(mean - float(half), 0.0), mean + float(half)).as_json()
