"""Promises of a run: abstention and sets, fitted on its calibration split, kept in what it predicts."""

from dataclasses import replace

import numpy as np
import pytest

from credibly import workflows
from credibly.errors import InputError
from credibly.runs import Run
from credibly.runtime.contents import Columns
from credibly.uncertainty.promises.conformal import PredictionSets
from credibly.uncertainty.promises.reasons import Reasons
from credibly.uncertainty.promises.selective import Abstention
from credibly.uncertainty.systems import answers
from credibly.workflows.answering.promises import BY_GROUPS, Promises, check_promises
from credibly.workflows.common.contents import calibrators_in
from workshop import CLASSES

TEXTS = ["warm funny bright", "dull slow empty", "warm dull", "a film of words unknown"] * 3


@pytest.fixture(scope="module")
def calibration(fitted):
    """The bare student's answer on the calibration split."""
    run = Run.open(fitted.run)
    return answers("student", run.load_predictions("student", "calibration"), calibrators_in(run))[0]


def predictor_of(fitted, **wanted):
    return workflows.load(fitted.run, wanted=workflows.Wanted(**wanted))


def test_a_coverage_is_kept_by_the_total_uncertainty_before_temperature(fitted, calibration):
    predictor = predictor_of(fitted, coverage=0.5)
    assert predictor.promises.abstention == Abstention.at_coverage(calibration.uncertainty.total, 0.5)
    rows = predictor.predict(TEXTS)
    bare = workflows.load(fitted.run, "student").answer(TEXTS)
    answered = bare.uncertainty.total <= predictor.promises.abstention.threshold
    assert [row["answered"] for row in rows] == answered.tolist()
    plain = workflows.load(fitted.run).predict(TEXTS)
    run = Run.open(fitted.run)
    stored = run.load_predictions("student", "calibration")
    seen = answers("student+temperature", stored, calibrators_in(run))[0].uncertainty
    aleatoric, epistemic = ([row[part] for row in rows] for part in ("aleatoric", "epistemic"))
    reasons = Reasons.fit(seen.aleatoric, seen.epistemic).of(aleatoric, epistemic)
    for row, without, reason in zip(rows, plain, reasons, strict=True):
        assert row["label"] == (without["label"] if row["answered"] else None)
        assert row["reason"] == (None if row["answered"] else reason)
        assert row["probabilities"] == without["probabilities"]
    assert not answered.all()


def test_a_risk_is_tested_on_the_calibration_split(fitted, calibration):
    predictor = predictor_of(fitted, risk=0.4)
    wrong = calibration.predicted != calibration.labels
    assert predictor.promises.abstention == Abstention.at_risk(calibration.uncertainty.total, wrong, 0.4)


def test_sets_are_those_of_the_calibration_split(fitted, calibration):
    expected = PredictionSets.fit(
        calibration.probs, calibration.labels, 0.8, class_names=calibration.class_names
    )
    rows = predictor_of(fitted, sets=0.8).predict(TEXTS)
    bare = workflows.load(fitted.run, "student").answer(TEXTS)
    names = np.array(CLASSES, dtype=object)
    order = [calibration.class_names.index(name) for name in CLASSES]
    for row, member in zip(rows, expected.sets(bare.probs)[:, order], strict=True):
        assert sorted(row["set"]) == sorted(names[member])
        assert "answered" not in row


def test_without_promises_nothing_is_added(fitted):
    assert {"answered", "reason", "set"}.isdisjoint(predictor_of(fitted).predict(TEXTS)[0])


def test_a_split_too_small_for_the_promise_is_told_with_what_would_do(fitted):
    with pytest.raises(InputError, match=r"for a risk of 0\.0001 .* rows in all would do"):
        predictor_of(fitted, risk=0.0001)
    with pytest.raises(InputError, match=r"expected \d+ calibration rows or more for a coverage of 0\.9999"):
        predictor_of(fitted, sets=0.9999)


@pytest.mark.parametrize("wanted", [{"risk": 0.4}, {"coverage": 0.5}, {"sets": 0.8}])
def test_of_rows_that_belong_together_one_counts(fitted, wanted):
    run, asked = Run.open(fitted.run), workflows.Wanted(**wanted)
    stored = replace(run.load_predictions("student", "calibration"), groups=None)
    N = len(stored.ids)
    twice = np.repeat(np.arange(N), 2)
    copies = replace(
        stored,
        log_probs=stored.log_probs[:, twice],
        ids=tuple(map(str, range(2 * N))),
        labels=stored.labels[twice],
        concentrations=stored.concentrations[twice],
        groups=twice,
    )
    alone, together, naive = (
        Promises.fit(record, "student", calibrators_in(run), asked)
        for record in (stored, copies, replace(copies, groups=None))
    )
    rows = {(own.abstention or own.sets).rows for own in (alone, together)}
    assert len(rows) == 1
    assert (naive.abstention or naive.sets).rows not in rows
    assert [own.by_groups for own in (alone, together, naive)] == [False, True, False]
    assert together.in_words() == f"{replace(together, by_groups=False).in_words()} {BY_GROUPS}"
    if "risk" not in wanted:  # its rows are dealt by their order
        assert together == replace(alone, by_groups=True)


def test_rows_that_belong_together_by_a_column_that_they_lack_allow_no_promise(fitted):
    record = Run.open(fitted.run).load_predictions("student", "calibration")
    wanted, columns = workflows.Wanted(risk=0.2), Columns(text=["text"], group="author")
    with pytest.raises(InputError, match=r"belong together by column 'author', which its calibration rows"):
        check_promises(wanted, columns, replace(record, groups=None))
    check_promises(wanted, columns, replace(record, groups=np.arange(len(record.ids))))


def test_too_few_groups_for_a_promise_are_told(fitted):
    run = Run.open(fitted.run)
    stored = run.load_predictions("student", "calibration")
    N = len(stored.ids)
    few = replace(stored, groups=np.arange(N) % 3)
    with pytest.raises(InputError, match=rf"{N} calibration rows are 3 groups, and one of each counts"):
        Promises.fit(few, "student", calibrators_in(run), workflows.Wanted(sets=0.9))


def test_risk_and_coverage_exclude_each_other():
    with pytest.raises(InputError, match="one follows from the other"):
        workflows.Wanted(risk=0.1, coverage=0.9)
