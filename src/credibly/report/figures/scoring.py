"""Figures of systems with their intervals, on the test texts and on shift sets, several systems at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from credibly.records import Interval
from credibly.report.figures.comparisons import SAMPLED
from credibly.report.figures.metrics import COST_METRICS
from credibly.report.figures.systems import Answers
from credibly.uncertainty.scoring.families import class_figures
from credibly.uncertainty.scoring.intervals import score_classes, score_sampled, score_shift
from credibly.uncertainty.scoring.resampling import Resampling
from credibly.uncertainty.systems import bare_name, source_of

FloatArray = NDArray[np.float64]
Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_THREADS = 4
"""Each holds some arrays as long as the rows."""
ON_SHIFT_SETS = (
    "accuracy", "f1_macro", "precision_macro", "recall_macro", "nll", "brier", "ece", "ece_debiased", "aurc",
    "auroc", "average_precision", "error_auroc", "mean_total", "mean_aleatoric", "mean_epistemic",
    "mean_variance", "nll_raters", "spearman_raters",
)  # fmt: skip
"""The figures of shift sets; all others, of the test split alone, would take most of a report's time."""


def scored_systems(
    on_test: Answers, costs: Mapping[str, Mapping[str, float | None]], resampling: Resampling
) -> tuple[dict[str, Any], dict[str, dict[str, FloatArray]]]:
    """Return every system's figures, and those on every resample: drawn once for all that needs them."""

    def scored(name: str) -> tuple[dict[str, Any], dict[str, FloatArray]]:
        figures, samples = score_sampled(on_test[name], resampling, further=(*SAMPLED, class_figures))
        by_class = score_classes(on_test[name], **asdict(resampling), samples=samples)
        known = _costs_of(name, costs)
        system = {
            **_as_json(figures),
            **_as_json({metric: Interval(known.get(metric)) for metric in COST_METRICS}),
            "classes": {class_name: _as_json(found) for class_name, found in by_class.items()},
        }
        return system, samples

    systems, sampled = zip(*_side_by_side(scored, on_test), strict=True)
    return dict(zip(on_test, systems, strict=True)), dict(zip(on_test, sampled, strict=True))


def _side_by_side(work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Return what work makes of each item, in their order; NumPy lets threads compute at the same time."""
    with ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1)) as pool:
        return list(pool.map(work, items))


def _as_json(figures: Mapping[str, Interval]) -> dict[str, Any]:
    return {name: figure.as_json() for name, figure in figures.items()}


def _costs_of(name: str, costs: Mapping[str, Mapping[str, float | None]]) -> Mapping[str, float | None]:
    """Return a system's costs: its own, else its network's, else (made of members) the ensemble's."""
    bare = bare_name(name)
    shared = ("ensemble",) if source_of(name) == "members" and bare != "single" else ()
    return next((costs[form] for form in (name, bare, *shared) if form in costs), {})


def scored_shifts(
    on_test: Answers, shifted: Mapping[str, Answers], resampling: Resampling
) -> dict[str, dict[str, Any]]:
    """Return every system's figures on every shift set."""
    pairs = [(split, name) for split, outside in shifted.items() for name in outside if name in on_test]

    def scored(pair: tuple[str, str]) -> dict[str, Any]:
        split, name = pair
        given = shifted[split][name]
        return _as_json(score_shift(on_test[name], given, **asdict(resampling), metrics=ON_SHIFT_SETS))

    found = dict(zip(pairs, _side_by_side(scored, pairs), strict=True))
    return {split: {name: found[split, name] for own, name in pairs if own == split} for split in shifted}
