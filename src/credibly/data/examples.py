"""Rows to `Examples`: which column means what, and every problem of a file at once."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from credibly.data.cells import (
    CellError,
    Problems,
    canonical,
    label_of,
    likeliest,
    name_of,
    named,
    probabilities_of,
    probability_classes,
    text_of,
    weight_of,
)
from credibly.data.files import STANDARD_INPUT, open_source
from credibly.data.rows import Row, require_columns, shortened
from credibly.errors import DataError, did_you_mean, listed
from credibly.records import UNKNOWN, Examples, repeated
from credibly.settings import DataSettings


@dataclass(frozen=True)
class Wanted:
    """What is to be read of each row.

    Args:
        text: of which columns, and how, a text is made.
        label: label column, if there is one.
        probabilities: probability columns; empty where there are none.
        id: id column, if there is one.
        group: group column, if there is one.
        weight: column of weights, if there is one.
        labelled: whether a row without label and probabilities is an error.
        classes: the known class names; None where they are still to be found.
    """

    text: DataSettings
    label: str | None
    probabilities: Sequence[str]
    id: str | None
    group: str | None
    weight: str | None
    labelled: bool
    classes: Sequence[str] | None


def read_examples(
    path: str | Path,
    settings: DataSettings,
    class_names: Sequence[str] | None = None,
    labelled: bool = True,
    name: str = "",
) -> Examples:
    """Read a file, a hub data set or standard input into examples.

    Args:
        path: what `read_rows` reads.
        settings: which column means what.
        class_names: the known classes, in order; any other label is then an error. None to find them:
            integers in numerical order, names in alphabetical order, or as the data set declares them.
        labelled: whether every row needs a label or probabilities; otherwise a row without is unknown.
        name: what ids begin with where there is no id column; the file's name if left out.

    Raises:
        DataError: the file cannot be read or rows cannot be used: up to five are named by line.
    """
    check_settings(settings)
    source = open_source(path)
    reader = gathered(source.rows, settings, class_names, labelled, name or stem(path))
    declared = source.classes.get(settings.label or "", ())
    return reader.examples(
        reader.wanted.classes or found_classes(path, settings.label, reader.labels, declared)
    )


def read_elsewhere(
    path: str | Path, settings: DataSettings, class_names: Sequence[str], name: str = ""
) -> tuple[Examples, int]:
    """Read texts of another domain, which may be without labels or have other ones.

    Where no label is a class, whatever its case, labels are not looked at; where only some are strange, that
    is an error.

    Returns:
        The examples, and how many other labels there are.

    Raises:
        DataError: as for `read_examples`.
    """
    check_settings(settings)
    rows = list(open_source(path).rows)
    strange = other_labels(rows, settings.label, class_names)
    columns = blind(settings) if strange else settings
    reader = gathered(iter(rows), columns, class_names, False, name or stem(path))
    return reader.examples(class_names), len(strange)


def blind(settings: DataSettings) -> DataSettings:
    """Return the columns of texts whose labels are not looked at."""
    return settings.model_copy(update={"label": None, "probabilities": None, "group": None, "weight": None})


def other_labels(rows: Sequence[Row], column: str | None, class_names: Sequence[str]) -> set[str]:
    """Return the labels in a column of which none is a class; none where some are, or there are no labels."""
    labels: set[str] = set()
    for row in rows if column is not None else ():
        with suppress(CellError):  # is told by its line if labels are looked at
            labels |= {label for label in [label_of(row, str(column))] if label is not None}
    known = {name.casefold() for name in class_names}
    return set() if known & {label.casefold() for label in labels} else labels


def gathered(
    rows: Iterator[Row],
    settings: DataSettings,
    class_names: Sequence[str] | None,
    labelled: bool,
    prefix: str,
) -> ExampleReader:
    """Return the reader of all rows, whose first says which columns there are.

    Raises:
        DataError: a column is missing, or rows cannot be used.
    """
    first = next(rows)
    reader = ExampleReader(wanted_of(first, settings, class_names, labelled), prefix)
    for row in itertools.chain([first], rows):
        reader.add(row)
    reader.problems.raise_if_any()
    return reader


def stem(path: str | Path) -> str:
    """Return what a file's ids begin with.

    >>> stem("folder/test.jsonl.gz"), stem("hub:owner/name@test"), stem("-")
    ('test', 'name@test', 'input')
    """
    return "input" if str(path) == STANDARD_INPUT else Path(str(path)).name.partition(".")[0] or "row"


def check_settings(settings: DataSettings) -> None:
    """Raise DataError where the columns asked for cannot be."""
    check_text_columns(settings)
    if settings.label in settings.text:
        raise DataError(f"column {settings.label!r} is named both as text and as label; name two columns")
    if settings.probabilities is None:
        return
    classes = probability_classes(settings.probabilities)
    if len(classes) < 2 or repeated(classes):
        raise DataError(
            "expected two probability columns or more, one a class, each of another class, got "
            f"{listed(settings.probabilities) or 'none'}; name a column for every class"
        )


def check_text_columns(settings: DataSettings) -> None:
    """Raise DataError where no text column is named, or one twice."""
    if not settings.text or len(set(settings.text)) < len(settings.text):
        raise DataError(
            f"expected text columns that differ in data.text, got {listed(settings.text) or 'none'}"
        )


def require_text_columns(row: Row, settings: DataSettings) -> None:
    """Raise DataError where a file's first row lacks a text column."""
    require_columns(row, settings.text, "text" if settings.template is None else "template")


def wanted_of(
    first: Row, settings: DataSettings, class_names: Sequence[str] | None, labelled: bool
) -> Wanted:
    """Return what is to be read, by the first row; columns that are needed and not there are an error."""
    require_text_columns(first, settings)
    if settings.id is not None:
        require_columns(first, [settings.id], "id")
    columns = settings.probabilities or []
    if class_names is not None and settings.label is not None and first.has(settings.label):
        # A further file may hold labels in place of probabilities; where classes are still to be found, that
        # none of the columns is there is rather a slip.
        columns = columns if any(first.has(column) for column in columns) else []
    if labelled and columns:
        require_columns(first, columns, "probabilities")
    elif labelled and settings.label is not None:
        require_columns(first, [settings.label], "label")
    elif labelled:
        raise DataError(
            f"{first.where}: expected data.label or data.probabilities to name columns, got neither"
        )
    columns = columns if all(first.has(column) for column in columns) else []
    return Wanted(
        text=settings,
        label=settings.label,
        probabilities=columns,
        id=settings.id,
        group=settings.group if settings.group is not None and first.has(settings.group) else None,
        weight=settings.weight if settings.weight is not None and first.has(settings.weight) else None,
        labelled=labelled,
        classes=known_classes(columns, class_names, first),
    )


def known_classes(
    columns: Sequence[str], class_names: Sequence[str] | None, first: Row
) -> Sequence[str] | None:
    """Return the classes known before any label is read."""
    if not columns:
        return class_names
    classes = probability_classes(columns)
    if class_names is not None and set(classes) != set(map(canonical, class_names)):
        raise DataError(
            f"{first.where}: expected probabilities of the classes {listed(class_names, 20)}, "
            f"got {named(columns)} for {listed(classes, 20)}; name them CLASS or PREFIX.CLASS"
        )
    return class_names or classes


def found_classes(
    path: str | Path, column: str | None, labels: Sequence[str | None], declared: Sequence[str]
) -> tuple[str, ...]:
    """Return the classes of a label column: in the order the data set declares, else sorted.

    Raises:
        DataError: there are fewer than two.
    """
    found = {label for label in labels if label is not None}
    if len(found) < 2:
        raise DataError(
            f"{path}: expected two classes or more in label column {column!r}, "
            f"got {'only ' + listed(map(shortened, found)) if found else 'no label'}; "
            "add rows of another class, or name the right column as data.label"
        )
    order = [canonical(name) for name in declared]
    if found <= set(order):
        return tuple(name for name in order if name in found)
    return tuple(sorted(found, key=label_order))


def label_order(name: str) -> tuple[bool, int, str]:
    """Return the key that sorts integers by value and before names."""
    number = int(name) if re.fullmatch(r"[+-]?[0-9]{1,20}", name) else None
    return number is None, number or 0, name


class ExampleReader:
    """Gathers rows, and every problem with them.

    Args:
        wanted: what is to be read of each row.
        prefix: what ids begin with where there is no id column.
    """

    def __init__(self, wanted: Wanted, prefix: str) -> None:
        self.wanted, self.prefix = wanted, prefix
        self.problems = Problems()
        self.count = 0
        self.places: dict[str, str] = {}
        self.texts: list[str] = []
        self.labels: list[str | None] = []
        self.probabilities: list[list[float]] = []
        self.groups: list[str] = []
        self.weights: list[float] = []
        self.known = None if wanted.classes is None else {canonical(name): name for name in wanted.classes}
        self.column_classes = probability_classes(wanted.probabilities)

    def add(self, row: Row) -> None:
        """Read one row; every part of it that cannot be used becomes a problem of the file."""
        self.count += 1
        for read in (self._read_id, self._read_text, self._read_group, self._read_weight, self._read_label):
            try:
                read(row)
            except CellError as error:
                self.problems.add(row.where, error)

    def examples(self, classes: Sequence[str]) -> Examples:
        """Return all rows as examples of these classes."""
        index = {name: number for number, name in enumerate(classes)}
        labels = [UNKNOWN if label is None else index[label] for label in self.labels]
        order = (
            [self.column_classes.index(canonical(name)) for name in classes] if self.column_classes else []
        )
        return Examples(
            ids=tuple(self.places),
            texts=tuple(self.texts),
            class_names=tuple(classes),
            labels=np.asarray(labels, dtype=np.int64),
            label_probs=np.asarray(self.probabilities)[:, order] if order else None,
            groups=tuple(self.groups) if self.wanted.group is not None else None,
            weights=np.asarray(self.weights) if self.wanted.weight is not None else None,
        )

    def _read_id(self, row: Row) -> None:
        column = self.wanted.id
        name = f"{self.prefix}-{self.count:06d}" if column is None else name_of(row, column)
        if name in self.places:
            raise CellError(
                f"id {shortened(name, 40)} stands already at {self.places[name]}",
                "ids must differ within a file",
            )
        self.places[name] = row.where

    def _read_text(self, row: Row) -> None:
        self.texts.append(text_of(row, self.wanted.text))

    def _read_group(self, row: Row) -> None:
        if self.wanted.group is not None:
            self.groups.append(name_of(row, self.wanted.group))

    def _read_weight(self, row: Row) -> None:
        if self.wanted.weight is not None:
            self.weights.append(weight_of(row, self.wanted.weight))

    def _read_label(self, row: Row) -> None:
        label = self._checked_label(row)
        if self.wanted.probabilities:
            probabilities = probabilities_of(row, self.wanted.probabilities)
            self.probabilities.append(probabilities)
            best = likeliest(probabilities)
            label = label or (None if best < 0 else self._name(self.column_classes[best]))
        elif label is None and self.wanted.labelled:
            raise CellError(
                f"column {self.wanted.label!r} has no label",
                "fill in the labels, or give rows without one as unlabelled data",
            )
        self.labels.append(label)

    def _checked_label(self, row: Row) -> str | None:
        column = self.wanted.label
        label = None if column is None else label_of(row, column)
        if label is not None and self.known is not None and label not in self.known:
            raise CellError(
                f"column {column!r} holds the unknown label {shortened(label, 40)}"
                f"{did_you_mean(label, self.known)}",
                f"the known classes are {listed(self.known.values(), 20)}"
                + ("" if self.wanted.labelled else "; leave the column out of a set with other classes"),
            )
        return None if label is None else self._name(label)

    def _name(self, label: str) -> str:
        """Return a class as the caller calls it."""
        return label if self.known is None else self.known[label]
