"""Texts that are to be labelled, and the few labelled ones that a prompt shows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from credibly.data.cutting import limited
from credibly.data.examples import read_examples
from credibly.data.files import STANDARD_INPUT, read_rows
from credibly.data.leaks import repeats, rows
from credibly.data.rows import shortened
from credibly.data.text import text_key
from credibly.errors import DataError, InputError, listed
from credibly.records import Examples, check_class_names
from credibly.settings import DataSettings

LABEL = "label"


def texts_to_label(
    settings: DataSettings, class_names: Sequence[str], seed: int = 0
) -> tuple[Examples, list[str]]:
    """Return a file's texts, all of unknown class, and a note where it holds labels, which are not read.

    Args:
        settings: the file, its columns, and under `limit` how many of its rows.
        class_names: C names.
        seed: of the draw where not all are taken.

    Raises:
        DataError: the file cannot be read, or rows have no text: up to five are named by line.
        RecordError: there are fewer than two classes, or ids repeat.
    """
    check_class_names(class_names)
    if settings.train == STANDARD_INPUT:
        raise InputError("expected a file to label, got standard input, which --resume could not read again")
    examples = read_examples(
        settings.train,
        settings.model_copy(update={"label": None, "probabilities": None}),
        class_names,
        labelled=False,
    )
    examples = limited(examples, settings.limit.get("train"), seed=seed)
    first = next(read_rows(settings.train))
    ignored = f"{settings.train}: column '{LABEL}' is not read; texts are labelled as if nobody knew it"
    return examples, [ignored] if first.has(LABEL) else []


def shown_examples(
    path: str | Path, settings: DataSettings, class_names: Sequence[str], texts: Examples | None
) -> tuple[Examples, list[str]]:
    """Return labelled texts to show in prompts, and what is to be known of them.

    They may be some of those that are to be labelled: a few of one's texts labelled by hand, and all of them
    asked about.

    Args:
        path: a file with the text columns and `label`.
        settings: the text columns.
        class_names: C names.
        texts: that are to be labelled with the examples in view; None where nobody looks at these.

    Raises:
        DataError: the file cannot be used, or one text has two labels.
    """
    columns = settings.model_copy(update={"label": LABEL, "id": None, "probabilities": None, "weight": None})
    examples = read_examples(path, columns, class_names, name="example")
    keys = [text_key(text) for text in examples.texts]
    _check_contradictions(path, examples, keys)
    notes: list[str] = []
    shown = set(keys)
    if texts is not None and (count := sum(text_key(text) in shown for text in texts.texts)):
        notes.append(
            f"{settings.train}: {rows(count)} whose text also stands in examples; what is said of such a "
            "text does not tell how good the prompts are, for they show its label"
        )
    notes += repeats("examples", examples, keys)
    absent = [name for index, name in enumerate(class_names) if index not in examples.labels]
    if absent:
        notes.append(f"examples: none is of class {listed(absent)}; prompts then lean towards the others")
    return examples, notes


def _check_contradictions(path: str | Path, examples: Examples, keys: Sequence[str]) -> None:
    """Raise DataError where a text stands twice with different labels."""
    labels: dict[str, set[int]] = {}
    for key, label in zip(keys, examples.labels, strict=True):
        labels.setdefault(key, set()).add(int(label))
    wrong = [shortened(text) for text, key in zip(examples.texts, keys, strict=True) if len(labels[key]) > 1]
    if wrong:
        raise DataError(
            f"{path}: {rows(len(wrong))} contradict each other: the same text with another label, "
            f"{listed(dict.fromkeys(wrong))}; keep one of each"
        )
