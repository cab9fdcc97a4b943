"""Texts parted by their length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from credibly.errors import InputError
from credibly.records import IntArray

TEXTS_A_STRATUM = 125
"""Below so many the mean over a stratum scatters more than the lengths in it differ."""
MOST_STRATA = 8


@dataclass(frozen=True)
class Strata:
    """Ranges of lengths in characters; one range, of any length, without edges.

    Args:
        edges: rising; a text as long as an edge is in the range below it.

    Raises:
        InputError: the edges do not rise.
    """

    edges: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if any(after <= before for before, after in zip(self.edges, self.edges[1:], strict=False)):
            raise InputError(f"expected rising edges, got {list(self.edges)}")

    @classmethod
    def of(cls, texts: Sequence[str]) -> Strata:
        """Return ranges that hold about equally many of these texts, as many ranges as they are enough for.

        >>> Strata.of(["a" * (1 + row % 10) for row in range(250)]).edges
        (5.0,)
        """
        count = max(1, min(MOST_STRATA, len(texts) // TEXTS_A_STRATUM))
        lengths = [len(text) for text in texts]
        # Each cut is a length that occurs: with one between two lengths a range could hold no text.
        shares = np.arange(1, count) / count
        cuts = np.quantile(lengths, shares, method="inverted_cdf") if count > 1 else np.zeros(0)
        # Where many texts are of one length, two cuts may fall together, or on the longest.
        return cls(tuple(float(cut) for cut in np.unique(cuts) if cut < max(lengths)))

    @property
    def count(self) -> int:
        """K, the number of ranges."""
        return len(self.edges) + 1

    def places(self, texts: Sequence[str]) -> IntArray:
        """Return the range of each text, int64, (N,), from 0 to K - 1."""
        return np.searchsorted(self.edges, [len(text) for text in texts], side="left").astype(np.int64)
