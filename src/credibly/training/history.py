"""What a training tells of itself: one history a member, kept beside its weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

HISTORY = "history.jsonl"


@dataclass(frozen=True)
class StepRecord:
    """One line of a member's history.jsonl.

    Args:
        step: optimiser steps so far.
        epoch: epochs so far, as a fraction.
        loss: the batch's mean loss, in nats.
        gradient_norm: Euclidean norm of the member's gradient before clipping.
        learning_rate: the rate of this step.
        seconds: spent training so far, those before an interruption included.
        tokens_per_second: real tokens of all members trained together, since training began or went on;
            None where a batch holds embeddings.
        validation_loss: mean negative log-likelihood of held-out rows, in nats, where it was measured.
        validation_accuracy: share of held-out rows whose most probable class is their label's.
        validation_rows: number of held-out rows that were looked at.
    """

    step: int
    epoch: float
    loss: float
    gradient_norm: float
    learning_rate: float
    seconds: float
    tokens_per_second: float | None = None
    validation_loss: float | None = None
    validation_accuracy: float | None = None
    validation_rows: int | None = None

    def as_json(self) -> dict[str, float]:
        """Return the record as history.jsonl holds it: what was not measured is left out."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass
class History:
    """The training of one member, or of one network.

    Args:
        records: in the order of the steps.
        best_step: the step whose weights were kept, where training stops early; None where the last were.
        failure: why the member could not be trained to its end; None where it could.
    """

    records: list[StepRecord] = field(default_factory=list)
    best_step: int | None = None
    failure: str | None = None

    def as_lines(self) -> str:
        """Return the records as history.jsonl holds them: one JSON object a line."""
        return "".join(json.dumps(record.as_json()) + "\n" for record in self.records)

    def as_json(self) -> dict[str, Any]:
        """Return the history for a checkpoint."""
        return {
            "records": [record.as_json() for record in self.records],
            "best_step": self.best_step,
            "failure": self.failure,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> History:
        """Return the history that a checkpoint holds."""
        records = [StepRecord(**record) for record in values["records"]]
        return cls(records, values["best_step"], values["failure"])
