"""Whether an exported graph answers as the network that was trained, on rows held out from both."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from credibly.records import UNKNOWN
from credibly.uncertainty.scoring.binning import bin_of
from credibly.uncertainty.systems import Answer, FloatArray

EQUAL_LABELS = 0.99
WITHIN = 0.99
DIFFERENCE = 0.03
ECE_POINTS = 0.3


@dataclass(frozen=True)
class Parity:
    """How near one system's answers come to another's on the same rows.

    Args:
        rows: N.
        equal_labels: share of rows with the same label.
        within: share of rows of which no probability is off by more than 0.03.
        difference_99: the row's largest difference in probability, its 99th percentile.
        ece_points: by how many points (hundredths) the calibration error differs, in the same bins, those of
            the first system's confidence; None without labels. (In bins of its own each system's error moves
            by half a point where confidences move by a thousandth: rows cross the edges.)
    """

    rows: int
    equal_labels: float
    within: float
    difference_99: float
    ece_points: float | None

    @classmethod
    def between(cls, reference: Answer, answer: Answer) -> Parity:
        """Compare the answers of two systems on the same rows."""
        difference = np.abs(reference.probs - answer.probs).max(axis=-1)
        errors = [error_in_bins(each, reference.confidence) for each in (reference, answer)]
        return cls(
            rows=len(reference.ids),
            equal_labels=float((reference.predicted == answer.predicted).mean()),
            within=float((difference <= DIFFERENCE).mean()),
            difference_99=float(np.quantile(difference, 0.99)),
            ece_points=None if np.isnan(errors).any() else 100 * abs(errors[0] - errors[1]),
        )

    @property
    def passed(self) -> bool:
        """Whether a user would be told the same."""
        return (
            self.equal_labels >= EQUAL_LABELS
            and self.within >= WITHIN
            and (self.ece_points is None or self.ece_points <= ECE_POINTS)
        )

    def as_json(self) -> dict[str, Any]:
        """Return the figures by name."""
        return {**asdict(self), "passed": self.passed}


def error_in_bins(answer: Answer, by: FloatArray) -> float:
    """Return an answer's calibration error in bins of these values, (N,); NaN without labels."""
    known = np.asarray(answer.labels) != UNKNOWN
    if not known.any():
        return float("nan")
    gaps = (answer.predicted == answer.labels)[known] - answer.confidence[known]
    return float(np.abs(np.bincount(bin_of(by[known]), weights=gaps)).sum() / known.sum())
