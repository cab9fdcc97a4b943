"""Texts with labels out of files, the hub and the packaged reviews; splits, and the leak check."""

from credibly.data.examples import read_examples
from credibly.data.files import read_rows
from credibly.data.given import Given, whole_texts
from credibly.data.rows import Row
from credibly.data.splits import Splits, load_splits, split_examples, with_unlabelled
from credibly.data.stream import InputRow, input_row, stream_texts

__all__ = [
    "Given",
    "InputRow",
    "Row",
    "Splits",
    "input_row",
    "load_splits",
    "read_examples",
    "read_rows",
    "split_examples",
    "stream_texts",
    "whole_texts",
    "with_unlabelled",
]
