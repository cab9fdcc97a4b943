"""From candidates' losses, answers and costs to the dictionary that is comparison.json.

Its keys are those of report.json where they mean the same; a candidate stands where a system does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from credibly import __version__
from credibly.errors import InputError
from credibly.records import Examples
from credibly.report.candidates.advice import advice
from credibly.report.figures.comparisons import Paired, comparisons, leaders
from credibly.report.figures.scoring import scored_shifts, scored_systems
from credibly.uncertainty.recommend import Recommendation, recommend
from credibly.uncertainty.scoring.consistency import perfect_ece
from credibly.uncertainty.scoring.resampling import Resampling
from credibly.uncertainty.systems import Answer

FloatArray = NDArray[np.float64]

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Candidate:
    """One way to answer, of one of the systems compared.

    Args:
        name: unique.
        kind: ``single``, ``ensemble`` or a network's name, which says what is deployed.
        losses: NLL of each calibration text under a calibrator fitted without it, (N,).
        by_label: what they would be for each label, (N, C).
        answers: by split, ``test`` and the shift sets.
        costs: seconds, parameters, bytes and rows_per_second; what is left out is unknown.
    """

    name: str
    kind: str
    losses: FloatArray
    by_label: FloatArray
    answers: Mapping[str, Answer]
    costs: Mapping[str, float | None]


def build_comparison(
    name: str,
    candidates: Sequence[Candidate],
    test: Examples,
    rows: Mapping[str, int],
    recipes: Mapping[str, Any],
    resamples: int,
    confidence: float,
    seed: int,
    groups: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Return the comparison, as `json.dumps` writes it; undefined figures are None, never NaN.

    Args:
        name: what it is called.
        candidates: all on the same texts.
        test: the test texts, in the order of the answers.
        rows: texts a split.
        recipes: every setting of every system, for the record.
        resamples: bootstrap resamples an interval.
        confidence: of the intervals.
        seed: of the resamples.
        groups: of the calibration texts, where they are not independent: see `recommend`.

    Raises:
        InputError: no candidates, two of one name, or losses or answers of other rows.
    """
    if len({own.name for own in candidates}) < len(candidates):
        raise InputError("expected candidates of different names")
    resampling = Resampling(resamples, confidence, seed)
    seconds = {
        own.name: 1 / speed if (speed := own.costs.get("rows_per_second")) else None for own in candidates
    }
    losses, by_label = (
        {own.name: getattr(own, part) for own in candidates} for part in ("losses", "by_label")
    )
    choice = recommend(losses, seconds, confidence, groups, by_label)
    by_split = {
        split: {own.name: (own.answers[split],) for own in candidates} for split in candidates[0].answers
    }
    on_test = by_split.pop("test")
    systems, sampled = scored_systems(on_test, {own.name: own.costs for own in candidates}, resampling)
    paired = Paired(on_test, systems, sampled, resampling)
    content: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "credibly_version": __version__,
        "name": name,
        "classes": list(test.class_names),
        "rows": dict(rows),
        "shipped": choice.chosen,
        "best": choice.best,
        "choice": _choice(choice, candidates),
        "advice": [],
        "systems": systems,
        "leaders": leaders(paired),
        "comparisons": comparisons(paired, choice.chosen),
        "calibration_tests": {
            own.name: perfect_ece(own.answers["test"], draws=resamples, seed=seed).as_json()
            for own in candidates
        },
        "shift": scored_shifts(on_test, by_split, resampling),
        "evaluation": {"resamples": resamples, "confidence": confidence, "seed": seed},
        "recipes": dict(recipes),
    }
    content["advice"] = advice(content)
    return content


def _choice(choice: Recommendation, candidates: Sequence[Candidate]) -> dict[str, Any]:
    """Return what each candidate's choice rests on: figures of the calibration texts, and its speed."""
    return {
        own.name: {
            "kind": own.kind,
            "nll": float(own.losses.mean()),
            "behind": {
                **choice.behind[own.name].difference.as_json(),
                "adjusted_p": choice.behind[own.name].adjusted_p,
            },
            "as_good": own.name in choice.as_good,
            "rows_per_second": own.costs.get("rows_per_second"),
        }
        for own in candidates
    }
