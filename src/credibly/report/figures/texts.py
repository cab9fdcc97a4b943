"""Ten texts compared: what each member, the ensemble, the student and people say of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from credibly.records import UNKNOWN, Examples
from credibly.uncertainty.systems import Answer

MOST_CHARACTERS = 500
CERTAIN, DISPUTED, UNSURE, WRONG = "most certain", "most disputed", "most uncertain", "most wrong"


def compared_texts(
    test: Examples, members: np.ndarray[Any, np.dtype[np.floating]], ensemble: Answer, student: Answer | None
) -> list[dict[str, Any]]:
    """Return up to ten texts with everybody's opinion: 3 most certain, 4 most disputed, 3 most wrong.

    Certain is the lowest total uncertainty of the ensemble, disputed the highest epistemic, wrong the
    lowest probability of the true class among its mistakes. No text comes twice. Where too few are
    wrong, more disputed ones make up the ten; where nothing is disputed (one member), the most
    uncertain stand in their place, and say so.

    Args:
        test: the texts, (N,).
        members: probabilities, (M, N, C).
        ensemble: their combined answer.
        student: the student's answer, where there is one.
    """
    rows = chosen_rows(ensemble)
    order = (CERTAIN, DISPUTED, UNSURE, WRONG)
    rows.sort(key=lambda chosen: order.index(chosen[1]))
    return [_compared(row, why, test, members, ensemble, student) for row, why in rows]


def chosen_rows(ensemble: Answer) -> list[tuple[int, str]]:
    """Return the chosen rows with the reason, each row once."""
    taken: dict[int, str] = {}
    doubt = ensemble.uncertainty.epistemic
    disputed, why = (doubt, DISPUTED) if np.ptp(doubt) > 1e-9 else (ensemble.uncertainty.total, UNSURE)
    _take(taken, np.argsort(ensemble.uncertainty.total, kind="stable"), 3, CERTAIN)
    _take(taken, np.argsort(-disputed, kind="stable"), 4, why)
    _take(taken, _worst_mistakes(ensemble), 3, WRONG)
    _take(taken, np.argsort(-disputed, kind="stable"), 10 - len(taken), why)
    return list(taken.items())


def _take(taken: dict[int, str], candidates: Iterable[int], most: int, why: str) -> None:
    fresh = [int(row) for row in candidates if int(row) not in taken]
    taken.update(dict.fromkeys(fresh[:most], why))


def _worst_mistakes(ensemble: Answer) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the wrongly answered rows, the least probable true class first."""
    wrong = np.flatnonzero((ensemble.labels != UNKNOWN) & (ensemble.predicted != ensemble.labels))
    return wrong[np.argsort(ensemble.probs[wrong, ensemble.labels[wrong]], kind="stable")]


def _compared(
    row: int,
    why: str,
    test: Examples,
    members: np.ndarray[Any, np.dtype[np.floating]],
    ensemble: Answer,
    student: Answer | None,
) -> dict[str, Any]:
    label, text = int(test.labels[row]), test.texts[row]
    people = None if test.label_probs is None else test.label_probs[row].tolist()
    return {
        "why": why,
        "id": test.ids[row],
        "text": text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 1] + "…",
        "label": None if label == UNKNOWN else test.class_names[label],
        "people": people,
        "members": members[:, row].astype(float).tolist(),
        "ensemble": _opinion(ensemble, row),
        "student": None if student is None else _opinion(student, row),
    }


def _opinion(answer: Answer, row: int) -> dict[str, Any]:
    parts = answer.uncertainty
    return {
        "probabilities": answer.probs[row].tolist(),
        "total": float(parts.total[row]),
        "aleatoric": float(parts.aleatoric[row]),
        "epistemic": float(parts.epistemic[row]),
    }
