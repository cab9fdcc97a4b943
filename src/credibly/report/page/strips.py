"""Everybody's opinion of a text as strips, laid out for the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Lane:
    """One line of a strip: who, the probabilities as places from 0 to 1, and these in words."""

    who: str
    shape: str
    family: str
    places: tuple[float, ...]
    beside: str


@dataclass(frozen=True)
class Strip:
    """Everybody's probability of one class on one axis from 0 to 1."""

    class_name: str
    lanes: tuple[Lane, ...]


def strips(text: Mapping[str, Any], classes: Sequence[str]) -> list[Strip]:
    """Return the strips of a compared text: the second class of two, else up to three classes that matter.

    Of three classes or more: the two that the ensemble finds most probable, and the true one.
    """
    probabilities = text["ensemble"]["probabilities"]
    ranked = sorted(range(len(classes)), key=lambda index: -probabilities[index])
    shown = [1] if len(classes) == 2 else ranked[:2]
    if len(classes) > 2 and text["label"] in classes and classes.index(text["label"]) not in shown:
        shown.append(classes.index(text["label"]))
    return [_strip(text, classes[index], index) for index in shown]


def _strip(text: Mapping[str, Any], class_name: str, index: int) -> Strip:
    members = tuple(member[index] for member in text["members"])
    span = "–".join(dict.fromkeys((f"{min(members):.2f}", f"{max(members):.2f}")))
    lanes = [Lane("members" if len(members) > 1 else "member", "dot", "single", members, span)]
    for who, shape in (("ensemble", "diamond"), ("student", "triangle")):
        if text[who] is not None:
            place = text[who]["probabilities"][index]
            lanes.append(Lane(who, shape, who, (place,), f"{place:.2f}"))
    if text["people"] is not None:
        place = text["people"][index]
        lanes.append(Lane("people", "square", "people", (place,), f"{place:.2f}"))
    return Strip(class_name, tuple(lanes))


def spoken(strip: Strip) -> str:
    """Say a strip in words, for those who hear the page."""
    parts = ", ".join(f"{lane.who} {lane.beside}" for lane in strip.lanes)
    return f"probability of {strip.class_name}: {parts}"
