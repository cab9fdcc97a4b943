"""Predictions of any model, from a table or an NPZ file: probabilities by member, with labels and groups.

A table (CSV, TSV, JSON Lines, Parquet) has a row for each text and member: `id`, `probability.CLASS` for
each class (in JSON also an object `probabilities`), and, where there are such, `member`, `label`, `group`
and text columns. An NPZ file has the arrays `probabilities`, (N, C) or (M, N, C), `labels`, (N,), class
indices, and, where there are such, `class_names` and `groups`.
"""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from credibly.data.cells import (
    CellError,
    Problems,
    canonical,
    label_of,
    name_of,
    probabilities_of,
    probability_classes,
)
from credibly.data.files import open_source
from credibly.data.rows import Row, require_columns
from credibly.errors import CrediblyError, DataError, listed
from credibly.records import UNKNOWN, Examples, Predictions, repeated

PREFIX = "probability."
OBJECT = "probabilities"
UNREADABLE = (
    OSError, ValueError, EOFError, SyntaxError, RuntimeError, zipfile.BadZipFile, zlib.error,
    tokenize.TokenError,
)  # fmt: skip
"""What damaged archives raise."""
OWN_COLUMNS = {"probability", "total", "aleatoric", "epistemic"}
"""Columns of a file that `predict` wrote: there `label` is what was predicted."""


@dataclass(frozen=True)
class PredictionColumns:
    """Which column means what.

    Args:
        label: the true class; None where the file has none.
        id: names a text.
        member: names a member.
        group: names a slice.
        text: columns of the text itself, for the texts that are compared.
    """

    label: str | None = "label"
    id: str = "id"
    member: str = "member"
    group: str = "group"
    text: Sequence[str] = ("text",)


@dataclass(frozen=True)
class Judged:
    """Predictions with the examples that they are for, in the same order.

    Args:
        examples: labels, groups and texts; an id stands for a text that is not known.
        predictions: of M members.
        texts_known: whether the texts are.
    """

    examples: Examples
    predictions: Predictions
    texts_known: bool


def read_predictions(path: str | Path, columns: PredictionColumns | None = None) -> Judged:
    """Read saved predictions.

    Args:
        path: a table or an .npz file.
        columns: of a table; their usual names if left out.

    Raises:
        DataError: the file cannot be read, a row cannot be used, or members differ in their texts.
    """
    if Path(path).suffix.lower() == ".npz":
        return read_arrays(Path(path))
    source = open_source(path)
    first = next(source.rows)
    table = PredictionTable(first, columns or PredictionColumns(), str(path))
    for row in chain([first], source.rows):
        table.add(row)
    table.problems.raise_if_any()
    return table.judged()


@dataclass
class PredictionTable:
    """A table as it is read.

    Args:
        first: its first row, whose columns count.
        columns: which means what.
        name: of the file, for messages.
    """

    first: Row
    columns: PredictionColumns
    name: str
    problems: Problems = field(default_factory=Problems)

    def __post_init__(self) -> None:
        self.probabilities = probability_columns(self.first)
        self.class_names = probability_classes(self.probabilities)
        self.label = self._label_column()
        self.has_id, self.has_member, self.has_group = (
            self.first.has(column) for column in (self.columns.id, self.columns.member, self.columns.group)
        )
        self.has_text = all(map(self.first.has, self.columns.text))
        usual = vars(PredictionColumns())
        for name, column in vars(self.columns).items():
            if column is not None and column != usual[name]:
                named = [column] if isinstance(column, str) else list(column)
                require_columns(self.first, named, name)
        if self.has_member and not self.has_id:
            raise DataError(
                f"{self.first.where}: expected column {self.columns.id!r} beside {self.columns.member!r}: it "
                "says which text a member's row is for"
            )
        self.rows: dict[str, dict[str, list[float]]] = {}
        self.known: dict[str, tuple[str | None, str | None, str]] = {}

    def add(self, row: Row) -> None:
        """Take one row in."""
        try:
            self._add(row)
        except CellError as error:
            self.problems.add(row.where, error)

    def judged(self) -> Judged:
        """Return all rows as predictions, in the order in which their texts came first."""
        ids = tuple(self.known)
        for member, own in self.rows.items():
            if lacking := [name for name in ids if name not in own]:
                raise DataError(
                    f"{self.name}: expected every member on the same {len(ids)} texts; member {member} lacks "
                    f"{len(lacking)} (ids {listed(lacking)})"
                )
        labels, groups, texts = zip(*self.known.values(), strict=True)
        examples = Examples(
            ids=ids,
            texts=tuple(texts),
            class_names=self.class_names,
            labels=label_indices(labels, self.class_names, self.name),
            groups=tuple(groups) if self.has_group else None,
        )
        stacked = np.array([[own[name] for name in ids] for own in self.rows.values()])
        return Judged(examples, Predictions.from_probs(stacked, examples, file=self.name), self.has_text)

    def _add(self, row: Row) -> None:
        name = name_of(row, self.columns.id) if self.has_id else f"row-{len(self.known) + 1:06d}"
        member = name_of(row, self.columns.member) if self.has_member else ""
        own = self.rows.setdefault(member, {})
        if name in own:
            whose = f" of member {member}" if self.has_member else ""
            raise CellError(f"id {name!r}{whose} comes twice", "give every text one row a member")
        label = label_of(row, self.label) if self.label else None
        group = name_of(row, self.columns.group) if self.has_group else None
        cells = [row.cell(column) for column in self.columns.text]
        text = "\n".join(cell for cell in cells if isinstance(cell, str) and cell.strip())
        found = (label, group, text or name)
        if self.known.setdefault(name, found)[:2] != found[:2]:
            raise CellError(
                f"id {name!r} has another label or group than in an earlier row",
                "give a text one label and one group in all members' rows",
            )
        own[name] = probabilities_of(row, self.probabilities)

    def _label_column(self) -> str | None:
        column = self.columns.label
        if column is None or not self.first.has(column):
            return None
        if column == PredictionColumns.label and all(map(self.first.has, OWN_COLUMNS)):
            return None
        return column


def probability_columns(row: Row) -> list[str]:
    """Return the columns with class probabilities.

    Raises:
        DataError: there are not two or more.
    """
    block = row.values.get(OBJECT)
    names = (
        [f"{OBJECT}.{name}" for name in block]
        if isinstance(block, dict)
        else [name for name in row.values if name.startswith(PREFIX)]
    )
    if len(names) < 2 or repeated(probability_classes(names)):
        raise DataError(
            f"{row.where}: expected a column {PREFIX}CLASS for each of two classes or more, got "
            f"{listed(names) or 'none'}; the columns are {listed(row.values, 20)}"
        )
    return names


def label_indices(labels: Iterable[str | None], class_names: Sequence[str], name: str) -> NDArray[np.int64]:
    """Return class indices, int64, (N,), -1 where there is no label.

    Raises:
        DataError: a label is no class.
    """
    index = {own: place for place, own in enumerate(class_names)}
    given = list(labels)
    if strange := sorted({label for label in given if label is not None and label not in index}):
        raise DataError(
            f"{name}: labels {listed(strange)} are no classes; the probability columns are for "
            f"{listed(class_names, 20)}"
        )
    return np.array([UNKNOWN if label is None else index[label] for label in given], dtype=np.int64)


def read_arrays(path: Path) -> Judged:
    """Read an NPZ file; nothing in it is unpickled.

    Raises:
        DataError: it cannot be read, an array is missing, holds objects, or does not fit the others.
    """
    try:
        with path.open("rb") as handle, zipfile.ZipFile(handle):
            handle.seek(0)
            arrays = np.load(handle, allow_pickle=False)
            found = {name: arrays[name] for name in arrays.files}
    except UNREADABLE as error:
        advice = "; save it with plain numeric and text arrays" if "pickle" in str(error) else ""
        raise DataError(f"{path}: expected an NPZ file of plain arrays ({error}){advice}") from None
    if lacking := [name for name in ("probabilities", "labels") if name not in found]:
        raise DataError(f"{path}: expected arrays probabilities and labels; it lacks {listed(lacking)}")
    probabilities = found["probabilities"]
    if strange := [
        name for name in ("class_names", "groups", "labels") if name in found and found[name].ndim != 1
    ]:
        raise DataError(f"{path}: expected arrays of one axis, got another of {listed(strange)}")
    if probabilities.dtype.kind not in "fiub":
        raise DataError(f"{path}: expected probabilities as numbers, got {probabilities.dtype}")
    if probabilities.ndim not in (2, 3):
        raise DataError(f"{path}: expected probabilities (N, C) or (M, N, C), got {probabilities.shape}")
    N, C = probabilities.shape[-2:]
    names = [canonical(str(name)) for name in found.get("class_names", np.arange(C))]
    ids = tuple(f"row-{row:06d}" for row in range(1, N + 1))
    try:
        examples = Examples(
            ids=ids,
            texts=ids,
            class_names=tuple(names),
            labels=_indices(found["labels"]),
            groups=tuple(map(str, found["groups"])) if "groups" in found else None,
        )
        return Judged(examples, Predictions.from_probs(probabilities, examples, file=str(path)), False)
    except CrediblyError as error:
        raise DataError(f"{path}: {error}") from None


def _indices(labels: NDArray[Any]) -> NDArray[np.int64]:
    """Return labels that are whole numbers as such.

    Raises:
        DataError: they are not.
    """
    if labels.dtype.kind not in "iub" and not (
        labels.dtype.kind == "f" and np.isfinite(labels).all() and np.array_equal(labels, np.round(labels))
    ):
        raise DataError(f"expected labels as class indices, got {labels.dtype}: {listed(map(str, labels))}")
    return labels.astype(np.int64)


def with_truth(judged: Judged, truth: Examples) -> Judged:
    """Return predictions with the labels, groups and texts of a labelled file, joined by id.

    Raises:
        DataError: an id is in one of both only.
    """
    places = {name: place for place, name in enumerate(truth.ids)}
    ids = judged.examples.ids
    lacking = [name for name in ids if name not in places]
    known = set(ids)
    spare = [name for name in truth.ids if name not in known]
    if lacking or spare:
        raise DataError(
            f"expected the labelled file and the predictions to have the same ids; {len(lacking)} of the "
            f"predictions are not labelled ({listed(lacking) or 'none'}) and {len(spare)} labelled texts "
            f"have no prediction ({listed(spare) or 'none'}); name its id column with --id"
        )
    ordered = truth.take([places[name] for name in ids])
    if ordered.groups is None:
        ordered = replace(ordered, groups=judged.examples.groups)
    labelled = replace(
        judged.predictions,
        labels=ordered.labels,
        label_probs=ordered.label_probs,
        groups=ordered.group_numbers(),
    )
    return Judged(ordered, labelled, texts_known=True)
