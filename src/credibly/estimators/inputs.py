"""What callers of scikit-learn hand over, X and y, as texts and labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.utils import assert_all_finite, column_or_1d
from sklearn.utils._missing import is_pandas_na, is_scalar_nan
from sklearn.utils.multiclass import check_classification_targets

from credibly.data.cells import CellError, Problems, canonical, likeliest, text_of
from credibly.data.rows import Row
from credibly.errors import InputError, did_you_mean, listed
from credibly.records import FloatArray, IntArray, check_label_probs
from credibly.settings import DataSettings

GIVEN = "the rows given"
"""What recipes and messages call data that came from no file."""


@dataclass(frozen=True)
class TextColumns:
    """The text columns of X.

    Args:
        names: K column names, as the frame has them; None where X has no names.
        cells: object, (N, K), as they were given.
    """

    names: tuple[Any, ...] | None
    cells: NDArray[np.object_]

    def texts(self) -> tuple[str, ...]:
        """Return N texts, a row's cells that are not empty joined by a line break.

        Raises:
            DataError: a row has no text, or a cell is no string; up to five are named.
        """
        K = self.cells.shape[1]
        names = [str(name) for name in self.names or (["text"] if K == 1 else range(K))]
        settings = DataSettings(train=GIVEN, text=names)
        problems, texts = Problems(), []
        for number, cells in enumerate(self.cells):
            row = Row(f"X[{number}]", dict(zip(names, map(_present, cells), strict=True)))
            try:
                texts.append(text_of(row, settings))
            except CellError as error:
                problems.add(row.where, error)
        problems.raise_if_any()
        return tuple(texts)


@dataclass(frozen=True)
class Targets:
    """What is known of N rows' classes.

    Args:
        classes: (C,), sorted, of the caller's own kind; 0 to C - 1 where probabilities were given.
        labels: int64, (N,), indices of classes; -1 where two probabilities are highest.
        label_probs: float64, (N, C), normalised; None where labels were given.
    """

    classes: NDArray[Any]
    labels: IntArray
    label_probs: FloatArray | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes as files and recipes spell them."""
        return tuple(canonical(str(value)) for value in self.classes)


def text_columns(X: Any, names: Sequence[Any] | None) -> TextColumns:
    """Return the text columns of a data frame, of texts, or of an object array of K columns.

    Args:
        X: N rows.
        names: the K text columns of a frame; its only one if left out.

    Raises:
        InputError: X has no rows, is of another shape, or lacks a column.
    """
    if issparse(X):
        raise InputError("expected texts, got a sparse matrix: sparse input is not supported")
    is_frame = hasattr(X, "columns")
    if is_frame:
        names = _columns_of_frame(list(X.columns), names)
        cells = np.column_stack([np.asarray(X[name], dtype=object) for name in names])
    else:
        cells = np.asarray(X, dtype=object)
        cells = cells[:, None] if cells.ndim == 1 else cells
    K = 1 if names is None else len(names)
    if cells.ndim != 2 or cells.shape[1] != K:
        fix = "give [text]" if isinstance(X, str) else "name several text columns with the parameter `text`"
        columns = "1 column" if K == 1 else f"{K} columns"
        raise InputError(f"expected texts in {columns}, got {type(X).__name__} of shape {cells.shape}; {fix}")
    if not len(cells):
        raise InputError("expected one text or more, got 0 rows (samples)")
    return TextColumns(tuple(names) if is_frame and names else None, cells)


def targets_of(y: Any) -> Targets:
    """Return labels of any kind, (N,), or class probabilities, (N, C), as targets.

    Raises:
        ValueError: y is missing, continuous, mixed or incomplete, or its rows do not sum to one.
    """
    if y is None:
        raise InputError("a classifier requires y to be passed, but the target y is None")
    N, *rest = np.asarray(y).shape or (0,)
    if len(rest) == 1 and (C := rest[0]) > 1:
        probs = check_label_probs(y, N, C)
        return Targets(np.arange(C), np.array([likeliest(row) for row in probs], dtype=np.int64), probs)
    try:
        if isinstance(y, list | tuple) and any(_present(label) is None for label in y):
            y = np.asarray(y, dtype=object)  # beside text, NumPy would make a text of what is missing
        labels = column_or_1d(y, warn=True)
        assert_all_finite(labels, input_name="y")
        check_classification_targets(labels)
        classes, indices = np.unique(labels, return_inverse=True)
    except TypeError:
        raise InputError("expected labels of one kind in y and none missing, got a mixture") from None
    if len(classes) == 1:
        raise InputError(f"expected two classes or more in y, got one class: {classes[0]}")
    return Targets(classes, indices.astype(np.int64))


def _columns_of_frame(known: list[Any], names: Sequence[Any] | None) -> Sequence[Any]:
    """Return the text columns of a frame with these columns, each of which stands there once."""
    if names is None and len(known) == 1:
        return known
    if names is None:
        raise InputError(
            f"expected a frame with one column, got {len(known)} ({listed(known, 20)}); "
            "name the text columns with the parameter `text`"
        )
    for name in names:
        if known.count(name) != 1:
            guess = did_you_mean(str(name), map(str, known))
            raise InputError(
                f"expected one column {name!r} in the frame{guess}; its columns are {listed(known, 20)}"
            )
    return names


def _present(cell: object) -> object:
    """Return a cell, or None for what stands for a missing one: NaN, or pandas' NA."""
    return None if is_scalar_nan(cell) or is_pandas_na(cell) else cell
