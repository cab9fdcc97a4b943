"""From stored predictions to the dictionary that is report.json: every figure, then what they say.

The page, the terminal's tables and the card are rendered from this dictionary alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from credibly import __version__
from credibly.errors import InputError, listed
from credibly.records import UNKNOWN, Examples, Predictions
from credibly.report.figures.comparisons import (
    Paired,
    agreement,
    best_form,
    comparisons,
    leaders,
    shift_changes,
)
from credibly.report.figures.curves import (
    distribution,
    history_columns,
    rejection,
    reliability,
    risk_coverage,
)
from credibly.report.figures.dependence import dependence, groups_by_column
from credibly.report.figures.each_member import each_member
from credibly.report.figures.kept import gains_kept, students_of_seeds
from credibly.report.figures.learning import Parts, learning_curve
from credibly.report.figures.promises import promises, set_sizes
from credibly.report.figures.scoring import scored_shifts, scored_systems
from credibly.report.figures.systems import Answers, answered, answered_by_students
from credibly.report.figures.texts import compared_texts
from credibly.report.figures.unknown import unknown
from credibly.report.words.findings import findings, headline
from credibly.uncertainty.calibration.calibrate import Temperature
from credibly.uncertainty.calibration.calibrators import Calibrator
from credibly.uncertainty.calibration.sampling_error import temperature_error
from credibly.uncertainty.scoring.consistency import perfect_ece
from credibly.uncertainty.scoring.resampling import Resampling
from credibly.uncertainty.scoring.slices import slices
from credibly.uncertainty.scoring.split_half import agreement_of_halves
from credibly.uncertainty.systems import (
    CALIBRATED,
    Answer,
    Choices,
    chosen_form,
    shipped_system,
    source_of,
)
from credibly.uncertainty.unknown.shift import Scores

FloatArray = NDArray[np.float64]

FORMAT_VERSION = 1


DOUBTING = ("student", "hydra")
"""Networks with an epistemic part, which is held against the ensemble's."""


def build_report(
    run_name: str,
    recipe: dict[str, Any],
    stored: Mapping[str, Mapping[str, Predictions]],
    calibrators: Mapping[str, Calibrator],
    costs: Mapping[str, Mapping[str, float | None]],
    test: Examples,
    notes: Sequence[str],
    resamples: int,
    confidence: float,
    seed: int,
    shift_splits: Sequence[str],
    histories: Mapping[str, list[dict[str, Any]]] | None = None,
    choices: Choices | None = None,
    strangeness: Mapping[str, Scores] | None = None,
    students: Mapping[str, Mapping[str, Predictions]] | None = None,
    learning: Parts | None = None,
    member_names: Sequence[str] | None = None,
    calibrated_by_opinions: bool = False,
) -> dict[str, Any]:
    """Return the whole report, as `json.dumps` writes it; undefined figures are None, never NaN.

    Args:
        run_name: what the run is called.
        recipe: every setting, for the record.
        stored: predictions by source (``members``, ``student``, ``direct``, ...) and split.
        calibrators: by system name.
        costs: seconds, parameters, bytes and rows_per_second by system; what is left out is unknown.
            ``X+temperature``, and ``X`` with any calibrator, costs what ``X`` costs.
        test: the test split's texts, in the order of the stored predictions.
        notes: sentences on the data.
        resamples: bootstrap resamples an interval.
        confidence: of the intervals.
        seed: of the resamples.
        shift_splits: names of the stored splits that are shift sets.
        histories: training histories by network; members' as ``members/SEED``.
        choices: in which form systems answer that were to be calibrated by more than a temperature.
        strangeness: scores of texts by their embeddings, for ``test`` and each shift set.
        students: predictions of students of other seeds, by name and split; they are no systems of their own.
        member_names: what the members are called, M of them; by their number, from 0, if left out.
        learning: predictions of the members by number of training texts and split; see `learning_curve`.
        calibrated_by_opinions: the calibration split has no true labels, so that nothing is promised by it.

    Raises:
        InputError: no members are stored on the test split, or the test texts are not those.
    """
    resampling = Resampling(resamples, confidence, seed)
    on_test = answered(stored, "test", calibrators)
    _check(on_test, test)
    choices = choices or {}
    shipped = shipped_system(on_test, choices)
    systems, sampled = scored_systems(on_test, costs, resampling)
    shifted = {split: answered(stored, split, calibrators) for split in shift_splits}
    shift = scored_shifts(on_test, shifted, resampling)
    paired = Paired(on_test, systems, sampled, resampling)
    kept = gains_kept(paired, shifted)
    calibrating = {} if calibrated_by_opinions else answered(stored, "calibration", calibrators)
    agreements = {
        name: agreement(on_test[name][0], on_test["ensemble"][0], resampling)
        for name in DOUBTING
        if name in on_test
    }
    halves = agreement_of_halves(stored["members"]["test"], resampling) if agreements else {}
    report: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "credibly_version": __version__,
        "run": run_name,
        "classes": list(test.class_names),
        "rows": _rows(stored, shift_splits),
        "rows_labelled": int((test.labels != UNKNOWN).sum()),
        "members": len(on_test["single"]),
        "shipped": shipped,
        "headline": "",
        "findings": [],
        "systems": systems,
        "each_member": each_member(
            on_test["single"], member_names or list(map(str, range(len(on_test["single"])))), confidence
        ),
        "leaders": leaders(paired),
        "calibration_tests": {
            name: _calibration_test(given, resampling) for name, given in on_test.items() if len(given) == 1
        },
        "temperature_error": None
        if calibrated_by_opinions
        else _temperature_error(shipped, stored, calibrators),
        "promises": promises(shipped, calibrating, on_test, calibrators, confidence),
        "dependence": dependence(on_test[shipped][0], test.groups),
        "slices": _slices(on_test[shipped][0], test, resampling, recipe),
        "calibrators": {name: calibrator.as_json() for name, calibrator in calibrators.items()},
        "choices": choices,
        "comparisons": comparisons(paired, shipped),
        "nll_gain_kept": kept and kept["systems"].get("student+temperature", {}).get("nll"),
        "gains_kept": kept,
        "student_seeds": students_of_seeds(
            paired,
            shifted,
            answered_by_students(students or {}, CALIBRATED, calibrators),
            answered_by_students(students or {}, "", calibrators).get("test", {}),
        ),
        "agreement": agreements.get("student"),
        "agreements": agreements,
        "agreement_of_halves": {kind: figure.as_json() for kind, figure in halves.items()},
        "shift": shift,
        "shift_changes": {
            split: shift_changes(systems[shipped], found[shipped])
            for split, found in shift.items()
            if shipped in found
        },
        "unknown": unknown(shipped, on_test, shifted, strangeness or {}, resampling),
        "curves": {
            **_curves(on_test, shifted, confidence, choices),
            "rejection": rejection(on_test[shipped][0], confidence),
            "set_sizes": set_sizes(shipped, calibrating, on_test, calibrators, confidence),
            "learning": learning_curve(learning or {}, resampling),
        },
        "histories": {name: history_columns(history) for name, history in (histories or {}).items()},
        **_texts(test, stored["members"]["test"], calibrators, on_test),
        "notes": list(notes),
        "evaluation": {"resamples": resamples, "confidence": confidence, "seed": seed},
        "recipe": recipe,
    }
    report["headline"] = headline(report)
    report["findings"] = [finding.sentence for finding in findings(report)]
    return report


def _check(on_test: Answers, test: Examples) -> None:
    if "ensemble" not in on_test:
        raise InputError("expected stored predictions of the members on the test split; there are none")
    for name, given in on_test.items():
        if given[0].ids != test.ids:
            strange = [row for row in given[0].ids if row not in set(test.ids)]
            which = (
                f"ids {listed(strange)} are not among the texts"
                if strange
                else "they differ in order or number"
            )
            raise InputError(
                f"expected predictions of {name} for the {len(test)} test texts, in their order; {which}"
            )


def _calibration_test(given: tuple[Answer, ...], resampling: Resampling) -> dict[str, float | None]:
    return perfect_ece(given[0], draws=resampling.resamples, seed=resampling.seed).as_json()


def _temperature_error(
    shipped: str, stored: Mapping[str, Mapping[str, Predictions]], calibrators: Mapping[str, Calibrator]
) -> dict[str, float] | None:
    """Return how well the calibration rows fix the shipped system's temperature; None where it has none."""
    calibrator, by_split = calibrators.get(shipped), stored[source_of(shipped)]
    if not isinstance(calibrator, Temperature) or not shipped.endswith(CALIBRATED):
        return None
    if "calibration" not in by_split:
        return None
    found = temperature_error(by_split["calibration"], by_split["test"], calibrator.temperature)
    return None if found is None else found.as_json()


def _slices(
    given: Answer, test: Examples, resampling: Resampling, recipe: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the shipped system's calibration by predicted class, a column's groups, and words a text."""
    # Where texts are not known their ids stand for them.
    lengths = None if test.texts == test.ids else [len(text.split()) for text in test.texts]
    groups = test.groups if groups_by_column(recipe) else None
    return [own.as_json() for own in slices(given, groups, lengths, **asdict(resampling))]


def _rows(stored: Mapping[str, Mapping[str, Predictions]], shift_splits: Sequence[str]) -> dict[str, int]:
    """Return the number of texts a split, in the order train, calibration, test, shift sets, others."""
    found = {
        split: len(predictions.ids) for by_split in stored.values() for split, predictions in by_split.items()
    }
    order = [
        *(name for name in ("train", "unlabelled", "calibration", "test") if name in found),
        *shift_splits,
    ]
    return {name: found[name] for name in dict.fromkeys([*order, *found]) if name in found}


def _curves(
    on_test: Answers, shifted: Mapping[str, Answers], confidence: float, choices: Choices
) -> dict[str, Any]:
    drawn = [form for name in ("ensemble", "student") if (form := chosen_form(name, on_test, choices))]
    return {
        "reliability": {name: reliability(given, confidence) for name, given in on_test.items()},
        "risk_coverage": {name: risk_coverage(given, confidence) for name, given in on_test.items()},
        "uncertainty": {
            domain: {name: distribution(given[name][0]) for name in drawn if name in given}
            for domain, given in {"test": on_test, **shifted}.items()
        },
    }


def _texts(
    test: Examples, members: Predictions, calibrators: Mapping[str, Calibrator], on_test: Answers
) -> dict[str, Any]:
    """Return the compared texts and the systems shown: the calibrated ones, the members likewise."""
    ensemble, student = best_form(on_test, "ensemble") or "ensemble", best_form(on_test, "student")
    tempered = calibrators.get(ensemble, Temperature()).apply(members).log_probs
    given = on_test[student][0] if student else None
    return {
        "texts": compared_texts(test, np.exp(tempered.astype(np.float64)), on_test[ensemble][0], given),
        "texts_shown": {"ensemble": ensemble, "student": student},
    }
