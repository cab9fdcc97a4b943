"""Evaluate the saved predictions of any model: the whole report, and no model is opened."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from credibly.data import read_examples
from credibly.data.predictions import Judged, PredictionColumns, read_predictions, with_truth
from credibly.errors import DataError
from credibly.progress import Stages, silent
from credibly.records import UNKNOWN, Predictions
from credibly.report import build_report, render_html
from credibly.runs import refuse_folder, write_text
from credibly.settings import DataSettings, EvaluationSettings
from credibly.uncertainty.calibrators import cross_fitted

FEWEST_ROWS = 2
FOLDS = 5
FEWEST_TO_CALIBRATE = 20 * FOLDS
CROSS_FITTED = "cross_fitted_temperature"
"""What tables call the predictions calibrated on their own rows, fold by fold."""


def evaluate_predictions(
    file: str | Path,
    truth: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    html: Path | None = None,
    stages: Stages = silent,
    evaluation: EvaluationSettings | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Score saved predictions of one or many members, whatever made them.

    Args:
        file: a table or NPZ file, as `credibly.data.predictions` says.
        truth: a labelled file, where the labels are not in `file`. Its ids are those of the predictions: of
            the column named, else as `predict` names the rows of this file.
        settings: columns `label`, `text` and `id` of the labelled file, or, without one, of the table, where
            they are called otherwise.
        html: where to write the page, if anywhere.
        stages: told of progress.
        evaluation: resamples and confidence of the intervals.
        seed: of the resamples.

    Returns:
        A report as report.json holds it; the file stands where the test split does.

    Raises:
        DataError: a file cannot be used, or there is no label to score against.
        InputError: the page would take a folder's place.
    """
    if html is not None:
        refuse_folder(html)
    chosen = evaluation or EvaluationSettings()
    given = dict(settings or {})
    if truth is None:
        judged = read_predictions(file, PredictionColumns(**given))
    else:
        judged = read_predictions(file, PredictionColumns(label=None))
        data = DataSettings(train=str(truth), **given)
        judged = with_truth(judged, read_examples(truth, data, judged.examples.class_names))
    notes = _checked(judged, file)
    stored = {"members": {"test": judged.predictions}}
    if calibrated := _cross_fitted(judged, seed):
        stored[CROSS_FITTED] = {"test": calibrated}
        notes.append(
            f"{CROSS_FITTED}: there are no other rows to calibrate on, so each fifth of the rows has the "
            "temperature that was fitted on the other four"
        )
    told = stages("scoring with intervals")
    told(0, 1)
    content = build_report(
        run_name=Path(file).name,
        recipe={},
        stored=stored,
        calibrators={},
        costs={},
        test=judged.examples,
        notes=notes,
        resamples=chosen.resamples,
        confidence=chosen.confidence,
        seed=seed,
        shift_splits=[],
    )
    told(1, 1)
    if html is not None:
        write_text(html, render_html(content))
    return content


def _cross_fitted(judged: Judged, seed: int) -> Predictions | None:
    """Return the predictions after a temperature fitted on other folds; None where the rows are too few."""
    if (np.asarray(judged.examples.labels) != UNKNOWN).sum() < FEWEST_TO_CALIBRATE:
        return None
    return cross_fitted(judged.predictions, "temperature", FOLDS, seed, on="members")


def _checked(judged: Judged, file: str | Path) -> list[str]:
    """Return what is to be said of the rows.

    Raises:
        DataError: fewer than two rows have a label.
    """
    labels = np.asarray(judged.examples.labels)
    known = int((labels != UNKNOWN).sum())
    if known < FEWEST_ROWS:
        raise DataError(
            f"{file}: expected rows with a true label, got {known} of {len(labels)}; name its column with "
            f"--label, or give the labelled file: credibly evaluate FILE --predictions {file} (in what "
            "predict writes, label is what was predicted)"
        )
    notes = [] if known == len(labels) else [f"{len(labels) - known:,} of {len(labels):,} rows have no label"]
    return (
        notes if judged.texts_known else [*notes, "the texts are not in the file; their ids stand for them"]
    )
