"""Are calibration texts as long as those to come? What is fitted on phrases may fail on sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from credibly.data.leaks import Parts
from credibly.data.text import ordered_by_hash
from credibly.errors import DataError
from credibly.records import Examples

FEWEST = 100
"""Texts of either set without which their lengths are not compared."""
FAR = 0.3
"""Kolmogorov and Smirnov's distance of the two distributions of lengths from which it is said."""

RANGES = 20
"""Of lengths, at most, each of which is to hold its share: the more, the closer, and the fewer texts fit."""
FEWEST_IN_A_RANGE = 10
OUTSIDE = -1


def length_notes(parts: Parts) -> Iterator[str]:
    """Yield a sentence where the calibration texts are of other lengths than the test texts.

    Of SST-2's training phrases half have 4 words or fewer, of the validation sentences 19: a temperature
    fitted on the phrases was rejected on the sentences, one fitted on the longer phrases was not.
    """
    if parts.test is None or min(len(parts.calibration), len(parts.test)) < FEWEST:
        return
    sets = (parts.calibration, parts.test)
    calibration, test = (np.sort([len(text) for text in own.texts]) for own in sets)
    if distance(calibration, test) < FAR:
        return
    longer = "longer" if np.median(calibration) > np.median(test) else "shorter"
    yield (
        f"calibration: its texts are {longer} than the test texts (half of them up to "
        f"{np.median(calibration):,.0f} and {np.median(test):,.0f} characters), so that what is fitted on "
        "them may not hold there; name texts like those to come as data.calibration_like"
    )


def as_long_as(examples: Examples, like: Sequence[str], seed: int = 0) -> Examples:
    """Return as many examples as can be drawn of which each range of lengths holds its share of other texts.

    Lengths, in characters, are parted into ranges that hold about equally many of the other texts. In a range
    examples are drawn by a seeded hash, whatever their label: where labels hang on the text as they do in the
    texts to come, what is drawn stands for these, as far as lengths make the two differ.

    Args:
        examples: N of them.
        like: texts of the lengths that are wanted.
        seed: of the draw; the examples' order has no say.

    Raises:
        DataError: a range holds no example.
    """
    wanted, there = (np.array([len(text) for text in texts]) for texts in (like, examples.texts))
    count = max(1, min(RANGES, len(like) // FEWEST_IN_A_RANGE))
    edges = np.unique(np.quantile(wanted, np.arange(count + 1) / count, method="inverted_cdf"))
    shares = np.bincount(range_of(wanted, edges)) / len(like)
    places = np.where((there >= edges[0]) & (there <= edges[-1]), range_of(there, edges), OUTSIDE)
    found = np.array([(places == place).sum() for place in range(len(shares))])
    if not found.all():
        empty = int(np.argmin(found))
        raise DataError(
            f"{shares[empty]:.0%} of the texts of data.calibration_like have {edges[empty]:,.0f} to "
            f"{edges[empty + 1]:,.0f} characters, as no calibration text has; raise data.calibration_share, "
            "or give texts of these lengths as data.calibration"
        )
    room = np.round((found / shares).min() * shares).astype(np.int64)
    order = np.array(ordered_by_hash(examples.texts, seed))
    chosen = [order[places[order] == place][:most] for place, most in enumerate(room)]
    return examples.take(np.sort(np.concatenate(chosen)))


def range_of(lengths: NDArray[np.int64], edges: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the range of each length: from above an edge to the next; the first holds the lowest edge too.

    >>> range_of(np.array([2, 3, 5, 6, 9]), np.array([2.0, 5.0, 9.0]))
    array([0, 0, 0, 1, 1])
    """
    return np.maximum(np.searchsorted(edges, lengths, side="left") - 1, 0).astype(np.int64)


def distance(one: NDArray[np.int64], other: NDArray[np.int64]) -> float:
    """Return the largest difference between the shares of two samples, sorted, at or below any number.

    >>> distance(np.array([1, 2, 3, 4]), np.array([3, 4, 5, 6]))
    0.5
    """
    places = np.concatenate([one, other])
    shares = (np.searchsorted(own, places, side="right") / len(own) for own in (one, other))
    return float(np.abs(np.subtract(*shares)).max())
