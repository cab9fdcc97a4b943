"""How long work tells what it has done."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Called with the units done and the units in all."""

Stages = Callable[[str], Progress]
"""Called with the name of a stage as it begins; returns what the stage calls as it goes on."""


def silent(stage: str) -> Progress:
    """Return progress that nobody is told of."""
    return lambda done, total: None
