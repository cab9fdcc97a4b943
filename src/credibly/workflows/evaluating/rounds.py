"""What each round of self-training brought, on the test texts."""

from __future__ import annotations

from collections.abc import Iterator

from credibly.report.words.numbers import bracket, number
from credibly.runs import Run
from credibly.uncertainty.scoring.intervals import score_sampled
from credibly.uncertainty.scoring.resampling import Resampling
from credibly.uncertainty.systems import answers
from credibly.workflows.common.contents import round_names

METRICS = {"accuracy": "accuracy", "nll": "NLL"}


def round_notes(run: Run) -> Iterator[str]:
    """Yield a sentence with the figures of the student after each round, all before their temperature."""
    names = round_names("student", run.recipe)
    if not names:
        return
    told = "; ".join(
        f"{'first student' if not turn else f'round {turn}'} {_figures(run, name)}"
        for turn, name in enumerate([*names, "student"])
    )
    yield f"self-training, on the test texts and before any temperature: {told}"


def _figures(run: Run, name: str) -> str:
    given = answers(name, run.load_predictions(name, "test"), {})
    settings = run.recipe.evaluation
    resampling = Resampling(settings.resamples, settings.confidence, run.recipe.seed)
    found, _ = score_sampled(given, resampling, METRICS)
    figures = {metric: figure.as_json() for metric, figure in found.items()}
    return ", ".join(
        f"{words} {number(metric, figures[metric]['value'])} {bracket(metric, figures[metric])}"
        for metric, words in METRICS.items()
    )
