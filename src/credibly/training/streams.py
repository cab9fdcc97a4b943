"""Random streams by name: each member has its own for each purpose, and each epoch its own order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count, islice
from typing import TypeVar

import numpy as np

Batch = TypeVar("Batch")


def stream(seed: int, purpose: str) -> np.random.Generator:
    """Return a member's own random stream for one purpose.

    >>> bool(stream(0, "order").random() == stream(0, "order").random())
    True
    """
    return np.random.default_rng([seed, *purpose.encode()])


def from_batch(
    start: int, per_epoch: int, deal: Callable[[int], Sequence[Batch] | Iterator[Batch]]
) -> Iterator[Batch]:
    """Yield batches for ever, from number `start` on; `deal` gives an epoch's batches in their order.

    Since an epoch's batches depend on its number alone, a training that goes on in the middle of an
    epoch sees what it would have seen.

    >>> list(islice(from_batch(3, 2, lambda epoch: [f"{epoch}a", f"{epoch}b"]), 3))
    ['1b', '2a', '2b']
    """
    first, place = divmod(start, per_epoch)
    for epoch in count(first):
        yield from islice(deal(epoch), place if epoch == first else 0, None)
