"""Whether a file is like what a run was trained on: the conclusion in words.

Read from what `workflows.shift` returns alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from credibly.report.words.metrics import SCORE_WORDS
from credibly.report.words.numbers import count, with_interval
from credibly.report.words.text import capital

Content = Mapping[str, Any]

DIFFERENT_BELOW = 0.05
"""A p-value of the test below this says that the texts differ."""
CLEARLY_FROM, WHOLLY_FROM = 0.64, 0.9
"""AUROC: of a medium effect (Cohen's d of a half, for normal scores), and where few texts are alike."""


def conclusion(content: Content) -> tuple[str, str]:
    """Return what the figures bear out: a word for it, and a sentence.

    The word is one of ``too few``, ``alike``, ``another mix``, ``slightly stranger``, ``stranger`` and
    ``unlike``. The test alone decides whether there is a difference, and the effect how large it is.
    """
    auroc, test = content["scores"][content["score"]]["auroc"], content["test"]
    rows = f"these {count(content['rows']['file'])} texts"
    trained = "those that the run was trained on"
    if test is None:
        return "too few", f"One text or none is too few to say whether it is like {trained}."
    p = f"p = {test['p']:.3f}"
    if test["p"] >= DIFFERENT_BELOW:
        return "alike", f"Nothing shows that {rows} differ from {trained} ({p})."
    if auroc["value"] is None or auroc["low"] is None or auroc["low"] <= 0.5:
        said = f"{rows} differ from {trained} ({p}), but are no stranger one by one: another mix of them."
        return "another mix", capital(said)
    if auroc["value"] < CLEARLY_FROM:
        return "slightly stranger", f"These texts differ from {trained} ({p}), though only slightly."
    if auroc["value"] < WHOLLY_FROM:
        return "stranger", f"These texts are stranger than {trained} ({p})."
    return "unlike", f"These texts are of another kind than {trained} ({p})."


def effect_in_words(content: Content) -> list[str]:
    """Return what the effect size and the number of rows mean, a sentence each."""
    auroc, rows = content["scores"][content["score"]]["auroc"], content["rows"]
    label = SCORE_WORDS[content["score"]][0].lower()
    said = []
    if auroc["value"] is not None:
        said.append(
            f"Of a text of this file and a calibration text, the first is the stranger in "
            f"{with_interval('accuracy', auroc)} of all pairs, by {label}; 50 % is alike."
        )
    said += [
        f"{with_interval('accuracy', found['share'])} of the texts are stranger than "
        f"{100 * found['level']:g} % of the calibration texts; {100 - 100 * found['level']:g} % is alike."
        for found in content["beyond"]
    ]
    missed = 100 * content["noticeable_auroc"]
    least = (
        f"less than {missed:.0f} % of all pairs can go unnoticed" if missed < 100 else "little can be told"
    )
    said.append(f"With {count(rows['file'])} texts against {count(rows['calibration'])}, {least}.")
    return said
