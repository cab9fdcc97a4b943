"""Intervals of the calibration error, where the percentile bootstrap is biased upwards.

A resample's bins are off by chance twice over, so the bootstrap's plain ECE lies above the observed
one, which lies above the true one. Instead the interval is the set of true errors under which the
observed plain ECE is no surprise.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from credibly.records import UNKNOWN
from credibly.uncertainty.scoring.binning import Bins, binned, debiased_error, folded_mean, plain_error
from credibly.uncertainty.systems import Answer

FloatArray = NDArray[np.float64]

WIDENING = 1.08
"""The standard errors are themselves estimated; without this, coverage at 95 % falls to 90 in places."""

STEPS = 400


def answer_bins(answer: Answer) -> Bins:
    """Return the bins of an answer's labelled rows, one column."""
    rows = np.flatnonzero(answer.labels != UNKNOWN)
    correct = (answer.predicted == answer.labels)[rows]
    return binned(answer.confidence[rows], correct, np.ones((len(rows), 1)))


def error_interval(bins: Bins, confidence: float = 0.95, widening: float = 1.0) -> tuple[float, float]:
    """Return the ends of the interval for the true calibration error, from bins of one column.

    What it covers: sum_b P(bin b) |E[correct - confidence | bin b]|, the calibration error of this
    system's answers in these bins over all rows of the same kind; both the plain and the debiased
    ECE estimate it and get the same interval (which the plain one may lie above). Its ends are the
    errors t under which the observed plain ECE lies at the edge of what it would show: mean
    sum_b w_b m(t u_b, s_b), variance that of folded normals and of the rows' division among bins. The
    profile u of the bins' gaps is not known, so two are tried, all alike and as observed (drawn towards
    alike where chance rules), and the wider ends kept. Coverage by simulation at N = 300 to 3000,
    zero to 10 % miscalibration: 95 to 99 % at a nominal 95 (`tests/uncertainty/test_coverage.py`).

    Args:
        bins: of one column.
        confidence: of the interval.
        widening: of the standard errors, where the bins' gaps are not independent.
    """
    filled = bins.rows[:, 0] > 0
    one = Bins(bins.rows[filled], bins.confidence[filled], bins.correct[filled])
    alike, observed = np.ones_like(one.gap), _observed_profile(one)
    reach = widening * WIDENING * float(ndtri((1 + confidence) / 2))
    ends = [_ends(one, profile, observed, reach) for profile in (alike, observed)]
    return min(low for low, _ in ends), max(high for _, high in ends)


def _observed_profile(bins: Bins) -> FloatArray:
    """Return u, (B, 1), of mean one: each bin's gap, drawn towards the common one as its error is large."""
    common = debiased_error(bins)
    if common[0] == 0:
        return np.ones_like(bins.gap)
    trust = common**2 / (common**2 + bins.error**2)
    profile = trust * bins.gap + (1 - trust) * common
    return np.asarray(profile / (bins.share * profile).sum(axis=0))


def _ends(bins: Bins, profile: FloatArray, observed: FloatArray, reach: float) -> tuple[float, float]:
    """Return the smallest and largest t under which the observed plain ECE is no surprise.

    Args:
        bins: of one column.
        profile: of the true gaps that are tried.
        observed: of the gaps as they show.
        reach: how many standard deviations are none.
    """
    plain = float(plain_error(bins)[0])
    # Beyond twice the plain ECE and ten mean standard errors, m(t) >= t rules every t out.
    most = 2 * plain + 10 * float((bins.share * bins.error).sum())
    t = np.linspace(0.0, most, STEPS + 1)
    mean = (bins.share * folded_mean(t * profile, bins.error)).sum(axis=0)
    folded_variance = (t * profile) ** 2 + bins.error**2 - folded_mean(t * profile, bins.error) ** 2
    among_bins = t**2 * ((bins.share * observed**2).sum() - 1) / bins.rows.sum()
    spread = reach * np.sqrt((bins.share**2 * np.maximum(folded_variance, 0.0)).sum(axis=0) + among_bins)
    return inverted(t, mean, spread, plain)


def inverted(t: FloatArray, mean: FloatArray, spread: FloatArray, plain: float) -> tuple[float, float]:
    """Return the smallest and largest t under which a plain error lies within mean +- spread, each (T,)."""
    # Fewer gaps than chance makes are luck, not knowledge: the upper end stays what chance would give.
    seen = max(plain, float(mean[0]))
    low, high = _first_at_least(t, mean + spread, plain), _last_at_most(t, mean - spread, seen)
    return min(low, 1.0), min(max(low, high), 1.0)


def _first_at_least(t: FloatArray, curve: FloatArray, level: float) -> float:
    """Return where a curve over t first reaches a level, between the grid's points by a straight line."""
    reached = np.flatnonzero(curve >= level)
    if not len(reached) or reached[0] == 0:
        return float(t[0] if len(reached) else t[-1])
    ends = slice(reached[0] - 1, reached[0] + 1)
    return float(np.interp(level, curve[ends], t[ends]))


def _last_at_most(t: FloatArray, curve: FloatArray, level: float) -> float:
    """Return where a curve over t last lies at or below a level."""
    return float(t[-1]) - _first_at_least(t[-1] - t[::-1], -curve[::-1], -level)
