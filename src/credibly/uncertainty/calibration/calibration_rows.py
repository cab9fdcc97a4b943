"""The rows that a calibrator is fitted on: which have a target, of which class, in which fold."""

from __future__ import annotations

from hashlib import blake2b
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from credibly.errors import InputError, listed
from credibly.records import UNKNOWN, Predictions
from credibly.uncertainty.scoring.clusters import units_of

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

Targets = Literal["labels", "label_probs"]
"""What a calibrator is fitted to: the labels, or the raters' shares."""

FEWEST_OF_A_CLASS = 2
"""Rows of every class without which a map with numbers of its own for each class is not fitted."""


def has_target(predictions: Predictions, targets: str) -> NDArray[np.bool_]:
    """Return bool, (N,): which rows have a label, or raters' shares.

    Raises:
        InputError: an unknown kind of target.
    """
    if targets not in ("labels", "label_probs"):
        raise InputError(f"expected targets 'labels' or 'label_probs', got '{targets}'")
    if targets == "label_probs":
        return np.full(len(predictions.ids), predictions.label_probs is not None)
    return np.asarray(predictions.labels != UNKNOWN)


def targets_of(predictions: Predictions, targets: str = "labels") -> tuple[Predictions, FloatArray]:
    """Return the rows that have a target and their targets: float64, (N, C), each row normalised.

    Raises:
        InputError: fewer than two such rows, or an unknown kind of target.
    """
    known = has_target(predictions, targets)
    if known.sum() < 2:
        raise InputError(
            f"expected two rows or more with {targets} to fit a calibrator on, "
            f"got {known.sum()} of {len(known)}"
        )
    rows = predictions.take(known)
    if targets == "label_probs":
        return rows, np.asarray(rows.label_probs, dtype=np.float64)
    return rows, np.eye(predictions.shape[2])[rows.labels]


def check_classes(truth: FloatArray, class_names: tuple[str, ...], least: int = FEWEST_OF_A_CLASS) -> None:
    """Raise InputError unless every class is the (first) target of this many rows.

    A slope, an intercept or a curve for a class that no row has would be made up.
    """
    rows = np.bincount(truth.argmax(axis=1), minlength=len(class_names))
    if (rows < least).any():
        rare = listed(f"'{class_names[index]}' ({rows[index]})" for index in np.flatnonzero(rows < least))
        raise InputError(
            f"expected {least} calibration rows or more of every class for a map by class; "
            f"too few of {rare}: add rows of them, or use 'temperature', which needs none"
        )


def stratified_order(predictions: Predictions, targets: str = "labels", seed: int = 0) -> IntArray:
    """Return the row numbers sorted by class, and within a class by a hash of the id and the seed.

    Dealing them out in turn gives parts with like shares of every class. Neither the order of the rows
    nor that of the classes moves an example to another part.
    """
    known = has_target(predictions, targets)
    # np.argsort of argsort: each class's place in the alphabet; rows without a target come first.
    places = np.argsort(np.argsort(predictions.class_names))
    soft = targets == "label_probs" and predictions.label_probs is not None
    classes = predictions.label_probs.argmax(axis=1) if soft else predictions.labels  # type: ignore[union-attr]
    strata = np.where(known, places[classes], -1)
    key = str(seed).encode()
    hashes = [
        int.from_bytes(blake2b(name.encode(), digest_size=7, key=key).digest()) for name in predictions.ids
    ]
    return np.lexsort((np.array(hashes, dtype=np.int64), strata)).astype(np.int64)


def folds_of(predictions: Predictions, folds: int, targets: str = "labels", seed: int = 0) -> IntArray:
    """Return the fold of every row, (N,): stratified by class, the same for an id wherever it stands.

    Rows that belong together (`units_of`) are in one fold.

    Raises:
        InputError: fewer than two folds, or than two rows with a target for each.
    """
    known = int(has_target(predictions, targets).sum())
    if folds < 2 or known < 2 * folds:
        raise InputError(
            f"expected two folds or more, of two rows or more with {targets}; "
            f"got {folds} folds of {known} such rows"
        )
    order, units = stratified_order(predictions, targets, seed), units_of(predictions.groups)
    if units is not None:
        first = np.unique(units[order], return_index=True)[1]
        return folds_of_units(units, units[order[np.sort(first)]], folds)
    return folds_of_units(np.arange(len(order)), order, folds)


def folds_of_units(units: IntArray, order: IntArray, folds: int) -> IntArray:
    """Return the fold of every row, (N,), where units, one a row, are dealt out in this order.

    >>> folds_of_units(np.array([0, 1, 1, 2]), np.array([2, 0, 1]), 2).tolist()
    [1, 0, 0, 0]
    """
    fold_of = np.empty(len(order), dtype=np.int64)
    fold_of[order] = np.arange(len(order)) % folds
    return np.asarray(fold_of[units])
