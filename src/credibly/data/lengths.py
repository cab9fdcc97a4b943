"""Are calibration texts as long as those to come? What is fitted on phrases may fail on sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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
"""Of lengths, each of which is to hold its share: the more, the closer, and the fewer texts fit."""


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


@dataclass(frozen=True)
class Drawn:
    """Examples that are as long as other texts.

    Args:
        examples: what was drawn, in the order it had.
        scarcest: the lengths from and to, in characters, of which all there are were drawn.
    """

    examples: Examples
    scarcest: tuple[int, int]


def as_long_as(examples: Examples, like: Sequence[str], seed: int = 0) -> Drawn:
    """Return as many examples as can be drawn of which each range of lengths holds its share of other texts.

    Lengths, in characters, are parted into ranges that hold about equally many of the other texts. In a range
    examples are drawn by a seeded hash, whatever their label: where labels hang on the text as they do in the
    texts to come, what is drawn stands for these, as far as lengths make the two differ.

    Args:
        examples: N of them.
        like: texts of the lengths that are wanted, a hundred or more.
        seed: of the draw; the examples' order has no say.

    Raises:
        DataError: there are too few other texts, or a range holds no example.
    """
    if len(like) < FEWEST:
        raise DataError(
            f"expected {FEWEST} texts or more in data.calibration_like, whose lengths tell, got {len(like)}"
        )
    wanted, there = (np.array([len(text) for text in texts]) for texts in (like, examples.texts))
    cuts = np.quantile(wanted, np.arange(1, RANGES + 1) / RANGES, method="inverted_cdf")
    edges = np.unique([wanted.min() - 1, *cuts])
    # A range goes from above an edge to the next; -1 and K stand for what is shorter and longer than all.
    own, places = (np.searchsorted(edges, lengths, side="left") - 1 for lengths in (wanted, there))
    shares = np.bincount(own) / len(like)
    found = np.array([(places == place).sum() for place in range(len(shares))])
    scarcest = int((found / shares).argmin())
    bounds = int(edges[scarcest]) + 1, int(edges[scarcest + 1])
    if not found[scarcest]:
        raise DataError(
            f"{shares[scarcest]:.1%} of the texts of data.calibration_like have {bounds[0]:,} to "
            f"{bounds[1]:,} characters, as no calibration text has; give more calibration texts, of these "
            "lengths too"
        )
    room = np.round(found[scarcest] / shares[scarcest] * shares).astype(np.int64)
    order = np.array(ordered_by_hash(examples.texts, seed, "length"))
    chosen = [order[places[order] == place][:most] for place, most in enumerate(room)]
    return Drawn(examples.take(np.sort(np.concatenate(chosen))), bounds)


def distance(one: NDArray[np.int64], other: NDArray[np.int64]) -> float:
    """Return the largest difference between the shares of two samples, sorted, at or below any number.

    >>> distance(np.array([1, 2, 3, 4]), np.array([3, 4, 5, 6]))
    0.5
    """
    places = np.concatenate([one, other])
    shares = (np.searchsorted(own, places, side="right") / len(own) for own in (one, other))
    return float(np.abs(np.subtract(*shares)).max())
