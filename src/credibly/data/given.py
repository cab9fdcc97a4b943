"""Texts as a caller in memory gives them: strings, or rows with the columns that make one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from credibly.data.rows import Row
from credibly.data.stream import input_row
from credibly.errors import InputError, listed
from credibly.parted import PartedText
from credibly.settings import DataSettings

Given = str | Mapping[str, object]
"""A text, or a row with the columns that make one."""


def whole_texts(texts: Sequence[Given], settings: DataSettings) -> tuple[str, ...]:
    """Return texts as the model reads them: rows put together as the run's own were.

    Args:
        texts: strings, or rows with the run's text columns, which a template or pair needs.
        settings: the run's columns.

    Raises:
        InputError: a text is not a string or is empty, or a row lacks a column.
    """
    if isinstance(texts, str | Mapping):
        raise InputError("expected a list of texts, got one text; give [text]")
    columns = settings.model_copy(update={"id": None})
    whole = [
        input_row(Row(f"text {index}", dict(text)), columns, "").text if isinstance(text, Mapping) else text
        for index, text in enumerate(texts)
    ]
    wrong = [index for index, text in enumerate(whole) if not isinstance(text, str) or not text.strip()]
    if wrong:
        raise InputError(f"expected texts that are not empty; see positions {listed(wrong)}")
    if settings.cut_column and not all(isinstance(text, PartedText) for text in whole):
        raise InputError(
            "the run reads columns together: expected rows, such as "
            f"{{{listed((f'{name!r}: ...' for name in settings.text), 20)}}}, got a text"
        )
    return tuple(whole)
