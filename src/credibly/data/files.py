"""Rows from CSV, TSV, JSON Lines and Parquet files, one at a time, in constant memory.

The suffix decides the format; `-` is standard input, where the first character decides. A `.gz` after
the suffix is unpacked on the way.
"""

from __future__ import annotations

import gzip
import itertools
import json
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, NoReturn

from credibly.data.hub import is_dataset, open_dataset, parquet_rows
from credibly.data.rows import Row, Source, shortened
from credibly.data.tables import table_rows
from credibly.errors import DataError, did_you_mean, listed

STANDARD_INPUT = "-"
SUFFIXES = {
    ".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl",
    ".parquet": "parquet", ".pq": "parquet",
}  # fmt: skip
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
    yield from open_source(path).rows


def open_source(path: str | Path) -> Source:
    """Open what `read_rows` reads, with the class names that a data set declares.

    Raises:
        DataError: as `read_rows`, some of it only as rows are taken.
    """
    name = str(path)
    if name == STANDARD_INPUT:
        source = Source(text_rows(iter(sys.stdin.buffer), "<stdin>", None))
    elif is_dataset(name):
        source = open_dataset(name)
    else:
        source = Source(file_rows(Path(name)))
    return replace(source, rows=at_least_one(source.rows, name))


def at_least_one(rows: Iterator[Row], name: str) -> Iterator[Row]:
    """Yield rows, or raise DataError where there are none."""
    first = next(rows, None)
    if first is None:
        raise DataError(f"{name}: expected rows, got none; the file is empty or holds a header only")
    yield first
    yield from rows


def file_rows(given: Path) -> Iterator[Row]:
    """Yield the rows of one file; of a pipe, where the first character decides, as of standard input."""
    try:
        path = given.expanduser()
        exists, regular = path.exists() and not path.is_dir(), path.is_file()
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(
            f"expected a data file at {shortened(str(given), 200)}; it cannot be read ({error})"
        ) from None
    if not exists:
        missing(path)
    form = format_of(path) if regular else None
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
    if path.name == "reviews":
        raise DataError(
            "the packaged reviews can be given as data.train only, and there is no file called reviews"
        )
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
    blank_lines = 0
    for first in lines:
        first = first.removeprefix(b"" if blank_lines else BYTE_ORDER_MARK)
        if first.strip():
            break
        blank_lines += 1
    else:
        raise DataError(f"{name}: expected rows, got an empty file")
    refuse_other_formats(first, name)
    whole = itertools.chain(itertools.repeat(b"\n", blank_lines), [first], lines)
    texts = split_at_returns(decoded(whole, name))
    chosen = form or sniffed(first)
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


def split_at_returns(lines: Iterable[str]) -> Iterator[str]:
    """Yield lines split after lone carriage returns too, which end the lines of some old files."""
    for line in lines:
        start = 0
        while (end := line.find("\r", start)) >= 0:
            end += 2 if line.startswith("\n", end + 1) else 1
            yield line[start:end]
            start = end
        if start < len(line):
            yield line[start:]
