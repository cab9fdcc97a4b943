"""Nested values set by dotted keys, such as `members.count`."""

from __future__ import annotations

from typing import Any

from credibly.errors import RecipeError


def with_values(values: dict[str, Any], assignments: dict[str, object]) -> dict[str, Any]:
    """Return nested values with dotted keys set, such as ``{"members.count": 5}``; lists count from 0.

    >>> with_values({"members": {"count": 10}}, {"members.count": 5, "seed": 1})
    {'members': {'count': 5}, 'seed': 1}

    Raises:
        RecipeError: a dotted key goes through something that holds no such key.
    """
    result: dict[str, Any] = dict(values)
    for key, value in assignments.items():
        *parents, last = key.split(".")
        block: Any = result
        for parent in parents:
            place: Any = _place_in(block, parent, key)
            inner = (block[place] if isinstance(block, list) else block.get(place)) or {}
            if not isinstance(inner, dict | list):
                raise RecipeError(f"{key}: {parent} is a value and holds no keys")
            block[place] = inner.copy()
            block = block[place]
        block[_place_in(block, last, key)] = value
    return result


def _place_in(block: dict[str, Any] | list[Any], name: str, key: str) -> str | int:
    """Return what a part of a dotted key means in a block: a key of a dictionary, or a place in a list."""
    if isinstance(block, dict):
        return name
    if name.isdecimal() and int(name) < len(block):
        return int(name)
    raise RecipeError(f"{key}: expected a number from 0 to {len(block) - 1}, got '{name}'")
