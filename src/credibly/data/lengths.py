"""Are calibration texts as long as test texts? What is fitted on phrases may fail on sentences."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from credibly.data.leaks import Parts

FEWEST = 100
"""Texts of either set without which their lengths are not compared."""
FAR = 0.3
"""Kolmogorov and Smirnov's distance of the two distributions of lengths from which it is said."""


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
        "them may not hold there; give calibration texts like those to come"
    )


def distance(one: NDArray[np.int64], other: NDArray[np.int64]) -> float:
    """Return the largest difference between the shares of two samples, sorted, at or below any number.

    >>> distance(np.array([1, 2, 3, 4]), np.array([3, 4, 5, 6]))
    0.5
    """
    places = np.concatenate([one, other])
    shares = (np.searchsorted(own, places, side="right") / len(own) for own in (one, other))
    return float(np.abs(np.subtract(*shares)).max())
