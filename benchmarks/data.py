"""Labelled data sets for the benchmarks, as JSON Lines in the folder that `make bench DATA=FOLDER` names."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

VARIABLE = "CREDIBLY_BENCHMARK_DATA"


def rows_of(name: str, count: int | None = None, seed: int = 0) -> list[dict[str, Any]] | None:
    """Return rows of `NAME.jsonl`, so many drawn at random; None where the file is not there."""
    folder = os.environ.get(VARIABLE)
    file = Path(folder or ".") / f"{name}.jsonl"
    if not folder or not file.is_file():
        return None
    with file.open(encoding="utf-8") as lines:  # a text may hold other line ends than a file's
        rows = [json.loads(line) for line in lines]
    if count is None or count >= len(rows):
        return rows
    return [rows[index] for index in np.random.default_rng(seed).choice(len(rows), count, replace=False)]


def missing(name: str) -> str:
    """Say why a benchmark without its data is skipped."""
    return f"needs {name}.jsonl, with text columns and an integer label: make bench DATA=FOLDER"
