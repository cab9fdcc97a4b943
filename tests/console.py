"""The command line in tests: commands run in this process, and what they leave behind."""

import csv
import io
import json
import sys
from typing import NamedTuple

import pytest

from credibly.cli import main
from workshop import quick

BLOCKED = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "transformers", "accelerate", "peft", "onnx"):
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)

sys.meta_path.insert(0, Blocked())
from credibly.cli import main
main()
"""
"""A program that runs the command line where torch and what goes with it are not installed."""


class Printed(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        """Standard output as one JSON document."""
        return json.loads(self.out)

    @property
    def rows(self):
        """Standard output as JSON Lines."""
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def command(monkeypatch, capfd):
    """Return a function that runs `credibly` in this process."""

    def run(*arguments, stdin=None):
        monkeypatch.setattr(sys, "argv", ["credibly", *map(str, arguments)])
        if stdin is not None:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capfd.readouterr()
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        return Printed(code, *capfd.readouterr())

    return run


@pytest.fixture
def fit_options(standin):
    """Options with which a stand-in's run takes a second."""
    settings = {**quick(standin()), **{"members.optimiser.epochs": 5, "distil.optimiser.epochs": 1}}
    del settings["backbone.name"], settings["members.count"], settings["members.optimiser.epochs"]
    return [
        "--backbone", standin(), "--members", 3, "--epochs", 5, "--source", "heads",
        *(part for key, value in settings.items() for part in ("--set", f"{key}={json.dumps(value)}")),
    ]  # fmt: skip


def with_keys(rows):
    return [{**row, "key": f"key {n}", "by": n // 2} for n, row in enumerate(rows)]


def csv_file(file, rows, text="review", label="stars"):
    with file.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow([text, label])
        writer.writerows([row["text"], row["label"]] for row in rows)
    return file


def rows_of(file):
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
