"""Sentences that say a text's class: texts are compared with them, or held to entail them or not."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from credibly.backbones.label_words import checked_words
from credibly.errors import InputError, RunFolderError
from credibly.members.opinions import Bias
from credibly.members.prompt_texts import DEFAULT_DESCRIPTION, Task, check_fields
from credibly.parted import filled
from credibly.runs import write_json
from credibly.settings import EntailmentSettings, SimilaritySettings

FILE = "statements.json"
Statements = tuple[tuple[str, ...], ...]
"""M members' sentences, C each."""

TEMPLATES = (
    "This example is {class}.",
    "The {what} of this {thing} is {class}.",
    "This {thing} is {class}.",
    "{What}: {class}.",
    "It was {class}.",
    "The {what} is {class}.",
    "This is a case of {class}.",
    "{class}",
)
"""The default templates, in the order in which members take them."""


def statements_of(
    class_names: Sequence[str], settings: SimilaritySettings | EntailmentSettings, seeds: Sequence[int]
) -> Statements:
    """Return each member's sentence for each class.

    Raises:
        InputError: templates or words that do not fit, or more members than templates.
    """
    words = tuple(checked_words(class_names, settings.label_words))
    templates = settings.templates or TEMPLATES
    for template in templates:
        check_fields(template, "class")
    if len(seeds) > len(templates):
        raise InputError(
            f"members of {settings.source} differ by their templates alone: expected at most "
            f"{len(templates)} members, got {len(seeds)}; give fewer, or more members.templates"
        )
    cells = Task(words, settings.description or DEFAULT_DESCRIPTION).cells

    def said(template: str, word: str) -> str:
        return str(filled(template, {**cells, "class": word}, cut="class"))

    return tuple(tuple(said(templates[seed % len(templates)], word) for word in words) for seed in seeds)


def save_statements(folder: Path, statements: Sequence[str], bias: Mapping[str, Any]) -> None:
    """Write one member's sentences, and its bias as `Bias.content` holds it."""
    write_json(folder / FILE, {"statements": list(statements), **bias})


def load_statements(folders: Sequence[Path], class_names: Sequence[str]) -> tuple[Statements, Bias]:
    """Return saved members' sentences, and their bias.

    Raises:
        RunFolderError: a file is damaged.
    """
    C = len(class_names)
    read = [_read(folder / FILE, C) for folder in folders]
    return tuple(own for own, _ in read), Bias.joined([bias for _, bias in read])


def _read(file: Path, C: int) -> tuple[tuple[str, ...], Bias]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        statements = tuple(map(str, content["statements"]))
        if len(statements) != C:
            raise ValueError(f"expected {C} statements")
        return statements, Bias.read(content, C)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunFolderError(f"{file} is damaged ({error}); run again with --overwrite") from None
