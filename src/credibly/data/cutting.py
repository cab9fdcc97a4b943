"""Splits cut from one file, and limited: class by class, and the same for any order of the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from credibly.data.containment import families
from credibly.data.leaks import rows
from credibly.data.text import ordered_by_hash, seeded_hash
from credibly.errors import DataError
from credibly.records import UNKNOWN, Examples
from credibly.settings import DataSettings


def cut_by_group(
    settings: DataSettings, examples: Examples, shares: Mapping[str, float], seed: int
) -> dict[str, Examples]:
    """Cut sets of these shares off; the rest is train. Rows of one group, or else family, stay together.

    A family is a text with those that stand within it (`families`).

    Groups are taken in the order of a seeded hash, class by class, so that each set gets its share of
    every class and the order of the rows has no say.

    Raises:
        DataError: the shares leave nothing for train, or a set would be left empty.
    """
    if sum(shares.values()) >= 1:
        raise DataError(f"expected shares that leave something for train, got {dict(shares)}")
    by_group: dict[str, list[int]] = {}
    for index, key in enumerate(examples.groups or families(examples.texts)):
        by_group.setdefault(key, []).append(index)
    places = np.full(len(examples), "train", dtype=object)
    for groups in strata(examples, by_group, seed):
        for name, group in assigned(groups, shares):
            places[group] = name
    cut = {name: examples.take(places == name) for name in ("train", *shares)}
    empty = [name for name, part in cut.items() if not len(part)]
    if empty:
        raise DataError(
            f"{settings.train}: {rows(len(examples))} in {len(by_group):,} groups are too few to cut "
            f"{' and '.join(shares)} from; {' and '.join(empty)} would be empty; "
            "add rows, or give further files as data.calibration and data.test"
        )
    return cut


def strata(examples: Examples, by_group: Mapping[str, list[int]], seed: int) -> list[list[list[int]]]:
    """Return the groups' rows, class by class (a group's class is its commonest), in seeded hash order."""
    by_class: dict[int, list[list[int]]] = {}
    for key in sorted(by_group, key=lambda key: seeded_hash(seed, key)):
        labels = examples.labels[by_group[key]] - UNKNOWN
        by_class.setdefault(int(np.bincount(labels).argmax()), []).append(by_group[key])
    return [by_class[label] for label in sorted(by_class)]


def assigned(groups: Sequence[list[int]], shares: Mapping[str, float]) -> list[tuple[str, list[int]]]:
    """Return the set of each group that is not left to train: while half of it still fits the set's share."""
    total = sum(map(len, groups))
    room = {name: round(share * total) for name, share in shares.items()}
    chosen: list[tuple[str, list[int]]] = []
    for group in groups:
        name = next((name for name in room if 2 * room[name] >= len(group) and room[name] > 0), None)
        if name is not None:
            room[name] -= len(group)
            chosen.append((name, group))
    return chosen


def limited(
    examples: Examples, limit: int | None = None, class_limit: int | None = None, seed: int = 0
) -> Examples:
    """Return no more than so many rows of every class, and of all of them, in the order they had.

    Rows are drawn in the order of a seeded hash of their texts, so the order of the rows has no say. What
    `limit` leaves has each class in its share, give or take a row.
    """
    order = ordered_by_hash(examples.texts, seed)
    # How far along its class a row stands: the first of ten at a twentieth, as the fifth of a hundred.
    places = np.full(len(examples), np.inf)
    for label in np.unique(examples.labels):
        own = [row for row in order if examples.labels[row] == label][:class_limit]
        places[own] = (np.arange(len(own)) + 0.5) / len(own)
    kept = sorted((row for row in order if places[row] < 1), key=places.__getitem__)
    return examples.take(np.array(sorted(kept[:limit]), dtype=np.int64))
