"""The learning curve: how good members are that learned parts of the training texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from credibly.records import Predictions
from credibly.report.figures.types import Json
from credibly.uncertainty.calibration.calibrate import Temperature
from credibly.uncertainty.scoring.intervals import paired_difference, score_sampled
from credibly.uncertainty.scoring.resampling import Resampling
from credibly.uncertainty.systems import CALIBRATED, Answer, answers

Parts = Mapping[int, Mapping[str, Predictions]]

SYSTEM = f"ensemble{CALIBRATED}"
METRICS = ("accuracy", "nll")


def learning_curve(parts: Parts, resampling: Resampling) -> list[Json]:
    """Return the accuracy and the NLL of the ensemble, with a temperature of its own, by training texts.

    Args:
        parts: predictions of members on ``calibration`` and ``test``, by the number of texts they learned.
        resampling: of the intervals, and of those of the differences.

    Returns:
        A point for each number of texts, from the fewest on: ``rows``, a figure a metric, and ``change``, the
        paired differences from the point before; None at the first.
    """
    answered = {
        rows: answers(SYSTEM, parts[rows]["test"], {SYSTEM: Temperature.fit(parts[rows]["calibration"])})
        for rows in sorted(parts)
    }
    before: list[tuple[Answer, ...] | None] = [None, *answered.values()]
    return [
        {"rows": rows, **_figures(own, resampling), "change": earlier and _change(own, earlier, resampling)}
        for (rows, own), earlier in zip(answered.items(), before, strict=False)
    ]


def _figures(own: tuple[Answer, ...], resampling: Resampling) -> Json:
    found, _ = score_sampled(own, resampling, METRICS)
    return {metric: figure.as_json() for metric, figure in found.items()}


def _change(own: tuple[Answer, ...], earlier: tuple[Answer, ...], resampling: Resampling) -> Json:
    return {
        metric: paired_difference(own, earlier, metric, **asdict(resampling)).as_json() for metric in METRICS
    }
