"""Batches side by side: each on its share of a processor's cores."""

from __future__ import annotations

import ctypes
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from typing import TypeVar

import torch

MOST_WORKERS = 8
Item = TypeVar("Item")
Result = TypeVar("Result")


def each_batch(
    work: Callable[[Item], Result], batches: Iterable[Item], device: torch.device
) -> Iterator[tuple[Item, Result]]:
    """Yield each batch and what `work` makes of it, in the order of the batches.

    On a processor up to eight batches run at a time, each on its share of the cores: many of a model's
    steps are too small to keep all cores busy, and a batch's states then stay in one core's cache.
    Elsewhere one runs after the other.

    Args:
        work: called with a batch, in a thread of its own; it changes nothing that others read.
        batches: of tokens, with whatever belongs to them; read only as far ahead as there are threads.
        device: where `work` computes.
    """
    remaining = iter(batches)
    first = list(islice(remaining, 2))
    threads, workers = torch.get_num_threads(), batches_at_once(device)
    if workers == 1 or len(first) < 2:
        for batch in chain(first, remaining):
            yield batch, work(batch)
        _give_back()
        return
    pending: deque[tuple[Item, Future[Result]]] = deque()
    with ThreadPoolExecutor(workers, "batch", torch.set_num_threads, (threads // workers,)) as pool:
        try:
            for batch in chain(first, remaining):
                pending.append((batch, pool.submit(work, batch)))
                if len(pending) > workers:
                    yield _finished(pending)
            while pending:
                yield _finished(pending)
        finally:
            pool.shutdown(cancel_futures=True)
            # What a worker sets, threads that start later take over.
            torch.set_num_threads(threads)
            _give_back()


def batches_at_once(device: torch.device) -> int:
    """Return how many batches `each_batch` runs at a time on a device."""
    return min(torch.get_num_threads(), MOST_WORKERS) if device.type == "cpu" else 1


def _finished(pending: deque[tuple[Item, Future[Result]]]) -> tuple[Item, Result]:
    batch, future = pending.popleft()
    return batch, future.result()


def _give_back() -> None:
    """Return memory that was freed to the system.

    The C library keeps it, in pieces that batches of other shapes do not fit in: over a long file the
    pieces would add up.
    """
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)
