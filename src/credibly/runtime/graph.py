"""One ONNX graph with its tokenizer: texts in, logits out, in batches of similar length."""

from __future__ import annotations

import logging
import os
import platform
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from credibly.encoding import TYPES
from credibly.errors import InputError, RunFolderError
from credibly.records import IntArray
from credibly.runtime.contents import AGAIN, GraphFile
from credibly.runtime.tokenizer import PlainTokenizer
from credibly.tokens import PaddedRows, Tokens, length_batches, padded_rows, tokenise

TOKEN_BUDGET = 512
"""Padded tokens in a batch: its states then stay in one core's cache."""
BATCHES_A_WORKER = 4
"""At least, of few texts too: lengths in a batch differ less then, and no core waits long for another."""
MOST_WORKERS = 8
Logits = NDArray[np.float32]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Graph:
    """A graph, ready to answer.

    Args:
        session: of ONNX Runtime.
        tokenizer: the model's own.
        settings: how it reads texts.
        workers: batches that run side by side.
    """

    session: Any
    tokenizer: PlainTokenizer
    settings: GraphFile
    workers: int = 1
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @classmethod
    def open(cls, folder: Path, settings: GraphFile, threads: int | None = None) -> Graph:
        """Read a graph and its tokenizer.

        Args:
            folder: of the export.
            settings: of the graph.
            threads: cores to use; all that this process may if left out.

        Raises:
            RunFolderError: a file is damaged.
        """
        file = folder / settings.file
        try:
            session = session_of(file)
        except Exception as error:  # the library's errors have no common base
            raise RunFolderError(f"{file} cannot be run ({error}); {AGAIN}") from None
        if settings.needs_vnni and not multiplies_integers():
            log.warning("%s was made for a processor with VNNI and is off on this one; export it here", file)
        tokenizer = PlainTokenizer.open(folder, settings)
        return cls(session, tokenizer, settings, min(threads or available_cores(), MOST_WORKERS))

    @property
    def max_tokens(self) -> int:
        """Where texts are cut."""
        return self.settings.max_tokens

    def tokens(self, texts: Sequence[str]) -> Tokens:
        """Return the texts' tokens.

        Raises:
            InputError: a text is no valid Unicode.
        """
        with self._lock:  # where a text is cut is a state of the tokenizer
            try:
                return tokenise(self.tokenizer, texts, self.max_tokens)
            except (UnicodeEncodeError, TypeError):  # which of them depends on the library's version
                raise InputError("expected texts in valid Unicode, got half a character") from None

    def logits(self, texts: Sequence[str]) -> Logits:
        """Return logits, float32, (M, N, C)."""
        return self.token_logits(self.tokens(texts))

    def token_logits(self, tokens: Tokens) -> Logits:
        """Return the logits of N texts that are tokens already, float32, (M, N, C)."""
        share = -(-int(tokens.lengths.sum()) // (self.workers * BATCHES_A_WORKER))
        batches = length_batches(tokens.lengths, min(TOKEN_BUDGET, share), tokens.max_tokens)
        if self.workers == 1 or len(batches) < 2:
            parts = [self.run(padded_rows(tokens, rows)) for rows in batches]
        else:
            with ThreadPoolExecutor(self.workers) as pool:
                parts = list(pool.map(lambda rows: self.run(padded_rows(tokens, rows)), batches))
        return _in_order(parts, batches, len(tokens))

    def run(self, rows: PaddedRows) -> Logits:
        """Return the logits of a batch, float32, (M, B, C)."""
        (logits,) = self.outputs(rows, ["logits"])
        return logits if logits.ndim == 3 else logits[None]

    def outputs(self, rows: PaddedRows, names: Sequence[str]) -> list[NDArray[np.float32]]:
        """Return some of what the graph gives for a batch, by name."""
        inputs = {"input_ids": rows.ids, "attention_mask": rows.mask}
        if self.settings.tells_pairs_apart:
            inputs[TYPES] = np.zeros_like(rows.ids) if rows.types is None else rows.types
        found: list[NDArray[np.float32]] = self.session.run(names, inputs)
        return found


def _in_order(parts: Sequence[Logits], batches: Sequence[IntArray], N: int) -> Logits:
    """Return batches' logits in the order of the texts."""
    M, _, C = parts[0].shape
    logits = np.empty((M, N, C), dtype=np.float32)
    for rows, part in zip(batches, parts, strict=True):
        logits[:, rows] = part
    return logits


def available_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def session_of(graph: Path | bytes) -> Any:
    """Return an ONNX Runtime session of a graph, a file's or in memory, on one core.

    Batches run side by side, each on a core of its own: many of a graph's steps are too small to share.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    source = graph if isinstance(graph, bytes) else str(graph)
    return onnxruntime.InferenceSession(source, options, ["CPUExecutionProvider"])


def multiplies_integers() -> bool:
    """Return whether the processor adds up products of 8-bit integers without overflow, as VNNI does."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return True
    described = Path("/proc/cpuinfo")
    return not described.is_file() or "vnni" in described.read_text(encoding="utf-8")
