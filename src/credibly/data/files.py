"""Rows from CSV, TSV, JSON Lines and Parquet files, one at a time, in constant memory.

The suffix decides the format; `-` is standard input, where the first character decides. A `.gz` after
the suffix is unpacked on the way.
"""

from __future__ import annotations

import csv
import gzip
import itertools
import json
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NoReturn

from credibly.data.hub import hub_rows, is_dataset, parquet_rows
from credibly.data.rows import Row, shortened
from credibly.errors import DataError, did_you_mean, listed
from credibly.records import repeated

STANDARD_INPUT = "-"
SUFFIXES = {
    ".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl",
    ".parquet": "parquet", ".pq": "parquet",
}  # fmt: skip
LARGEST_CELL = 2**31 - 1
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
OTHER_FORMATS = {
    b"PK\x03\x04": "a spreadsheet or zip file: save the sheet as CSV (UTF-8)",
    b"PAR1": "Parquet: name the file with the suffix .parquet",
    b"\x1f\x8b": "gzip: name the file with .gz at the end",
    b"\xff\xfe": "UTF-16: save it as UTF-8",
    b"\xfe\xff": "UTF-16: save it as UTF-8",
    b"\xd0\xcf\x11\xe0": "an old Excel file: save the sheet as CSV (UTF-8)",
}
"""First bytes of files that are often given by mistake."""


def read_rows(path: str | Path) -> Iterator[Row]:
    """Yield the rows of a file, a hub data set or standard input, one at a time.

    Args:
        path: a .csv, .tsv, .jsonl or .parquet file (also with .gz, but Parquet), `-` for standard input,
            `hub:OWNER/NAME`, or a folder of a saved data set.

    Raises:
        DataError: the file is missing, empty, of an unknown format, not UTF-8, or a row is broken; the
            message names the line.
    """
    name = str(path)
    if name == STANDARD_INPUT:
        rows = text_rows(iter(sys.stdin.buffer), "<stdin>", None)
    elif is_dataset(name):
        rows = hub_rows(name)
    else:
        rows = file_rows(Path(name).expanduser())
    first = next(rows, None)
    if first is None:
        raise DataError(f"{name}: expected rows, got none; the file is empty or holds a header only")
    yield first
    yield from rows


def file_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of one file."""
    if not path.is_file():
        missing(path)
    form = format_of(path)
    if form == "parquet":
        yield from parquet_rows(path)
        return
    with reading(path) as handle:
        yield from text_rows(iter(handle), str(path), form)


def format_of(path: Path) -> str:
    """Return csv, tsv, jsonl or parquet by the file's suffix.

    Raises:
        DataError: the suffix is unknown.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    packed = bool(suffixes) and suffixes[-1] == ".gz"
    suffix = (suffixes[-2:-1] if packed else suffixes[-1:]) or [""]
    form = SUFFIXES.get(suffix[0])
    if form is None or (packed and form == "parquet"):
        raise DataError(
            f"{path}: expected a file named {listed(SUFFIXES, 20)}, got {path.suffix or 'no suffix'}"
            f"{did_you_mean(suffix[0], SUFFIXES) if suffix[0] else ''}; save it as one of these"
        )
    return form


def missing(path: Path) -> NoReturn:
    """Raise DataError for a path that is no file, with the nearest name beside it."""
    try:
        beside = [other.name for other in itertools.islice(path.parent.iterdir(), 10_000)]
    except OSError:
        beside = []
    raise DataError(f"expected a data file at {path}; there is none{did_you_mean(path.name, beside)}")


@contextmanager
def reading(path: Path) -> Iterator[IO[bytes]]:
    """Open a file, unpacking gzip, and say reading errors in our words."""
    try:
        with path.open("rb") as raw, gzip.open(raw) if path.suffix.lower() == ".gz" else raw as handle:
            yield handle  # type: ignore[misc]
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(
            f"{path}: the gzip file is damaged or cut off ({error}); fetch or pack it again"
        ) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None


def text_rows(lines: Iterator[bytes], name: str, form: str | None) -> Iterator[Row]:
    """Yield rows of lines of CSV, TSV or JSON Lines; without a format, the first character decides."""
    blank: list[bytes] = []
    for line in lines:
        blank.append(line)
        if line.removeprefix(BYTE_ORDER_MARK).strip():
            break
    else:
        raise DataError(f"{name}: expected rows, got an empty file")
    blank[0] = blank[0].removeprefix(BYTE_ORDER_MARK)
    refuse_other_formats(blank[0], name)
    texts = split_at_returns(decoded(itertools.chain(blank, lines), name))
    chosen = form or sniffed(blank[-1])
    if chosen == "jsonl":
        yield from json_rows(texts, name)
    else:
        yield from table_rows(texts, name, "\t" if chosen == "tsv" else ",")


def sniffed(line: bytes) -> str:
    r"""Return the format that a first line looks like.

    >>> sniffed(b'{"text": "a"}'), sniffed(b"text,label"), sniffed(b"text\tlabel")
    ('jsonl', 'csv', 'tsv')
    """
    if line.lstrip()[:1] in (b"{", b"["):
        return "jsonl"
    return "tsv" if b"\t" in line and b"," not in line else "csv"


def refuse_other_formats(first: bytes, name: str) -> None:
    """Raise DataError where the first bytes are those of a file of another kind."""
    for magic, advice in OTHER_FORMATS.items():
        if first.startswith(magic):
            raise DataError(f"{name}: expected text in UTF-8; this looks like {advice}")


def decoded(lines: Iterable[bytes], name: str) -> Iterator[str]:
    """Yield lines as text.

    Raises:
        DataError: bytes that are not UTF-8, with line and byte.
    """
    for number, line in enumerate(lines, start=1):
        try:
            yield line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{name}:{number}: expected UTF-8, got 0x{line[error.start]:02x} at byte {error.start + 1} "
                "of the line; save the file as UTF-8 (for example: iconv -f WINDOWS-1252 -t UTF-8)"
            ) from None


def json_rows(lines: Iterable[str], name: str) -> Iterator[Row]:
    """Yield one row a JSON object; blank lines are passed over."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{name}:{number}"
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: {broken_json(line, error)}") from None
        if not isinstance(values, dict):
            advice = "; write one object a line, without the outer list" if isinstance(values, list) else ""
            raise DataError(f"{where}: expected a JSON object, got {shortened(line.strip())}{advice}")
        yield Row(where, values)


def broken_json(line: str, error: Exception) -> str:
    """Say what is wrong with a line that is no JSON."""
    if line.lstrip()[:1] == "[":
        return "expected one JSON object a line, got a JSON list; write each object on its own line"
    detail = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
    return f"expected one JSON object a line, got broken JSON ({detail}): {shortened(line.strip())}"


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
    return (
        f"{where}: expected {len(columns)} cells as in the header, got {len(cells)}, "
        f"beginning with {shortened(cells[0])}; {advice}"
    )


def split_at_returns(lines: Iterable[str]) -> Iterator[str]:
    """Yield lines split after lone carriage returns too, which end lines in some old files."""
    for line in lines:
        start = 0
        while 0 <= (end := line.find("\r", start)) < len(line) - 2:
            end += 2 if line[end + 1] == "\n" else 1
            yield line[start:end]
            start = end
        if start < len(line):
            yield line[start:]
