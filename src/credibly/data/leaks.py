"""The leak check: a text must not stand both where a model learns and where it is judged.

Texts are compared without case, spaces and punctuation. The set that a text is dropped from is always
the one that can do without it: train before validation before calibration before test.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from credibly.data.text import text_key
from credibly.errors import DataError
from credibly.records import UNKNOWN, Examples


@dataclass(frozen=True)
class Parts:
    """The sets of a run, before or after the leak check; as `Splits`, without its notes."""

    train: Examples
    calibration: Examples
    test: Examples | None
    unlabelled: Examples | None
    shift: Mapping[str, Examples]
    validation: Examples | None = None

    def named(self) -> dict[str, Examples]:
        """Return all sets by name."""
        sets = {
            "train": self.train,
            "validation": self.validation,
            "calibration": self.calibration,
            "test": self.test,
            "unlabelled": self.unlabelled,
        }
        return {name: part for name, part in sets.items() if part is not None} | dict(self.shift)


def without_leaks(parts: Parts) -> tuple[Parts, tuple[str, ...]]:
    """Drop texts that stand in two sets from the one that can do without them.

    From train and unlabelled go the texts of test, calibration and validation; from validation those of
    test and calibration; from calibration those of test; from each shift set those of all the others.

    Returns:
        The sets, and sentences that say what was dropped and what repeats.

    Raises:
        DataError: a set would be left empty.
    """
    sets = parts.named()
    keys = {name: [text_key(text) for text in examples.texts] for name, examples in sets.items()}
    notes: list[str] = []
    kept: dict[str, Examples] = {}
    kept_keys: dict[str, list[str]] = {}
    for name, examples in sets.items():
        against = {other: set(keys[other]) for other in judges(name) if other in keys}
        stays = not_in(name, keys[name], against, notes)
        kept[name] = examples if all(stays) else examples.take(stays)
        kept_keys[name] = list(itertools.compress(keys[name], stays))
        notes.extend(repeats(name, kept[name], kept_keys[name]))
    notes.extend(transfer_in_shift(kept_keys, parts.shift))
    return (
        Parts(
            train=kept["train"],
            calibration=kept["calibration"],
            test=kept.get("test"),
            unlabelled=kept.get("unlabelled"),
            shift={name: kept[name] for name in parts.shift},
            validation=kept.get("validation"),
        ),
        tuple(notes),
    )


def without_shown(parts: Parts, shown: Sequence[str], notes: list[str]) -> Parts:
    """Drop the texts that a labeller was shown with their labels from the sets that judge it, shift sets too.

    Raises:
        DataError: a set would be left empty.
    """
    sets = parts.named()
    judging = [name for name in ("test", "calibration", "validation", *parts.shift) if name in sets]
    kept: dict[str, Any] = {name: unshown(name, sets[name], shown, notes) for name in judging}
    shift = {name: kept.pop(name) for name in parts.shift}
    return replace(parts, shift=shift, **kept)


def unshown(name: str, examples: Examples, shown: Sequence[str], notes: list[str]) -> Examples:
    """Return a set without the texts that a labeller was shown; a note says how many went.

    Raises:
        DataError: none is left.
    """
    against = {"the labeller's examples": {text_key(text) for text in shown}}
    stays = not_in(name, [text_key(text) for text in examples.texts], against, notes)
    return examples if all(stays) else examples.take(stays)


def judges(name: str) -> Sequence[str]:
    """Return the sets whose texts a set must not hold.

    >>> judges("train"), judges("test"), judges("tweets")
    (('test', 'calibration', 'validation'), (), ('test', 'calibration', 'validation', 'train'))
    """
    ranked = ("test", "calibration", "validation", "train")
    before = {"test": 0, "calibration": 1, "validation": 2, "train": 3, "unlabelled": 3}
    return ranked[: before.get(name, 4)]


def not_in(name: str, keys: Sequence[str], against: Mapping[str, set[str]], notes: list[str]) -> list[bool]:
    """Return which texts of a set stand in none of the others; a note says how many went for each."""
    found = [next((other for other, known in against.items() if key in known), None) for key in keys]
    for other in against:
        if count := found.count(other):
            notes.append(f"{name}: dropped {rows(count)} whose text also stands in {other}")
    if all(other is not None for other in found):
        raise DataError(
            f"every text of {name} also stands in {' or '.join(against)} (case, spaces and punctuation "
            "aside), so that nothing is left of it; give other texts"
        )
    return [other is None for other in found]


def repeats(name: str, examples: Examples, keys: Sequence[str]) -> Iterator[str]:
    """Yield a note where texts repeat within a set: they are kept."""
    first: dict[str, int] = {}
    again = other_label = 0
    for index, key in enumerate(keys):
        if key in first:
            again += 1
            labels = examples.labels[[first[key], index]]
            other_label += bool(labels[0] != labels[1] and (labels != UNKNOWN).all())
        first.setdefault(key, index)
    if again:
        differing = f", {other_label} of them with another label" if other_label else ""
        yield f"{name}: {rows(again)} repeat{'s' if again == 1 else ''} an earlier text{differing}; kept"


def transfer_in_shift(keys: Mapping[str, Sequence[str]], shift: Mapping[str, Examples]) -> Iterator[str]:
    """Yield a note for each shift set that shares texts with the unlabelled ones, which are kept."""
    transfer = set(keys.get("unlabelled", ()))
    for name in shift:
        if count := sum(key in transfer for key in keys[name]):
            yield f"{name}: {rows(count)} whose text also stands in unlabelled, so the student knows it; kept"


def rows(count: int) -> str:
    """Return a number of rows in words.

    >>> rows(1), rows(2500)
    ('1 row', '2,500 rows')
    """
    return f"{count:,} row{'' if count == 1 else 's'}"
