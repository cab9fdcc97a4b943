"""What a run can promise of its answers: how often those given are wrong, and what a set of classes holds.

Everything is fitted on the calibration split, on a system as it stands before its calibrator: that was
fitted on the same rows, and a promise holds only for scores that these rows had no part in. For a network
that is exact, since its temperature moves no label. The label of an ensemble can move where two classes are
all but equal. Calibrators with numbers for each class move labels, and a temperature by entropy moves
those of ensembles, so with these no risk is promised.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from credibly.errors import InputError
from credibly.records import UNKNOWN, Predictions
from credibly.runs import Run
from credibly.runtime.contents import Columns
from credibly.uncertainty.calibration.calibrators import Calibrator
from credibly.uncertainty.promises.conformal import PredictionSets
from credibly.uncertainty.promises.independent import one_of_each
from credibly.uncertainty.promises.reasons import Reasons
from credibly.uncertainty.promises.selective import Abstention
from credibly.uncertainty.systems import CALIBRATED, Answer, answers, bare_name, keeps_labels, source_of
from credibly.workflows.common.contents import calibrators_in

BY_GROUPS = "Of texts that belong together one counts: this holds for one text of each group."


@dataclass(frozen=True)
class Wanted:
    """What is to be promised; nothing where left out.

    Args:
        risk: highest error rate among the answers.
        coverage: share of the texts that is answered.
        sets: how often a set of classes is to hold the true one.
        delta: how often, over calibration splits, the error rate may be above `risk`.

    Raises:
        InputError: risk and coverage, which exclude each other.
    """

    risk: float | None = None
    coverage: float | None = None
    sets: float | None = None
    delta: float = 0.05

    def __post_init__(self) -> None:
        if self.risk is not None and self.coverage is not None:
            raise InputError("expected a risk or a coverage, got both: one follows from the other")

    @property
    def nothing(self) -> bool:
        """Whether there is nothing to promise."""
        return self == Wanted(delta=self.delta)


@dataclass(frozen=True)
class Promises:
    """What was fitted of it.

    Args:
        abstention: which texts are answered, by total uncertainty; all where None.
        reasons: why others are not.
        sets: of classes; None where none are wanted.
        by_groups: some calibration rows belong together, and one of each group counted.
    """

    abstention: Abstention | None = None
    reasons: Reasons | None = None
    sets: PredictionSets | None = None
    by_groups: bool = False

    def in_words(self) -> str | None:
        """Return what is promised, in sentences; None where nothing is."""
        words = [self.abstention.in_words()] if self.abstention else []
        if self.sets:
            words.append(f"A set of classes holds the true one {100 * self.sets.coverage:.4g} % of the time.")
        if words and self.by_groups:
            words.append(BY_GROUPS)
        return " ".join(words) or None

    @classmethod
    def of(cls, run: Run, system: str, wanted: Wanted) -> Promises:
        """Fit what is wanted of a system on a run's calibration split.

        Raises:
            InputError: as `check_promises` and `fit`.
        """
        if wanted.nothing:
            return cls()
        stored = run.load_predictions(source_of(system), "calibration")
        check_promises(wanted, Columns.of(run.recipe.data), stored)
        return cls.fit(stored, system, calibrators_in(run), wanted)

    @classmethod
    def fit(
        cls,
        stored: Predictions,
        system: str,
        calibrators: Mapping[str, Calibrator],
        wanted: Wanted,
    ) -> Promises:
        """Fit what is wanted of a system on its raw record on the calibration split.

        Args:
            stored: that record; of rows that belong together one counts.
            system: the system.
            calibrators: the run's, by system.
            wanted: what is to be promised.

        Raises:
            InputError: too few calibration rows (the message says how many would do), a value out of range,
                or a risk for a system whose calibrator may change labels.
        """
        if wanted.risk is not None and not keeps_labels(system, calibrators):
            raise InputError(
                f"{system} may answer otherwise than before its calibrator, which was fitted on the rows "
                f"that a risk needs; give --system {bare_name(system)}{CALIBRATED}"
            )
        known = stored.take(stored.labels != UNKNOWN)
        alone = known.take(one_of_each(known.groups, len(known.ids)))
        by_groups = len(alone.ids) < len(known.ids)
        shown = answers(system, alone, calibrators)[0]
        bare = bare_answer(system, alone, calibrators)
        try:
            abstention = _abstention(shown, bare, wanted)
            sets = _sets(bare, wanted)
        except InputError as error:
            if not by_groups:
                raise
            counts = f"{len(known.ids)} calibration rows are {len(alone.ids)} groups, and one of each counts"
            raise InputError(f"{error}; {counts}") from None
        parts = shown.uncertainty
        reasons = Reasons.fit(parts.aleatoric, parts.epistemic) if abstention else None
        return cls(abstention, reasons, sets, by_groups)

    def kept(
        self, system: str, shown: Answer, predictions: Predictions, calibrators: Mapping[str, Calibrator]
    ) -> list[dict[str, Any]]:
        """Return what is said of each of N rows beside its answer.

        `answered` and `reason` (``ambiguous``, ``unfamiliar``, None where it is answered), and `set`, the
        names of the classes; each only where it was asked for.

        Args:
            system: whose promises these are.
            shown: its answer.
            predictions: the raw record that it answers from.
            calibrators: the run's, by system.
        """
        N = len(shown.ids)
        if self == Promises():
            return [{} for _ in range(N)]
        bare = bare_answer(system, predictions, calibrators)
        columns: dict[str, Sequence[Any]] = {}
        if self.abstention and self.reasons:
            answered = self.abstention.answers(bare.uncertainty.total)
            reasons = self.reasons.of(shown.uncertainty.aleatoric, shown.uncertainty.epistemic)
            columns["answered"] = answered.tolist()
            columns["reason"] = [None if yes else why for yes, why in zip(answered, reasons, strict=True)]
        if self.sets:
            names = np.asarray(bare.class_names, dtype=object)
            columns["set"] = [names[row].tolist() for row in self.sets.sets(bare.probs)]
        return [{name: values[row] for name, values in columns.items()} for row in range(N)]


def check_promises(wanted: Wanted, columns: Columns, calibration: Predictions) -> None:
    """Raise where nothing can be promised by a calibration split, whatever its size.

    A share of texts that is answered has nothing to do with labels, so opinions do for it.

    Raises:
        InputError: rows belong together by a column that the calibration rows lack, or labels are opinions,
            whose errors are not known.
    """
    if columns.group is not None and calibration.groups is None:
        raise InputError(
            "a promise needs rows that are independent of one another, or to know which are not; this run's "
            f"belong together by column {columns.group!r}, which its calibration rows lack: fit with a "
            "calibration file that has it, or without --group"
        )
    if columns.calibrated_by_opinions and (wanted.risk is not None or wanted.sets is not None):
        raise InputError(
            "a promise needs true labels, and this run was calibrated to a labeller's opinions; give "
            "--coverage in place of --risk or --sets, or fit again with a --calibration file of true labels"
        )


def bare_answer(system: str, predictions: Predictions, calibrators: Mapping[str, Calibrator]) -> Answer:
    """Return the answer of a system before its calibrator."""
    return answers(bare_name(system), predictions, calibrators)[0]


def _abstention(shown: Answer, bare: Answer, wanted: Wanted) -> Abstention | None:
    if wanted.risk is not None:
        wrong = shown.predicted != shown.labels
        return Abstention.at_risk(bare.uncertainty.total, wrong, wanted.risk, wanted.delta)
    if wanted.coverage is not None:
        return Abstention.at_coverage(bare.uncertainty.total, wanted.coverage)
    return None


def _sets(bare: Answer, wanted: Wanted) -> PredictionSets | None:
    if wanted.sets is None:
        return None
    return PredictionSets.fit(bare.probs, bare.labels, wanted.sets, class_names=bare.class_names)
