"""Evaluate the saved predictions of any model: the whole report, and no model is opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from credibly.data import read_examples
from credibly.data.containment import grouped
from credibly.data.predictions import Judged, PredictionColumns, read_predictions, with_truth
from credibly.errors import DataError, InputError
from credibly.progress import Stages, silent
from credibly.records import UNKNOWN, Predictions
from credibly.report import build_report, render_html
from credibly.runs import refuse_folder, write_text
from credibly.settings import DataSettings, EvaluationSettings
from credibly.uncertainty.calibration.calibrator_choice import FOLDS, choose_calibrator, cross_fitted_choice
from credibly.uncertainty.calibration.calibrators import cross_fitted

FEWEST_ROWS = 2
FEWEST_TO_CALIBRATE = 20 * FOLDS
CROSS_FITTED = "cross_fitted_"
"""What the names of predictions calibrated on their own rows, fold by fold, begin with."""


def evaluate_predictions(
    file: str | Path,
    truth: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    html: Path | None = None,
    stages: Stages = silent,
    evaluation: EvaluationSettings | None = None,
    seed: int = 0,
    calibrator: str | None = None,
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
        seed: of the resamples and of the folds.
        calibrator: a kind, or ``auto`` for the one that cross-validated NLL bears out; a temperature if
            left out. It is cross-fitted, and ``auto`` chosen anew for each fold without its rows.

    Returns:
        A report as report.json holds it; the file stands where the test split does.

    Raises:
        DataError: a file cannot be used, or there is no label to score against.
        InputError: the page would take a folder's place, or a calibrator was asked for by name that is
            unknown or has too few rows.
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
    notes, recipe = _checked(judged, file), dict[str, Any]()
    if judged.texts_known and judged.examples.groups is None:
        judged, recipe = _grouped(judged), {"data": {"group": None}}
    stored = {"members": {"test": judged.predictions}}
    calibrated, said = _cross_fitted(judged.predictions, calibrator, seed)
    stored |= {name: {"test": record} for name, record in calibrated.items()}
    notes += said
    told = stages("scoring with intervals")
    told(0, 1)
    content = build_report(
        run_name=Path(file).name,
        recipe=recipe,
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


def _grouped(judged: Judged) -> Judged:
    """Return predictions with equal texts, and texts that stand within others, as groups."""
    examples = grouped(judged.examples)
    return replace(
        judged,
        examples=examples,
        predictions=replace(judged.predictions, groups=examples.group_numbers()),
    )


def _cross_fitted(
    predictions: Predictions, wanted: str | None, seed: int
) -> tuple[dict[str, Predictions], list[str]]:
    """Return the predictions after a calibrator fitted on other folds, by name, and what is to be said.

    None where nothing was asked for and the rows are too few, or where no calibrator helps.
    """
    known, kind = int((predictions.labels != UNKNOWN).sum()), wanted or "temperature"
    if known < FEWEST_TO_CALIBRATE:
        if wanted is None:
            return {}, []
        raise InputError(
            f"expected {FEWEST_TO_CALIBRATE} labelled rows or more to cross-fit a calibrator, got {known}; "
            "leave --calibrator out"
        )
    folds = "there are no other rows to calibrate on, so each fifth of the rows is mapped by the"
    if kind != "auto":
        mapped = cross_fitted(predictions, kind, FOLDS, seed, on="members")
        said = f"{CROSS_FITTED}{kind}: {folds} {kind} calibrator that was fitted on the other four"
        return {CROSS_FITTED + kind: mapped}, [said]
    choice = choose_calibrator(predictions, "members", seed=seed)
    notes = [f"calibrator {line}" for line in choice.describe().splitlines()]
    if choice.kind == "identity":
        return {}, [*notes, "no calibrator lowers the NLL beyond noise, so none is shown"]
    said = f"{CROSS_FITTED}auto: {folds} calibrator that was chosen and fitted on the other four"
    return {f"{CROSS_FITTED}auto": cross_fitted_choice(predictions, "members", seed=seed)}, [*notes, said]


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
