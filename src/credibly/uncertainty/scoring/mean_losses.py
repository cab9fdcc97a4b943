"""Mean losses where few answers are wrong: resamples hold no other mistakes than those that were seen.

Of 300 rows at 0.998, all right, every resample has the same NLL, and of two systems that are never wrong
the surer one is the better in each. But the probabilities themselves say how much the mean would vary with
other labels: by v = sum_n (sum_c q_nc l_nc^2 - (sum_c q_nc l_nc)^2) / N^2, with l_nc row n's loss, or the
two systems' difference of losses, if its label were c, and q their mean probabilities. As in
`score_intervals`, this stands as one mistake more against the e that the resamples' variance b rests on,

    (e b + v) / (e + 1),

and what that is more than b is added to both ends' distances, as variances are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from credibly.records import UNKNOWN, Interval
from credibly.uncertainty.numerics import log_of
from credibly.uncertainty.scoring.score_intervals import rows_together
from credibly.uncertainty.systems import Answer

FloatArray = NDArray[np.float64]

LOSSES: Mapping[str, Callable[[FloatArray], FloatArray]] = {
    "nll": lambda probs: -log_of(probs),
    "brier": lambda probs: (probs**2).sum(axis=1, keepdims=True) - 2 * probs + 1,
}
"""By metric: of probabilities, (N, C), the loss of each row by what its label would be, (N, C)."""


def with_unseen_mistakes(
    figure: Interval,
    samples: FloatArray,
    metric: str,
    sides: Sequence[Sequence[Answer]],
    confidence: float,
) -> Interval:
    """Return a mean loss, or two systems' difference first - second, with ends as far off as labels may be.

    Args:
        figure: with percentiles of the resamples for ends.
        samples: on resamples, (R,), NaN where undefined.
        metric: one of `LOSSES`.
        sides: of one system, or of both, its answers on the same rows: their mean is the figure.
        confidence: of the interval.
    """
    if figure.value is None or figure.low is None or figure.high is None:
        return figure
    known = sides[0][0].labels != UNKNOWN
    means = [_mean_of(side, metric, known) for side in sides]
    loss = means[0][0] - (means[1][0] if len(means) > 1 else 0.0)
    share = np.mean([probs for _, probs in means], axis=0)
    groups = sides[0][0].groups
    together = rows_together(None if groups is None else groups[known])
    wrong = np.any([answer.predicted != answer.labels for side in sides for answer in side], axis=0)[known]
    more = unseen_variance(loss, share, wrong, float(np.nanvar(samples)), together)
    unseen = float(ndtri((1 + confidence) / 2)) * float(np.sqrt(more))
    low = figure.value - float(np.hypot(figure.value - figure.low, unseen))
    high = figure.value + float(np.hypot(figure.high - figure.value, unseen))
    return Interval(figure.value, max(low, 0.0) if len(sides) == 1 else low, high, figure.spread)


def unseen_variance(
    loss: FloatArray, share: FloatArray, wrong: NDArray[np.bool_], seen: float, together: float = 1.0
) -> float:
    """Return what the variance of a mean loss, or of a difference, is more than the rows show.

    Args:
        loss: by what the label would be, (N, C).
        share: the chance of each label, (N, C).
        wrong: which rows are answered wrongly, by either system of two, (N,).
        seen: the variance that the rows show, b.
        together: rows that are wrong at once, where they come in groups.
    """
    each = (share * loss**2).sum(axis=1) - (share * loss).sum(axis=1) ** 2
    implied = float(each.mean()) / len(each) * together
    told = min(int(wrong.sum()), int((~wrong).sum()))
    return max(implied - seen, 0.0) / (told + 1)


def _mean_of(side: Sequence[Answer], metric: str, known: NDArray[np.bool_]) -> tuple[FloatArray, FloatArray]:
    """Return a system's losses by label and its probabilities on the labelled rows, (N, C) each."""
    probs = [answer.probs[known] for answer in side]
    return np.mean([LOSSES[metric](own) for own in probs], axis=0), np.mean(probs, axis=0)
