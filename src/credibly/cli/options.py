"""Options that several verbs share, and what is given as NAME=VALUE on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
import yaml

from credibly.errors import InputError

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON alone on standard output.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log every step.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Log errors only, show no progress.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an unfinished run, or add to one.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing run.")]
RunFolder = Annotated[Path, typer.Argument(help="A run folder.", metavar="RUN")]
System = Annotated[str | None, typer.Option(help="Which system answers; the calibrated student by default.")]
TextColumns = Annotated[list[str] | None, typer.Option("--text", help="Text column; may be given again.")]
IdColumn = Annotated[str | None, typer.Option("--id", help="Id column.")]
Risk = Annotated[
    float | None, typer.Option(help="Answer only as long as at most this share of the answers is wrong.")
]
Coverage = Annotated[float | None, typer.Option(help="Answer this share of texts, the surest.")]
Sets = Annotated[
    float | None, typer.Option(help="Add the set of classes that holds the true one this often.")
]
Engine = Annotated[
    Literal["auto", "torch", "onnx"], typer.Option("--runtime", help="torch, or the export by ONNX Runtime.")
]
OutputFolder = Annotated[Path | None, typer.Option("--output", help="The run folder.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="Any recipe key, as KEY=VALUE; may be given again.")
]
LabelColumn = Annotated[str | None, typer.Option("--label", help="Label column.")]


def assigned(assignments: Sequence[str] | None) -> dict[str, Any]:
    """Return recipe values by dotted key, as `--set KEY=VALUE` gives them.

    >>> assigned(["members.count=5", "distil.tune=full"])
    {'members.count': 5, 'distil.tune': 'full'}

    Raises:
        InputError: an item has no key, no equals sign, or no value as YAML writes one.
    """
    return {key: value_of(key, value) for key, value in pairs(assignments or [], "--set KEY=VALUE").items()}


def value_of(key: str, text: str) -> Any:
    """Return what a recipe would read at this key.

    Raises:
        InputError: it is not YAML.
    """
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"--set {key}: expected a value as YAML writes it, got '{text}' ({reason})"
        ) from None


def names(text: str) -> list[str]:
    """Return the names in a list with commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def pairs(items: Sequence[str], expected: str) -> dict[str, str]:
    """Split NAME=VALUE items.

    Raises:
        InputError: an item has no name or no equals sign.
    """
    found: dict[str, str] = {}
    for item in items:
        name, sign, value = item.partition("=")
        if not (sign and name):
            raise InputError(f"expected {expected}, got '{item}'")
        found[name] = value
    return found


def given(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values that are not left out."""
    return {name: value for name, value in values.items() if value is not None}
