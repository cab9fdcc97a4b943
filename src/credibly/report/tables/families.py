"""Families of systems, by which rows and lines have their colours."""

from __future__ import annotations

from credibly.uncertainty.systems import bare_name

FAMILIES = ("single", "ensemble", "majority_vote", "direct", "soft_labels", "student", "other")
"""Families of systems, each with a colour, whatever calibrates them."""


def family(system: str) -> str:
    """Return the family whose colour a system has.

    >>> family("student+temperature"), family("members/42"), family("label_smoothing")
    ('student', 'ensemble', 'other')
    """
    name = bare_name(system).partition("/")[0]
    if name in ("members", "mean_logits"):
        return "ensemble"
    return name if name in FAMILIES else "other"
