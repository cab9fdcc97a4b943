"""The run folder behind an estimator."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from credibly import workflows
from credibly.runs import Run

if TYPE_CHECKING:
    from credibly.workflows.answering.predicting import Predictor


class StoredRun:
    """A run folder that is opened when first asked, and goes with its last holder if it is temporary.

    A pickle of it holds the files themselves, so it can be read on another machine, where they are
    unpacked into a temporary folder. Language models that members share are no part of a run folder.

    Args:
        path: the folder; a temporary one if left out.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = Path(path or tempfile.mkdtemp(prefix="credibly-")).resolve()
        if path is None:
            weakref.finalize(self, _remove, self.path, os.getpid())

    @property
    def run(self) -> Run:
        """The folder's table of names."""
        return Run(self.path)

    @cached_property
    def predictor(self) -> Predictor:
        """The system to ship: the calibrated student where there is one, else the calibrated ensemble."""
        opened: Predictor = workflows.load(self.path)
        return opened

    def __getstate__(self) -> dict[str, bytes]:
        files = [file for file in sorted(self.path.rglob("*")) if file.is_file()]
        return {file.relative_to(self.path).as_posix(): file.read_bytes() for file in files}

    def __setstate__(self, files: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]
        for name, content in files.items():
            file = self.path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)


def _remove(path: Path, process: int) -> None:
    # A forked process drops its copies of objects too, and must leave the folder to its owner.
    if os.getpid() == process:
        shutil.rmtree(path, ignore_errors=True)
