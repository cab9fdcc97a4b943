"""Systems held against one another: paired differences, leaders, the gain kept, agreement, shift.

Differences are taken on identical resamples of identical rows, so what two systems share cancels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from credibly.records import Interval
from credibly.report.figures.metrics import MAIN_METRICS, higher_is_better
from credibly.report.figures.p_values import p_value, sign_test
from credibly.report.figures.systems import Answers
from credibly.report.figures.types import Json
from credibly.uncertainty.decompose import KINDS
from credibly.uncertainty.scoring.estimates import (
    CORRECTED,
    corrected_difference,
    mean_estimate,
    resampled_as,
)
from credibly.uncertainty.scoring.intervals import bootstrapped_difference, rank_correlation
from credibly.uncertainty.scoring.resampling import Resampling
from credibly.uncertainty.scoring.scores import families
from credibly.uncertainty.scoring.slices import holm
from credibly.uncertainty.systems import CALIBRATED, Answer, chosen_form

Floats = NDArray[np.float64]
Scores = Mapping[str, Mapping[str, Any]]

COMPARED_METRICS = ("nll", "accuracy", "brier", "ece_debiased", "aurc")
SAMPLED = families(list(dict.fromkeys(map(resampled_as, (*COMPARED_METRICS, *MAIN_METRICS)))))
"""The families of figures that pairs and leaders need resamples of."""
SHIFT_CHANGES = ("accuracy", "nll", "ece_debiased", "mean_total", "mean_epistemic")


class Paired:
    """Differences between systems on the test rows, from the resamples that gave their intervals.

    The same figures as `paired_difference` gives.

    Args:
        on_test: every system's answers on the same rows.
        systems: their figures, as report.json holds them.
        sampled: their figures on every resample, (R,) each, those of `SAMPLED` among them.
        resampling: resamples, confidence and seed.
    """

    def __init__(
        self,
        on_test: Answers,
        systems: Scores,
        sampled: Mapping[str, Mapping[str, Floats]],
        resampling: Resampling,
    ) -> None:
        self.on_test, self.systems, self.resampling = on_test, systems, resampling
        self.sampled, self.estimate = sampled, cache(self._estimate)

    def value(self, name: str, metric: str) -> float | None:
        """Return a system's figure; None where it is undefined."""
        found: float | None = self.systems[name][metric]["value"]
        return found

    def difference(self, first: str, second: str, metric: str) -> Interval:
        """Return first - second of a metric, with its interval."""
        values = self.value(first, metric), self.value(second, metric)
        if values[0] is None or values[1] is None:
            return Interval(None)
        value = values[0] - values[1]
        if metric in CORRECTED:
            estimates = [self.estimate(name, metric) for name in (first, second)]
            one, other = (self.samples(name, resampled_as(metric)) for name in (first, second))
            return corrected_difference(value, estimates, (one, other))
        samples = self.samples(first, metric), self.samples(second, metric)
        sides = self.on_test[first], self.on_test[second]
        return bootstrapped_difference(value, samples, metric, sides, self.resampling)

    def p_value(self, first: str, second: str, metric: str, difference: Interval) -> float | None:
        """Return a difference's p-value: the larger of the interval's and, for accuracies, the exact one."""
        p = p_value(difference, self.resampling.confidence)
        if p is None or metric != "accuracy":
            return p
        return max(p, sign_test(self.on_test[first], self.on_test[second]) or p)

    def _estimate(self, name: str, metric: str) -> tuple[float, float, float]:
        return mean_estimate(metric, self.on_test[name], self.resampling.confidence)

    def samples(self, name: str, metric: str) -> Floats:
        """Return a system's figure on every resample, (R,); NaN where it is undefined."""
        undefined = np.full(self.resampling.resamples, np.nan)
        return self.sampled[name].get(metric, undefined)


def comparisons(paired: Paired, shipped: str) -> dict[str, dict[str, Json]]:
    """Return paired differences: {"first - second": {metric: figure}}.

    Those of the shipped system to every other one are a table by which systems are judged: each has a
    two-sided `p`, and `adjusted_p`, by Holm's method for all systems and metrics of that table.
    """
    found = {
        (first, second): {metric: paired.difference(first, second, metric) for metric in COMPARED_METRICS}
        for first, second in pairs(list(paired.systems), shipped)
    }
    p_values = {
        (pair, metric): p
        for pair, by_metric in found.items()
        for metric, own in by_metric.items()
        if pair[0] == shipped and (p := paired.p_value(*pair, metric, own)) is not None
    }
    judged = dict(
        zip(p_values, zip(p_values.values(), holm(list(p_values.values())), strict=True), strict=True)
    )

    def figure(pair: tuple[str, str], metric: str, own: Interval) -> Json:
        both = judged.get((pair, metric))
        return {**own.as_json(), **({"p": both[0], "adjusted_p": both[1]} if both else {})}

    return {
        f"{first} - {second}": {
            metric: figure((first, second), metric, own) for metric, own in by_metric.items()
        }
        for (first, second), by_metric in found.items()
    }


def pairs(names: Sequence[str], shipped: str) -> list[tuple[str, str]]:
    """Return the pairs of systems that are compared, each once: those of findings, and shipped with all.

    >>> pairs(["single", "ensemble", "ensemble+temperature"], "ensemble+temperature")
    [('ensemble', 'single'), ('ensemble+temperature', 'ensemble'), ('ensemble+temperature', 'single')]
    """
    ensemble, direct, student, soft, zero_shot = (
        best_form(names, name) for name in ("ensemble", "direct", "student", "soft_labels", "zero_shot")
    )
    ways = [
        pair
        for name in ("hydra", "soup", "greedy_soup")
        for pair in (
            (student, best_form(names, name)),
            ("student", name),
            (name, "single"),
            (name + CALIBRATED, "single"),
        )
    ]
    wanted = (
        ("ensemble", "single"), ("ensemble+temperature", "ensemble"), ("majority_vote", "ensemble"),
        (ensemble, zero_shot), (ensemble, direct), (student, ensemble), (student, direct), (student, soft),
        ("student", "direct"), ("student", "soft_labels"), (soft, direct), (shipped, "single"),
        *ways, *((shipped, name) for name in names),
    )  # fmt: skip
    there = [
        (first, second) for first, second in wanted if first in names and second in names and first != second
    ]
    return list(dict.fromkeys(there))  # type: ignore[arg-type]  # None is in no names


def best_form(names: Sequence[str] | Mapping[str, object], name: str) -> str | None:
    """Return a system's name with temperature where that is there, else its own, else None.

    >>> best_form(["direct", "direct+temperature"], "direct"), best_form(["direct"], "student")
    ('direct+temperature', None)
    """
    return chosen_form(name, names)


def leaders(paired: Paired) -> dict[str, list[str]]:
    """Return, a metric of the main table, the systems that none beats, where one at least is beaten.

    A system leads where its paired difference from the best value holds zero. Where all do, nobody is
    truly better, and the list is empty.
    """
    judged = [metric for metric in MAIN_METRICS if higher_is_better(metric) is not None]
    return {metric: _leading(metric, paired) for metric in judged}


def _leading(metric: str, paired: Paired) -> list[str]:
    values = {name: value for name in paired.systems if (value := paired.value(name, metric)) is not None}
    if not values:
        return []
    best = (max if higher_is_better(metric) else min)(values, key=lambda name: values[name])
    leading = [name for name in values if name == best or _equal(paired.difference(name, best, metric))]
    return leading if len(leading) < len(values) else []


def _equal(interval: Interval) -> bool:
    return interval.low is not None and interval.high is not None and interval.low <= 0 <= interval.high


def share(value: float, kept: Floats, gain: Floats, confidence: float) -> Interval:
    """Return a ratio of two resampled differences with its interval.

    Resamples without a gain count against both ends; where they reach an end, there is no interval, and no
    value either.
    """
    positive = gain > 0
    ratio = np.divide(kept, gain, out=np.zeros_like(kept), where=positive)
    tail = (1 - confidence) / 2
    low = float(np.quantile(np.where(positive, ratio, -np.inf), tail, method="lower"))
    high = float(np.quantile(np.where(positive, ratio, np.inf), 1 - tail, method="higher"))
    return Interval(value, low, high) if np.isfinite([low, high]).all() else Interval(None)


def agreement(student: Answer, ensemble: Answer, resampling: Resampling) -> dict[str, Json]:
    """Return Spearman's rank correlation of the student's uncertainty with the ensemble's, by kind."""
    chosen = (resampling.resamples, resampling.confidence, resampling.seed, ensemble.groups)
    return {
        kind: rank_correlation(
            getattr(student.uncertainty, kind), getattr(ensemble.uncertainty, kind), *chosen
        ).as_json()
        for kind in KINDS
    }


def shift_changes(inside: Mapping[str, Any], outside: Mapping[str, Any]) -> dict[str, Json]:
    """Return how a system's figures change from the test texts to a shift set's (shift - test).

    The two samples are independent, so the interval comes from the two intervals by MOVER (Zou and
    Donner 2008, https://doi.org/10.1002/sim.3095).
    """
    return {metric: mover(outside[metric], inside[metric]).as_json() for metric in SHIFT_CHANGES}


def mover(first: Mapping[str, Any], second: Mapping[str, Any]) -> Interval:
    """Return the difference of two independent figures with an interval made of their own.

    >>> outside, inside = {"value": 5.0, "low": 2.0, "high": 8.0}, {"value": 6.0, "low": 2.0, "high": 10.0}
    >>> mover(outside, inside).as_json()
    {'value': -1.0, 'low': -6.0, 'high': 4.0}
    """
    ends = [figure[end] for figure in (first, second) for end in ("value", "low", "high")]
    if any(end is None for end in ends):
        return Interval(None)
    a, a_low, a_high, b, b_low, b_high = ends
    # The corrected interval of the plain ECE may lie beside its value: a distance is then nothing.
    below = np.hypot(max(a - a_low, 0.0), max(b_high - b, 0.0))
    above = np.hypot(max(a_high - a, 0.0), max(b - b_low, 0.0))
    return Interval(a - b, a - b - float(below), a - b + float(above))
