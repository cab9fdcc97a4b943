"""What a comparison recommends, in sentences that its own figures bear out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from credibly.report.figures.types import Report
from credibly.report.words.numbers import bracket, count, difference, number, p_value, with_interval

ONE_MODEL = ("single", "direct")
"""Kinds of candidate that are one model, trained on labels alone."""
WELL_CALIBRATED = 0.01
"""A test whose p-value lies below this rejects that the probabilities hold."""


def advice(content: Report) -> list[str]:
    """Return the recommendation: what to use, why, what that says of ensembles, and what the test texts show.

    Everything up to the test texts rests on the calibration texts and on measured speed alone.

    Args:
        content: as `build_comparison` makes it.
    """
    return [f"Use {content['shipped']}.", _reason(content), *_enough(content), *_on_test(content)]


def _reason(content: Report) -> str:
    chosen, best, choice = content["shipped"], content["best"], content["choice"]
    own, rows = choice[chosen], count(content["rows"]["calibration"])
    nll = f"Its NLL on the {rows} calibration texts is {number('nll', own['nll'])}"
    equals = [name for name, other in choice.items() if other["as_good"] and name != chosen]
    if chosen != best:
        faster = _times(own["rows_per_second"], choice[best]["rows_per_second"])
        behind = own["behind"]
        p = "" if _within(behind) else f" (p {p_value(behind['adjusted_p'])}, corrected for their number)"
        return (
            f"{nll}; the least is that of {best}, and the difference, "
            f"{difference('nll', behind)}, lies within doubt{p}{faster}."
        )
    if equals:
        return f"{nll}, the least, and nothing that may be as good is more than a tenth faster."
    return f"{nll}, the least of {len(choice)}, and every other one's is truly higher."


def _times(fast: float | None, slow: float | None) -> str:
    """Say how many times as many texts a second one answers; nothing where that is not known."""
    if not fast or not slow:
        return ""
    return f", while it answers {fast / slow:.1f} times as many texts a second"


def _enough(content: Report) -> list[str]:
    """Say what the choice means for the question whether an ensemble, or a student of one, is worth it."""
    choice = content["choice"]
    kinds, kind = {own["kind"] for own in choice.values()}, choice[content["shipped"]]["kind"]
    if kind in ONE_MODEL and kinds - {*ONE_MODEL}:
        enough = "One model with a temperature is enough here"
        return [f"{enough}: nothing shows an ensemble, or a student of one, to be better."]
    if kind in ("ensemble", "student") and kinds & {*ONE_MODEL}:
        nearest = min(
            (own for own in choice.values() if own["kind"] in ONE_MODEL), key=lambda own: float(own["nll"])
        )
        if not nearest["as_good"]:
            behind = difference("nll", nearest["behind"])
            what = "The ensemble" if kind == "ensemble" else "The student"
            return [f"{what} pays: the best single model's NLL is truly above the least ({behind})."]
    return []


def _on_test(content: Report) -> list[str]:
    """Say what the test texts, which had no part in the choice, show of it."""
    chosen, systems = content["shipped"], content["systems"]
    figures = systems[chosen]
    shown = ", ".join(
        f"{words} {with_interval(metric, figures[metric])}"
        for metric, words in (("accuracy", "right answers"), ("nll", "NLL"), ("ece_debiased", "debiased ECE"))
    )
    said = [f"On the {count(content['rows']['test'])} test texts, which had no part in the choice: {shown}."]
    test = content["calibration_tests"][chosen]
    p_values = [test[name] for name in ("consistency_p", "spiegelhalter_p") if test[name] is not None]
    if p_values and min(p_values) < WELL_CALIBRATED:
        said.append("Its probabilities do not hold there: a test of calibration rejects them (p < 0.01).")
    least = min(systems, key=lambda name: systems[name]["nll"]["value"] or 0.0)
    if least != chosen:
        found = content["comparisons"][f"{chosen} - {least}"]["nll"]
        p, level = found.get("adjusted_p"), 1 - content["evaluation"]["confidence"]
        verdict = "within doubt" if p is None or p >= level or _within(found) else "beyond doubt"
        said.append(
            f"There {least} has the least NLL; the difference, {number('nll', found['value'])} "
            f"{bracket('nll', found)}, lies {verdict}."
        )
    return said


def _within(figure: Mapping[str, Any]) -> bool:
    return figure["low"] is None or figure["low"] <= 0 <= figure["high"]
