"""The systems that stored predictions allow, in the order of every table, and their answers."""

from __future__ import annotations

from collections.abc import Mapping

from credibly.records import Predictions
from credibly.uncertainty.calibration.calibrators import Calibrator
from credibly.uncertainty.systems import Answer, answers, forms_of, source_of

Answers = Mapping[str, tuple[Answer, ...]]
"""Every system's answers on the same rows; several where figures are means over members."""

UNTRAINED = "zero_shot"
"""What the members started from stands above them."""
CONTROLS_FIRST = ("direct", "soft_labels")
"""The order of the networks in every table: these, then others by name, then the student."""


def systems_of(
    stored: Mapping[str, Mapping[str, Predictions]], calibrators: Mapping[str, Calibrator], split: str
) -> list[str]:
    """Return the systems that a split's stored predictions allow, in the order of every table."""
    networks = [source for source in stored if source != "members" and split in stored[source]]
    others = sorted(set(networks) - {UNTRAINED, *CONTROLS_FIRST, "student"})
    own = stored.get("members", {}).get(split)
    members = [] if own is None else ["single", *forms_of("ensemble", calibrators)]
    # The vote of one is always certain, which says nothing.
    vote = ["majority_vote"] if own is not None and own.shape[0] > 1 else []

    def forms(*names: str) -> list[str]:
        return [form for name in names if name in networks for form in forms_of(name, calibrators)]

    return [*forms(UNTRAINED), *members, *vote, *forms(*CONTROLS_FIRST, *others, "student")]


def answered(
    stored: Mapping[str, Mapping[str, Predictions]], split: str, calibrators: Mapping[str, Calibrator]
) -> Answers:
    """Return every system's answers on a split."""
    return {
        name: answers(name, stored[source_of(name)][split], calibrators)
        for name in systems_of(stored, calibrators, split)
    }


def answered_by_students(
    stored: Mapping[str, Mapping[str, Predictions]], form: str, calibrators: Mapping[str, Calibrator]
) -> dict[str, Answers]:
    """Return the answers of students of other seeds in one form, by split and name."""
    splits = dict.fromkeys(split for by_split in stored.values() for split in by_split)
    return {
        split: {
            name: answers(f"{name}{form}", by_split[split], calibrators) for name, by_split in stored.items()
        }
        for split in splits
    }
