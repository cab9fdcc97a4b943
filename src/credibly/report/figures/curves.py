"""The points of the report's plots: reliability bins, risk-coverage, rejection, uncertainty, training.

Pure figures of what `uncertainty` answers; nothing here draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from credibly.records import UNKNOWN
from credibly.uncertainty.decompose import KINDS
from credibly.uncertainty.systems import Answer

Floats = NDArray[np.float64]

RELIABILITY_BINS = 15
MOST_POINTS = 100
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def wilson(successes: Floats, trials: Floats, confidence: float = 0.95) -> tuple[Floats, Floats]:
    """Return Wilson's score interval of a share (Wilson 1927, doi:10.1080/01621459.1927.10502953).

    Unlike the normal interval it stays inside [0, 1] and keeps its width at shares of 0 and 1.

    >>> low, high = wilson(np.array([8.0]), np.array([10.0]))
    >>> round(float(low[0]), 3), round(float(high[0]), 3)
    (0.49, 0.943)
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = successes / trials
    centre = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * np.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    # At a share of 0 or 1 the ends are exactly 0 or 1; rounding must not put the share outside them.
    return np.minimum(np.clip(centre - half, 0, 1), share), np.maximum(np.clip(centre + half, 0, 1), share)


def reliability(answers: Sequence[Answer], confidence: float) -> list[dict[str, float]]:
    """Return the filled bins of a reliability diagram: 15 of equal width in the top label's probability.

    Several answers (`single`) are pooled, and counted as one member's rows: members answer the same
    texts, so pooling them makes no interval narrower.

    Args:
        answers: one a member for `single`, else one.
        confidence: of the Wilson intervals.

    Returns:
        count, confidence (mean), accuracy, low and high a bin, from the least certain on.
    """
    certainty = np.concatenate([_labelled(answer)[0] for answer in answers])
    right = np.concatenate([_labelled(answer)[1] for answer in answers])
    bins = np.minimum((certainty * RELIABILITY_BINS).astype(int), RELIABILITY_BINS - 1)
    counts, certainties, rights = (
        np.bincount(bins, weights, RELIABILITY_BINS) for weights in (None, certainty, right)
    )
    filled = np.flatnonzero(counts)
    counts, certainties, rights = counts[filled].astype(float), certainties[filled], rights[filled]
    low, high = wilson(rights / len(answers), counts / len(answers), confidence)
    columns = (counts / len(answers), certainties / counts, rights / counts, low, high)
    return _points(("count", "confidence", "accuracy", "low", "high"), columns)


def risk_coverage(answers: Sequence[Answer], confidence: float) -> list[dict[str, float]]:
    """Return the risk (share of mistakes) when only the most certain rows are answered, at most 100 points.

    Rows of equal confidence are taken in every order alike: the risk is its expectation over the
    orders, as in `aurc`. Several answers are averaged.

    Returns:
        coverage, risk, low and high (Wilson) a point, by rising coverage, the last at 1.
    """
    risks = np.mean([_risks(*_labelled(answer)) for answer in answers], axis=0)
    return _points(("coverage", "risk", "low", "high"), _thinned(risks, confidence)) if len(risks) else []


def at_coverage(points: Sequence[Mapping[str, float]], coverage: float) -> Mapping[str, float] | None:
    """Return the point of a risk-coverage curve nearest to a coverage; None of no points."""
    return min(points, key=lambda point: abs(point["coverage"] - coverage), default=None)


def rejection(answer: Answer, confidence: float) -> dict[str, list[dict[str, float]]]:
    """Return the accuracy of the rest when the rows of most uncertainty are rejected, by kind.

    Rows of equal uncertainty are taken in every order alike, as in `risk_coverage`; a kind that is the
    same for every row (no epistemic uncertainty in a single model) has no points.

    Returns:
        rejected, accuracy, low and high (Wilson) a point, at most 100 by rising share, the first at 0.
    """
    known = answer.labels != UNKNOWN
    _, right = _labelled(answer)
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    for kind in KINDS:
        values = getattr(answer.uncertainty, kind)[known]
        if len(values) and np.ptp(values) > 0:
            coverage, risk, low, high = (
                column[::-1] for column in _thinned(_risks(-values, right), confidence)
            )
            columns = (1 - coverage, 1 - risk, 1 - high, 1 - low)
            found[kind] = _points(("rejected", "accuracy", "low", "high"), columns)
    return found


def distribution(answer: Answer) -> dict[str, dict[str, float | None]]:
    """Return mean and quantiles of each kind of uncertainty, in nats, by kind."""
    return {kind: _quantiles(getattr(answer.uncertainty, kind)) for kind in KINDS}


def history_columns(history: Sequence[Mapping[str, Any]]) -> dict[str, list[float | None]]:
    """Return a training history as columns of numbers, averaged over stretches to at most 100 rows.

    What is no number (names, texts) is left out; what is not finite becomes null.
    """
    names = dict.fromkeys(name for row in history for name, value in row.items() if _is_number(value))
    stretches = np.array_split(np.arange(len(history)), min(len(history), MOST_POINTS) or 1)
    return {
        name: [_mean_of([history[row].get(name) for row in rows]) for rows in stretches] for name in names
    }


def _labelled(answer: Answer) -> tuple[Floats, Floats]:
    """Return the confidence and rightness (0 or 1) of the rows whose label is known."""
    known = answer.labels != UNKNOWN
    right = (answer.predicted == answer.labels)[known]
    return np.asarray(answer.confidence, dtype=np.float64)[known], right.astype(np.float64)


def _risks(certainty: Floats, right: Floats) -> Floats:
    """Return the expected risk at every coverage 1/N..1, ties in certainty in random order."""
    order = np.argsort(-certainty, kind="stable")
    _, tie, counts = np.unique(-certainty[order], return_inverse=True, return_counts=True)
    expected = (np.bincount(tie, 1 - right[order], len(counts)) / counts)[tie]
    return np.asarray(np.cumsum(expected) / np.arange(1, len(order) + 1))


def _thinned(risks: Floats, confidence: float) -> tuple[Floats, Floats, Floats, Floats]:
    """Return coverage, risk, low and high (Wilson) at no more than 100 of the coverages 1/N..1."""
    N = len(risks)
    chosen = np.unique(np.ceil(np.arange(1, MOST_POINTS + 1) * N / MOST_POINTS).astype(int))
    risks = risks[chosen - 1]
    return chosen / N, risks, *wilson(risks * chosen, chosen.astype(float), confidence)


def _points(names: Sequence[str], columns: Sequence[Floats]) -> list[dict[str, float]]:
    return [dict(zip(names, map(float, row), strict=True)) for row in zip(*columns, strict=True)]


def _quantiles(values: Floats) -> dict[str, float | None]:
    finite = values[np.isfinite(values)]
    if len(finite) == 0:
        return {"mean": None, **{str(share): None for share in QUANTILES}}
    at = np.quantile(finite, QUANTILES)
    return {
        "mean": float(finite.mean()),
        **{str(share): float(x) for share, x in zip(QUANTILES, at, strict=True)},
    }


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _mean_of(values: Sequence[object]) -> float | None:
    numbers = np.array([value for value in values if _is_number(value)], dtype=np.float64)
    finite = numbers[np.isfinite(numbers)]
    return float(finite.mean()) if len(finite) else None
