"""What the steps of a fit share."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from credibly.data import Splits
from credibly.progress import Stages
from credibly.records import Examples, Predictions
from credibly.runs import Run, write_json
from credibly.settings import Recipe
from credibly.workflows.common.contents import NOT_SCORED, known_costs

RATE_ROWS = 1024
"""Texts on which the rows a second are measured, at most."""


@dataclass(frozen=True)
class Work:
    """What the steps of a fit share: the run, its recipe, the texts, and where progress is told."""

    run: Run
    recipe: Recipe
    splits: Splits
    stages: Stages

    def scored(self) -> dict[str, Examples]:
        """Return the splits on which networks are scored or calibrated, by name."""
        return {name: part for name, part in self.splits.named().items() if name not in NOT_SCORED}

    def note_cost(self, source: str, **figures: float) -> None:
        """Add figures to what a source is known to cost."""
        costs = known_costs(self.run)
        write_json(self.run.costs_file, {**costs, source: {**costs.get(source, {}), **figures}})


def store_answers(
    work: Work,
    system: str,
    predict: Callable[[Examples], Predictions],
    scored: Mapping[str, Examples],
    **costs: float,
) -> None:
    """Note what a network costs, and store what it predicts on every split that is scored, last.

    Args:
        work: of the run.
        system: the network's name.
        predict: gives its record of examples.
        scored: the splits, by name.
        costs: figures that are known; the speed is measured here.
    """
    if work.splits.test is not None:
        some = some_of(work.splits.test)
        work.note_cost(system, rows_per_second=rate(lambda: predict(some), len(some)), **costs)
    told = work.stages(f"predicting with {system}")
    for done, (split, examples) in enumerate(scored.items(), start=1):
        record = replace(predict(examples), provenance={"source": system})
        work.run.save_predictions(system, split, record)
        told(done, len(scored))


def some_of(examples: Examples) -> Examples:
    """Return the texts on which the rows a second are measured."""
    return examples.take(np.arange(min(RATE_ROWS, len(examples))))


def rate(predict: Callable[[], object], rows: int) -> float:
    """Return rows a second of a prediction, the better of two tries."""
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        predict()
        seconds.append(time.perf_counter() - began)
    return rows / min(seconds)
