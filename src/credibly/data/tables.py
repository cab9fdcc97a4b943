"""Rows of CSV and TSV, strictly: a wrong quote or number of cells is an error that names the line."""

from __future__ import annotations

import csv
from collections.abc import Iterator

from credibly.data.rows import Row, other_delimiter, shortened
from credibly.errors import DataError, listed
from credibly.records import repeated

LARGEST_CELL = 2**31 - 1


def table_rows(lines: Iterator[str], name: str, delimiter: str) -> Iterator[Row]:
    """Yield one row a record of CSV or TSV, named by the line on which it starts."""
    columns: list[str] | None = None
    for line, cells in numbered_records(lines, name, delimiter):
        if columns is None:
            columns = column_names(cells, f"{name}:{line}")
        elif len(cells) == len(columns):
            yield Row(f"{name}:{line}", dict(zip(columns, cells, strict=True)))
        elif any(cell.strip() for cell in cells):
            raise DataError(wrong_width(f"{name}:{line}", cells, columns))


def numbered_records(lines: Iterator[str], name: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the records of CSV or TSV, each with the line on which it starts; blank lines are passed over.

    The csv module's own limit on the length of a cell, 131,072 characters, is lifted.
    """
    csv.field_size_limit(max(csv.field_size_limit(), LARGEST_CELL))
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise DataError(broken_record(f"{name}:{line}", reader.line_num, error)) from None
        if cells is None:
            return
        if cells:
            yield line, cells


def broken_record(where: str, last_line: int, error: csv.Error) -> str:
    """Say what is wrong with a record that the csv module refuses."""
    if "unexpected end of data" in str(error):
        return f"{where}: a quoted cell opens in this row and never closes; double the quotes inside cells"
    return (
        f"{where}: the quotes of this row are wrong (line {last_line}: {error}); "
        "put cells that contain quotes in quotes, and double the quotes inside"
    )


def column_names(cells: list[str], where: str) -> list[str]:
    """Return the header's names, stripped; a column without a name is called "column N".

    Raises:
        DataError: a name comes twice.
    """
    names = [cell.strip() or f"column {number}" for number, cell in enumerate(cells, start=1)]
    if twice := repeated(names):
        raise DataError(
            f"{where}: expected column names that differ; these repeat: {listed(map(shortened, twice))}"
        )
    return names


def wrong_width(where: str, cells: list[str], columns: list[str]) -> str:
    """Say that a record has too few or too many cells."""
    advice = (
        "put cells that contain the delimiter or quotes in quotes"
        if len(cells) > len(columns)
        else "is a line break or a delimiter missing?"
    )
    advice = other_delimiter(columns).strip(" ()") or advice
    return (
        f"{where}: expected {len(columns)} cells as in the header, got {len(cells)}, "
        f"beginning with {shortened(cells[0])}; {advice}"
    )
