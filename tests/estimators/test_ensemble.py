"""The scikit-learn face: answers, parameters, the student, and the run folder behind them."""

import copy
import gc
import os
import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

import credibly
from credibly.errors import InputError, RecipeError, RunBusyError, RunFolderError
from credibly.estimators import StudentClassifier
from credibly.runs import Run
from credibly.uncertainty.calibration.calibrate import Temperature
from credibly.uncertainty.combine import combine
from credibly.uncertainty.decompose import decompose
from estimators.cases import LABELS, NAMES, NEW, TEXTS, N, content_of
from workshop import CLASSES, jsonl, made_rows

pytestmark = pytest.mark.slow

# Answers


def test_the_classes_are_learned(fitted):
    assert fitted.score(TEXTS, NAMES) > 0.8
    assert fitted.score(NEW, np.array(CLASSES)[np.arange(12) % 3]) > 0.7


def test_answers_are_those_of_the_calibrated_members_of_the_run(fitted):
    run = fitted.run_.run
    calibration = run.load_predictions("members", "calibration")
    temperature = Temperature.fit(calibration)
    assert run.read_json(run.calibration_file)["ensemble+temperature"] == temperature.as_json()
    # What stands in the run are raw members; tempered and combined they are the answers.
    texts = [TEXTS[int(name)] for name in calibration.ids]
    tempered = temperature.apply(calibration)
    np.testing.assert_allclose(fitted.predict_proba(texts), combine(tempered), atol=1e-5)
    for part in ("total", "aleatoric", "epistemic"):
        given = getattr(fitted.predict_uncertainty(texts), part)
        np.testing.assert_allclose(given, getattr(decompose(tempered), part), atol=1e-5)
    assert fitted.predict(texts).tolist() == fitted.classes_[combine(tempered).argmax(axis=1)].tolist()


def test_a_share_of_every_class_calibrates_and_trains_nothing(fitted, student):
    assert fitted.run_.run.splits_of("members") == ["calibration"]
    run = student.run_.run
    parts = {name: run.load_predictions("members", name) for name in run.splits_of("members")}
    assert set(parts) == {"train", "calibration"}
    assert np.bincount(parts["calibration"].labels).tolist() == [3, 3, 3]
    assert sorted(map(int, parts["train"].ids + parts["calibration"].ids)) == list(range(N))
    for part in parts.values():
        assert [fitted.classes_[label] for label in part.labels] == [NAMES[int(name)] for name in part.ids]


def test_one_text_is_answered_as_among_others(fitted):
    together = fitted.predict_proba(NEW)
    np.testing.assert_allclose(together[3:4], fitted.predict_proba(NEW[3:4]), atol=1e-6)
    np.testing.assert_allclose(together[::-1], fitted.predict_proba(NEW[::-1]), atol=1e-6)


def test_an_equal_random_state_makes_fits_equal(ensemble):
    def answers(random_state):
        return ensemble(random_state=random_state, epochs=1).fit(TEXTS, NAMES).predict_proba(NEW)

    assert np.array_equal(answers(3), answers(np.int64(3)))
    generator = np.random.RandomState(5)
    first = answers(generator)
    assert not np.array_equal(first, answers(generator))
    assert np.array_equal(first, answers(np.random.RandomState(5)))


# Parameters


def test_parameters_become_the_recipe(ensemble):
    given = {
        "members.class_weights": "balanced", "members.optimiser.patience": 1, "data.validation_share": 0.1,
        "backbone.max_tokens": 32, "backbone.precision": "fp32",
    }  # fmt: skip
    classifier = ensemble(
        source="top_blocks", members=np.int64(2), epochs=1, learning_rate=np.float64(0.1),
        batch_size=np.int32(7), calibration_share=0.3, random_state=11, settings=given,
    ).fit(TEXTS, NAMES)  # fmt: skip
    recipe = classifier.run_.run.recipe
    assert (recipe.members.source, recipe.members.count, recipe.seed) == ("top_blocks", 2, 11)
    assert recipe.members.class_weights == "balanced"
    optimiser = recipe.members.optimiser
    assert (optimiser.epochs, optimiser.learning_rate, optimiser.batch_size) == (1, 0.1, 7)
    assert (recipe.backbone.max_tokens, recipe.data.calibration_share) == (32, 0.3)
    run = classifier.run_.run
    parts = {name: len(run.load_predictions("members", name).ids) for name in run.splits_of("members")}
    assert parts == {"validation": 6, "calibration": 18}


def test_rows_of_no_weight_teach_nothing(ensemble):
    wrong = np.roll(NAMES, 1)
    texts, names = [*TEXTS, *(f"{text} again" for text in TEXTS)], [*NAMES, *wrong]
    weights = np.repeat([1.0, 0.0], N)
    weighed = ensemble(epochs=12).fit(texts, names, sample_weight=weights)
    assert weighed.score(TEXTS, NAMES) > 0.8
    assert weighed.score(TEXTS, NAMES) > ensemble(epochs=12).fit(texts, names).score(TEXTS, NAMES)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        ensemble().fit(TEXTS, NAMES, sample_weight=weights)


@pytest.mark.parametrize("source", ["lora", "full", "mixed"])
def test_every_source_answers(ensemble, standin, source):
    parts = [
        {"members": {"source": "heads", "count": 1}},
        {
            "members": {"source": "full", "count": 1, "optimiser": {"epochs": 1}},
            "backbone": {"name": str(standin("electra")), "precision": "fp32"},
        },
    ]
    settings = {"backbone.precision": "fp32", **({"members.parts": parts} if source == "mixed" else {})}
    classifier = ensemble(source=source, epochs=1, settings=settings).fit(TEXTS, NAMES)
    assert classifier.run_.run.load_predictions("members", "calibration").shape == (2, 9, 3)
    np.testing.assert_allclose(classifier.predict_proba(NEW).sum(axis=1), 1, atol=1e-9)
    assert (classifier.predict_uncertainty(NEW).epistemic > 0).all()


@pytest.mark.parametrize(
    ("wrong", "error", "expected"),
    [
        ({"source": "head"}, RecipeError, r"members.source: .* got 'head' \(did you mean 'heads'\?\)"),
        ({"members": 0}, RecipeError, "members.count: .* got 0"),
        ({"calibration_share": 0}, RecipeError, "data.calibration_share: "),
        ({"settings": {"members.droput": 0.1}}, RecipeError, r"members.droput \(did you mean 'dropout'\?\)"),
        ({"settings": {"data.test": "a.csv"}}, InputError, "expected no settings of files .* got data.test"),
        ({"random_state": "x"}, ValueError, "cannot be used to seed"),
        ({"members": 1000}, InputError, r"as many rows in train as there are members \(1000\)"),
    ],
)
def test_wrong_parameters_are_told_at_fit(ensemble, wrong, error, expected):
    classifier = ensemble().set_params(**wrong)
    with pytest.raises(error, match=expected):
        classifier.fit(TEXTS, NAMES)


def test_stages_are_told_where_asked(ensemble, capsys):
    ensemble(verbose=True).fit(TEXTS, NAMES).distil()
    told = capsys.readouterr().err.splitlines()
    assert told[:2] == ["credibly: embedding train", "credibly: training 2 heads"]
    assert "credibly: tuning student" in told
    ensemble().fit(TEXTS, NAMES)
    assert capsys.readouterr().err == ""


def test_what_is_not_fitted_answers_nothing(ensemble):
    for classifier in (ensemble(), StudentClassifier(ensemble())):
        for method in (classifier.predict, classifier.predict_proba, classifier.predict_uncertainty):
            with pytest.raises(NotFittedError):
                method(NEW)
    with pytest.raises(NotFittedError):
        ensemble().distil()


def test_a_fit_that_fails_leaves_the_last_one(ensemble):
    classifier = ensemble().fit(TEXTS, NAMES)
    before = classifier.predict_proba(NEW)
    with pytest.raises(RecipeError):
        classifier.set_params(members=0).fit(TEXTS, LABELS)
    assert np.array_equal(classifier.predict_proba(NEW), before)
    assert classifier.classes_.tolist() == sorted(CLASSES)


# The student


def test_the_student_answers_out_of_one_network(fitted, student):
    run = Run.open(student.run_.path)
    assert student.run_.predictor.system == "student+temperature"
    assert credibly.load(run.path, "ensemble+temperature").predict(NEW) == fitted.run_.predictor.predict(NEW)
    assert student.classes_.tolist() == sorted(CLASSES)
    np.testing.assert_allclose(student.predict_proba(NEW).sum(axis=1), 1, atol=1e-9)
    parts = student.predict_uncertainty(NEW)
    np.testing.assert_allclose(parts.total, parts.aleatoric + parts.epistemic, atol=1e-6)
    # Its doubt on the calibration rows is the members', on average.
    rows = [TEXTS[int(name)] for name in run.load_predictions("members", "calibration").ids]
    members = decompose(run.load_predictions("members", "calibration")).epistemic.mean()
    assert student.predict_uncertainty(rows).epistemic.mean() == pytest.approx(members, rel=1e-3)


def test_distilling_leaves_the_ensemble_as_it_is(fitted):
    before = content_of(fitted.run_.path)
    first, second = fitted.distil(), fitted.distil(NEW)
    assert content_of(fitted.run_.path) == before
    assert len({fitted.run_.path, first.run_.path, second.run_.path}) == 3
    assert not np.array_equal(first.predict_proba(NEW), second.predict_proba(NEW))


def test_the_student_learns_from_further_texts_but_not_from_those_that_calibrate(fitted):
    calibrating = [
        TEXTS[int(name)] for name in fitted.run_.run.load_predictions("members", "calibration").ids
    ]
    student = fitted.distil([*NEW, calibrating[0].upper()])
    run = student.run_.run
    assert run.load_predictions("members", "unlabelled").shape == (3, len(NEW), 3)
    with pytest.raises(InputError, match="every text of unlabelled also stands in"):
        fitted.distil(calibrating)


def test_a_student_fits_as_its_ensemble_distils(ensemble, fitted, student):
    again = StudentClassifier(clone(fitted)).fit(TEXTS, NAMES)
    assert np.array_equal(again.predict_proba(NEW), student.predict_proba(NEW))
    assert clone(student).get_params()["ensemble__members"] == 3
    assert not hasattr(student.ensemble, "classes_")


# The run folder


def test_the_folder_given_is_a_run_like_any_other(ensemble, tmp_path, no_plots):
    classifier = ensemble(output=tmp_path / "run").fit(pd.DataFrame({"text": TEXTS}), NAMES)
    model = credibly.load(tmp_path / "run")
    assert [answer["label"] for answer in model.predict(NEW)] == classifier.predict(NEW).tolist()
    file = jsonl(tmp_path / "more.jsonl", made_rows(30, 7))
    scores = credibly.evaluate(tmp_path / "run", file)["systems"]["ensemble+temperature"]
    texts, labels = zip(*((row["text"], row["label"]) for row in made_rows(30, 7)), strict=True)
    assert scores["accuracy"]["value"] == pytest.approx(classifier.score(texts, labels))
    with pytest.raises(RunFolderError, match="had no test set, so it has no report"):
        credibly.workflows.report(tmp_path / "run")
    classifier.distil(output=tmp_path / "student")
    assert (tmp_path / "student" / "student" / "config.json").is_file()


def test_only_the_estimator_that_wrote_a_folder_replaces_it(ensemble, tmp_path):
    classifier = ensemble(output=str(tmp_path / "run")).fit(TEXTS, NAMES)
    before = content_of(tmp_path / "run")
    told = "holds something that this estimator did not write"
    with pytest.raises(RunFolderError, match=told):
        clone(classifier).fit(TEXTS, NAMES)
    with pytest.raises(RunFolderError, match=told):
        classifier.distil(output=tmp_path / "run")
    assert content_of(tmp_path / "run") == before
    answers = classifier.predict_proba(NEW)
    classifier.set_params(random_state=9).fit(TEXTS, NAMES)
    assert classifier.run_.run.recipe.seed == 9
    assert not np.array_equal(classifier.predict_proba(NEW), answers)
    folder = classifier.run_.path
    del classifier
    gc.collect()
    assert (folder / "manifest.json").is_file()


def test_a_temporary_folder_goes_with_its_last_holder(ensemble):
    classifier = ensemble().fit(TEXTS, NAMES)
    first = classifier.run_.path
    classifier.fit(TEXTS, NAMES)
    gc.collect()
    assert not first.exists()
    second = classifier.run_.path
    process = os.fork()
    if not process:
        del classifier
        gc.collect()
        os._exit(0)
    os.waitpid(process, 0)
    assert second.is_dir()
    del classifier
    gc.collect()
    assert not second.exists()


def test_what_is_fitted_can_be_pickled_and_copied(ensemble, tmp_path):
    classifier = ensemble(output=tmp_path / "run").fit(TEXTS, NAMES)
    student = classifier.distil(output=tmp_path / "student")
    for one in (classifier, student):
        answers = one.predict_proba(NEW)
        stored, copied = pickle.dumps(one), copy.deepcopy(one)
        one.run_.path.rename(tmp_path / f"gone {one.run_.path.name}")
        again = pickle.loads(stored)
        assert np.array_equal(again.predict_proba(NEW), answers)
        assert np.array_equal(copied.predict_proba(NEW), answers)
        assert again.get_params(deep=False).keys() == one.get_params(deep=False).keys()
    assert np.array_equal(pickle.loads(stored).predict(NEW), student.predict(NEW))


def test_an_unpickled_ensemble_can_be_distilled(fitted, student):
    again = pickle.loads(pickle.dumps(fitted)).distil()
    assert np.array_equal(again.predict_proba(NEW), student.predict_proba(NEW))


def test_a_run_folder_that_another_process_works_on_is_told_as_that(ensemble, tmp_path):
    own = ensemble(output=tmp_path / "run").fit(TEXTS, list(NAMES))
    with own.run_.run.alone(), pytest.raises(RunBusyError, match="another process works on"):
        own.fit(TEXTS, list(NAMES))
