"""What is given as NAME=VALUE on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from credibly.errors import InputError


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
