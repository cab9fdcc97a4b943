"""Rows out of files: right ones in constant memory, and clear errors for broken ones."""

import gzip
import io
import json
import os
import sys
import threading
import tracemalloc

import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from credibly.data import read_rows
from credibly.errors import DataError


def rows_of(path):
    return list(read_rows(path))


def error_of(path):
    with pytest.raises(DataError) as caught:
        rows_of(path)
    return str(caught.value)


def written(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


class StandardInput:
    def __init__(self, content):
        self.buffer = io.BytesIO(content)


def test_csv_rows_carry_the_line_on_which_they_start(tmp_path):
    path = written(tmp_path, "a.csv", 'text,label\n"two\nlines, one cell",1\n\nplain,0\n')
    rows = rows_of(path)
    assert [row.values for row in rows] == [
        {"text": "two\nlines, one cell", "label": "1"},
        {"text": "plain", "label": "0"},
    ]
    assert [row.where for row in rows] == [f"{path}:2", f"{path}:5"]


def test_leading_blank_lines_count_in_line_numbers(tmp_path):
    path = written(tmp_path, "a.csv", "\n\r\n\ntext,label\ngood,1\n")
    assert rows_of(path)[0].where == f"{path}:5"


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl"])
def test_a_byte_order_mark_is_no_part_of_the_first_cell(tmp_path, name):
    content = {
        "a.csv": "text,label\na,b\n",
        "a.tsv": "text\tlabel\na\tb\n",
        "a.jsonl": '{"text": "a", "label": "b"}',
    }
    path = written(tmp_path, name, b"\xef\xbb\xbf" + content[name].encode())
    assert rows_of(path)[0].values == {"text": "a", "label": "b"}


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", [True, False])
def test_every_line_ending_gives_the_same_rows(tmp_path, ending, last):
    lines = ["text,label", "a,0", "", "b,1"]
    path = written(tmp_path, "a.csv", ending.join(lines) + (ending if last else ""))
    assert [(row.values["text"], row.where) for row in rows_of(path)] == [
        ("a", f"{path}:2"),
        ("b", f"{path}:4"),
    ]


def test_line_endings_inside_quotes_are_kept(tmp_path):
    path = written(tmp_path, "a.csv", 'text,label\n"a\rb\r\nc\nd",1\n')
    assert rows_of(path)[0].values["text"] == "a\rb\r\nc\nd"


def test_control_characters_and_nul_are_kept(tmp_path):
    text = "bell \x07 and nul \x00 and \x1f"
    assert rows_of(written(tmp_path, "a.csv", f"text,label\n{text},1\n"))[0].values["text"] == text
    assert rows_of(written(tmp_path, "a.jsonl", json.dumps({"text": text})))[0].values["text"] == text


def test_a_line_separator_inside_a_json_string_ends_no_line(tmp_path):
    path = written(tmp_path, "a.jsonl", '{"text": "a\u2028b\x85c"}\n{"text": "d"}\n')
    assert [row.values["text"] for row in rows_of(path)] == ["a\u2028b\x85c", "d"]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_a_cell_of_a_million_characters_is_read(tmp_path, name):
    text = "word " * 200_000
    content = f"text,label\n{text},1\n" if name == "a.csv" else json.dumps({"text": text, "label": 1})
    assert rows_of(written(tmp_path, name, content))[0].values["text"] == text


def test_header_names_lose_outer_spaces_and_empty_ones_are_numbered(tmp_path):
    path = written(tmp_path, "a.csv", ", text , label\n7,good,1\n")
    assert rows_of(path)[0].values == {"column 1": "7", "text": "good", "label": "1"}


def test_gzip_is_unpacked(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"text": "a"}\n{"text": "b"}\n'))
    assert [row.where for row in rows_of(path)] == [f"{path}:1", f"{path}:2"]


def test_parquet_rows_are_numbered_over_batches(tmp_path):
    path = tmp_path / "a.parquet"
    labels = pyarrow.array(["no", "yes"] * 1500).dictionary_encode()
    parquet.write_table(pyarrow.table({"text": [f"t{n}" for n in range(3000)], "label": labels}), path)
    rows = rows_of(path)
    assert len(rows) == 3000
    assert rows[2999].where == f"{path}:row 3000"
    assert rows[2999].values == {"text": "t2999", "label": "yes"}


@pytest.mark.parametrize(
    ("content", "values"),
    [
        (b'\xef\xbb\xbf\n {"text": "a", "n": 1}\n', {"text": "a", "n": 1}),
        (b"text,n\na,1\n", {"text": "a", "n": "1"}),
        (b"text\tn\na, b\t1\n", {"text": "a, b", "n": "1"}),
    ],
)
def test_standard_input_is_told_apart_by_its_first_line(monkeypatch, content, values):
    monkeypatch.setattr(sys, "stdin", StandardInput(content))
    rows = rows_of("-")
    assert rows[0].values == values
    assert rows[0].where.startswith("<stdin>:")


def test_a_named_pipe_is_read_like_standard_input(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(b'{"text": "through"}\n',))
    writer.start()
    assert rows_of(pipe)[0].values == {"text": "through"}
    writer.join()


BROKEN = {
    "empty.csv": (b"", ["empty"]),
    "blank.csv": (b"\n  \n\n", ["empty"]),
    "empty.jsonl": (b"\xef\xbb\xbf", ["empty"]),
    "header.csv": (b"text,label\n", ["header only"]),
    "latin.csv": ("text,label\nfine,1\ncafé,1\n".encode("latin-1"), [":3:", "0xe9", "byte 4", "UTF-8"]),
    "latin.jsonl": (b'{"text": "ok"}\n{"text": "\xff"}\n', [":2:", "0xff", "byte 11"]),
    "utf16.csv": ("text,label\na,1\n".encode("utf-16"), ["UTF-16"]),
    "sheet.csv": (b"PK\x03\x04rest", ["spreadsheet"]),
    "really.jsonl": (b"PAR1rest", [".parquet"]),
    "packed.csv": (gzip.compress(b"text\na\n"), [".gz"]),
    "few.csv": (b"text,label\na,1\nb\n", [":3:", "expected 2 cells", "got 1"]),
    "many.csv": (b"text,label\na,1\nwell, this,0\n", [":3:", "expected 2 cells", "got 3", "in quotes"]),
    "semicolons.csv": (b"text;label\nwell, this;1\n", [":2:", "semicolons"]),
    "after.csv": (b'text,label\n"a" b,1\n', [":2:", "quotes"]),
    "open.csv": (b'text,label\na,1\n"never closed,0\nb,1\n', [":3:", "never closes"]),
    "twice.csv": (b"text,label,text\na,1,b\n", [":1:", "'text'", "differ"]),
    "broken.jsonl": (b'{"text": "a"}\n{"text": "b"\n', [":2:", "broken JSON", "column"]),
    "number.jsonl": (b"3\n", [":1:", "JSON object", "3"]),
    "inner.jsonl": (b'{"text": "a"}\n[1, 2]\n', [":2:", "outer list"]),
    "list.json": (b'[\n{"text": "a"}\n]\n', [":1:", "list", "line"]),
    "deep.jsonl": (b'{"a":' + b"[" * 100_000, [":1:", "broken JSON"]),
    "digits.jsonl": (b'{"a": ' + b"1" * 5000 + b"}", [":1:", "broken JSON"]),
    "cut.csv.gz": (
        gzip.compress(b"text,label\n" + os.urandom(3000).hex().encode() + b",1\n")[:-40],
        ["cut off"],
    ),
    "plain.csv.gz": (b"text,label\na,1\n", ["gzip"]),
    "damaged.parquet": (b"PAR1 and then nothing of the kind PAR1", ["Parquet"]),
    "empty.parquet": (b"", ["Parquet"]),
    "table.xlsx": (b"PK\x03\x04", [".csv", ".xlsx"]),
    "words.txt": (b"a", [".jsonl", ".txt"]),
    "noname": (b"a", ["no suffix"]),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_named_with_place_and_fix(tmp_path, name):
    content, expected = BROKEN[name]
    path = written(tmp_path, name, content)
    message = error_of(path)
    assert name in message
    for part in expected:
        assert part in message, message
    assert len(message) < 1000


def test_rows_before_a_broken_one_are_yielded_first(tmp_path):
    rows = read_rows(written(tmp_path, "a.jsonl", '{"text": "a"}\nbroken\n'))
    assert next(rows).values == {"text": "a"}
    with pytest.raises(DataError, match=":2:"):
        next(rows)


def test_a_missing_file_is_answered_with_the_nearest_name(tmp_path):
    written(tmp_path, "reviews.csv", "text\na\n")
    assert "did you mean 'reviews.csv'" in error_of(tmp_path / "review.csv")
    assert "there is none" in error_of(tmp_path / "nowhere" / "review.csv")


@pytest.mark.parametrize("path", ["x" * 5000 + ".csv", "a\x00b.csv", "~nobody-of-this-name/a.csv", ""])
def test_a_path_that_cannot_be_one_is_a_data_error(path):
    assert error_of(path)


def test_a_parquet_file_with_a_column_twice_is_refused(tmp_path):
    path = tmp_path / "a.parquet"
    table = pyarrow.Table.from_arrays([pyarrow.array(["a"]), pyarrow.array(["b"])], names=["text", "text"])
    parquet.write_table(table, path)
    assert "'text'" in error_of(path) or "text" in error_of(path).split("repeat:")[1]


def test_a_parquet_file_without_rows_is_refused(tmp_path):
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"text": pyarrow.array([], pyarrow.string())}), path)
    assert "got none" in error_of(path)


def test_reading_takes_constant_memory(tmp_path):
    def peak(count):
        path = written(tmp_path, f"{count}.jsonl", '{"text": "some words of a review", "label": 1}\n' * count)
        tracemalloc.start()
        assert sum(1 for _ in read_rows(path)) == count
        _, highest = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return highest

    peak(10)
    assert peak(20_000) < 1.1 * peak(2_000) + 20_000


cells = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@settings(deadline=None)
@given(st.lists(st.tuples(cells, cells), min_size=1, max_size=6), st.sampled_from([",", "\t"]))
def test_what_the_csv_module_writes_is_read_back(tmp_path_factory, records, delimiter):
    import csv

    path = tmp_path_factory.mktemp("csv") / ("a.csv" if delimiter == "," else "a.tsv")
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle, delimiter=delimiter, quoting=csv.QUOTE_ALL)
        writer.writerows([("text", "label"), *records])
    assert [tuple(row.values.values()) for row in read_rows(path)] == records


@settings(deadline=None)
@given(st.binary(max_size=200), st.sampled_from(["a.csv", "a.tsv", "a.jsonl", "a.parquet", "a.csv.gz"]))
def test_any_bytes_give_rows_or_a_data_error(tmp_path_factory, content, name):
    path = tmp_path_factory.mktemp("any") / name
    path.write_bytes(content)
    try:
        outcome = rows_of(path)
    except DataError as error:
        outcome = str(error) if name in str(error) else None
    assert outcome
