"""The runtime: what an exported system answers, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from credibly.data.given import Given, whole_texts
from credibly.records import Examples, Predictions, unlabelled
from credibly.runs import EXPORT_FILE
from credibly.runtime.contents import MEMBERS_FOLDER, Contents, read_contents
from credibly.runtime.graph import Graph

Logits = NDArray[np.float32]


@dataclass(frozen=True)
class Runtime:
    """An exported system, ready to answer.

    Args:
        folder: of the export.
        contents: what it says of itself.
        graphs: one for most systems; several where the members are networks of their own.
    """

    folder: Path
    contents: Contents
    graphs: tuple[Graph, ...]

    @classmethod
    def open(cls, folder: Path | str, threads: int | None = None) -> Runtime:
        """Return the exported system in a folder.

        Args:
            folder: as `credibly export` wrote it.
            threads: cores to use; all that this process may if left out.

        Raises:
            RunFolderError: there is none, it is damaged, or its format version is another.
        """
        contents = read_contents(Path(folder))
        graphs = tuple(Graph.open(Path(folder), settings, threads) for settings in contents.graphs)
        return cls(Path(folder), contents, graphs)

    @property
    def name(self) -> str:
        """The system's name, for example "student+temperature"."""
        return self.contents.system

    @property
    def classes(self) -> tuple[str, ...]:
        """C class names."""
        return tuple(self.contents.classes)

    @property
    def max_tokens(self) -> int:
        """Where texts are cut; of several graphs, where the first of them cuts."""
        return min(graph.max_tokens for graph in self.graphs)

    @property
    def is_dirichlet(self) -> bool:
        """Whether the logits are log-concentrations."""
        return self.contents.is_dirichlet

    @property
    def count(self) -> int:
        """M."""
        return sum(settings.members for settings in self.contents.graphs)

    @property
    def members_folder(self) -> Path | None:
        """The folder of the exported members beside this system; None where they were not exported."""
        folder = self.folder / MEMBERS_FOLDER
        return folder if (folder / EXPORT_FILE).is_file() else None

    def texts(self, rows: Sequence[Given]) -> tuple[str, ...]:
        """Return texts as the model reads them, of strings or rows with the run's text columns.

        Raises:
            InputError: a text is not a string or is empty, or a row lacks a column.
        """
        return whole_texts(rows, self.contents.columns.data)

    def logits(self, texts: Sequence[str]) -> Logits:
        """Return calibrated logits, float32, (N, C); of a system of several members (M, N, C)."""
        members = self.member_logits(texts)
        return members[0] if self.count == 1 else members

    def member_logits(self, texts: Sequence[str]) -> Logits:
        """Return calibrated logits, float32, (M, N, C)."""
        if not len(texts):
            return np.zeros((self.count, 0, len(self.classes)), dtype=np.float32)
        return np.concatenate([graph.logits(texts) for graph in self.graphs])

    def predictions(self, texts: Sequence[str]) -> Predictions:
        """Return the calibrated record of texts, with ids from 0: with concentrations where it has them."""
        return self.record(self.member_logits(texts), unlabelled(texts, self.classes))

    def raw_predictions(self, examples: Examples) -> Predictions:
        """Return the record of the system as it stood before its calibration, as a run stores it."""
        return self.record(self.contents.calibration.raw(self.member_logits(examples.texts)), examples)

    def record(self, logits: Logits, examples: Examples) -> Predictions:
        """Return the record of logits, (M, N, C)."""
        if self.is_dirichlet:
            return Predictions.from_log_concentrations(logits[0], examples, source=self.name)
        return Predictions.from_logits(logits, examples, source=self.name)
