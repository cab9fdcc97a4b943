"""What abstentions do on rows that nothing was fitted on: how many they answer, and how often wrongly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from numpy.typing import ArrayLike

from credibly.records import Interval
from credibly.uncertainty.exact import CONFIDENCE, exact_interval
from credibly.uncertainty.promises.selective import Abstention, checked_errors


@dataclass(frozen=True)
class SelectiveFigures:
    """What an abstention does on test rows.

    Args:
        abstention: what was asked for, and the threshold.
        rows: test rows.
        coverage: share answered, exact binomial interval.
        risk: share of the answered that is wrong, exact given how many are answered; undefined if none is.
    """

    abstention: Abstention
    rows: int
    coverage: Interval
    risk: Interval

    def as_json(self) -> dict[str, Any]:
        """Return the figures as plain numbers."""
        return asdict(self)


def selective_table(
    abstentions: Sequence[Abstention],
    uncertainty: ArrayLike,
    wrong: ArrayLike,
    confidence: float = CONFIDENCE,
) -> tuple[SelectiveFigures, ...]:
    """Return coverage and risk of each abstention on test rows.

    Each promise holds by itself: that several hold at once is promised only at the sum of their deltas.

    Args:
        abstentions: fitted on other rows, for instance at several risks.
        uncertainty: (N,), the score that they were fitted on.
        wrong: bool, (N,).
        confidence: of every interval.

    Raises:
        InputError: arrays that do not fit together.
    """
    scores, errors = checked_errors(uncertainty, wrong)
    rows = []
    for abstention in abstentions:
        answered = abstention.answers(scores)
        share = exact_interval(int(answered.sum()), len(scores), confidence)
        risk = exact_interval(int(errors[answered].sum()), int(answered.sum()), confidence)
        rows.append(SelectiveFigures(abstention, len(scores), share, risk))
    return tuple(rows)
