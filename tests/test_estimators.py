"""The scikit-learn face: texts and labels as callers have them, and the run folder behind the answers."""

import copy
import gc
import os
import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import DataConversionWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

import credibly
import standins
from credibly import EnsembleClassifier
from credibly.errors import InputError, RecipeError, RunFolderError
from credibly.estimators import StudentClassifier
from credibly.runs import Run
from credibly.uncertainty.calibration.calibrate import Temperature
from credibly.uncertainty.combine import combine
from credibly.uncertainty.decompose import decompose
from workshop import CLASSES, jsonl, made_rows

pytestmark = pytest.mark.slow

N = 60
LABELS = np.arange(N) % 3
TEXTS = standins.made_texts(LABELS, words=3, noise=0.1)
NAMES = np.array(CLASSES)[LABELS]
NEW = standins.made_texts(np.arange(12) % 3, seed=1)

SETTINGS = {
    "backbone.precision": "fp32",
    "members.hidden": [16],
    "distil.blocks": 1,
    "distil.optimiser.epochs": 2,
    "distil.optimiser.learning_rate": 0.005,
}


@pytest.fixture(scope="module")
def ensemble(standin):
    """A function that gives an unfitted ensemble on a stand-in."""

    def made(**changed):
        given = {"members": 2, "epochs": 4, "learning_rate": 0.01, "batch_size": 16, "random_state": 0}
        return EnsembleClassifier(backbone=str(standin()), **{"settings": SETTINGS, **given, **changed})

    return made


@pytest.fixture(scope="module")
def fitted(ensemble):
    return ensemble(members=3, epochs=12).fit(TEXTS, NAMES)


@pytest.fixture(scope="module")
def student(fitted):
    return fitted.distil()


def content_of(folder):
    return {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


class Frame:
    """As little of a data frame as is needed, from no library."""

    def __init__(self, **columns):
        self.columns = list(columns)
        self._cells = columns

    def __getitem__(self, name):
        return self._cells[name]


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


# What X may be


@pytest.fixture(scope="module")
def from_list(ensemble):
    return ensemble().fit(TEXTS, NAMES).predict_proba(NEW)


@pytest.mark.parametrize(
    "form",
    [
        tuple,
        np.array,
        pd.Series,
        lambda texts: np.array(texts, dtype=object)[:, None],
        lambda texts: pd.DataFrame({"text": texts}),
        lambda texts: Frame(body=texts),
        lambda texts: [[text] for text in texts],
    ],
)
def test_texts_in_any_form_give_equal_answers(ensemble, from_list, form):
    classifier = ensemble().fit(form(TEXTS), list(NAMES))
    assert np.array_equal(classifier.predict_proba(form(NEW)), from_list)
    assert np.array_equal(classifier.predict_proba(NEW), from_list)
    assert classifier.n_features_in_ == 1


def test_text_columns_of_a_frame_are_joined_in_their_order(ensemble):
    halves = [text.split(" ", 1) for text in TEXTS]
    frame = pd.DataFrame({"id": range(N), "end": [end for _, end in halves], "start": [s for s, _ in halves]})
    frame.loc[::7, "start"] = None
    joined = [end if number % 7 == 0 else f"{start}\n{end}" for number, (start, end) in enumerate(halves)]
    named = ensemble(text=["start", "end"]).fit(frame, NAMES)
    expected = ensemble().fit(joined, NAMES).predict_proba(joined)
    assert np.array_equal(named.predict_proba(frame), expected)
    assert np.array_equal(named.predict_proba(frame[["end", "start"]]), expected)
    assert np.array_equal(named.predict_proba(frame[["start", "end"]].to_numpy()), expected)
    assert named.n_features_in_ == 2
    assert named.feature_names_in_.tolist() == ["start", "end"]
    assert named.run_.run.recipe.data.text == ["start", "end"]
    one = ensemble(text="end").fit(frame, NAMES)
    assert one.feature_names_in_.tolist() == ["end"]
    with pytest.raises(InputError, match=r"expected texts in 2 columns, got list of shape \(12, 1\)"):
        named.predict(NEW)
    with pytest.raises(InputError, match=r"one column 'start' in the frame \(did you mean 'Start'\?\); its"):
        named.predict(frame.rename(columns={"start": "Start"}))


def test_columns_without_names_of_their_own(ensemble):
    frame = pd.DataFrame({0: TEXTS, 1: NAMES})
    classifier = ensemble(text=0).fit(frame, frame[1])
    assert np.array_equal(classifier.predict(frame), classifier.predict(TEXTS))
    assert not hasattr(classifier, "feature_names_in_")
    classifier.set_params(text=None).fit(pd.DataFrame({"text": TEXTS}), NAMES)
    assert classifier.feature_names_in_.tolist() == ["text"]
    assert not hasattr(classifier.fit(TEXTS, NAMES), "feature_names_in_")


@pytest.mark.parametrize(
    ("X", "y", "expected"),
    [
        ("one text", NAMES, r"got str of shape \(\); give \[text\]"),
        ([], [], "expected one text or more, got 0 rows"),
        ([1, 2, *TEXTS], [0, 1, *LABELS], r"X\[0\]: column 'text' holds a number 1, X\[1\]: .* a string"),
        (["", None, np.nan, *TEXTS], [0, 0, 0, *LABELS], r"X\[0\]: .* is empty, X\[1\].*X\[2\].* remove"),
        (["\ud83d", *TEXTS], [0, *LABELS], r"X\[0\]: .* half a character"),
        (np.array([TEXTS, TEXTS]).T, NAMES, r"1 column, got ndarray of shape \(60, 2\); name several"),
        (pd.DataFrame({"a": TEXTS, "b": TEXTS}), NAMES, r"one column, got 2 \(a, b\); name the text columns"),
        (pd.DataFrame([TEXTS, TEXTS]).T.set_axis(["a", "a"], axis=1), NAMES, "one column, got 2"),
        (TEXTS, NAMES[:-1], r"inconsistent numbers of samples: \[60, 59\]"),
        (TEXTS, None, "requires y to be passed"),
        (TEXTS, ["good"] * N, "one class: good"),
        (TEXTS, np.linspace(0, 1, N), "continuous"),
        (TEXTS, [None, *NAMES[1:]], "expected labels of one kind|Unknown label type"),
        (TEXTS, [np.nan, *LABELS[1:]], "NaN"),
        (TEXTS, ["1", "1.0"] * 30, "expected class names that differ"),
        (TEXTS, np.array([1, "1"] * 30, dtype=object), "Unknown label type"),
        (TEXTS, np.full((N, 3), 0.5), "rows that sum to one; 60 rows are off"),
        (TEXTS, np.zeros((N, 2, 2)), "Found array with dim 3"),
        (TEXTS[:4], [0, 0, 1, 1], "too few to cut calibration from"),
        (TEXTS[:5], [0, 0, 0, 0, 1], "expected 2 rows or more of every class"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_before_anything_is_trained(ensemble, monkeypatch, X, y, expected):
    monkeypatch.setattr("credibly.workflows.fitting.begin", None)
    with pytest.raises(ValueError, match=expected):
        ensemble().fit(X, y)


@pytest.mark.parametrize("wrong", ["good film", [""], [None], [3], np.array([["a", "b"]])])
def test_what_cannot_be_answered_is_refused(fitted, wrong):
    for method in (fitted.predict, fitted.predict_proba, fitted.predict_uncertainty):
        with pytest.raises(InputError):
            method(wrong)


# What y may be


@pytest.mark.parametrize(
    ("kinds", "class_names"),
    [
        (np.array([7, -1, 30]), ("-1", "7", "30")),
        (np.array(["b", "a", "c"]), ("a", "b", "c")),
        (pd.Series(["b", "a", "c"]), ("a", "b", "c")),
        (pd.Series(["b", "a", "c"], dtype="category"), ("a", "b", "c")),
        (np.array([2.0, 0.0, 1.0]), ("0", "1", "2")),
        (np.array([True, False, False]), ("false", "true")),
    ],
)
def test_classes_are_of_the_kind_that_labels_are(ensemble, kinds, class_names):
    classifier = ensemble(epochs=1).fit(TEXTS, kinds[LABELS])
    assert classifier.classes_.tolist() == sorted(set(kinds))
    assert classifier.predict(NEW).dtype == classifier.classes_.dtype
    assert set(classifier.predict(NEW).tolist()) <= set(kinds)
    assert classifier.run_.predictor.class_names == class_names


def test_certain_probabilities_are_labels(ensemble, from_list):
    order = np.unique(NAMES).tolist()
    y = np.eye(3)[[order.index(name) for name in NAMES]]
    classifier = ensemble().fit(TEXTS, y)
    assert classifier.classes_.tolist() == [0, 1, 2]
    np.testing.assert_allclose(classifier.predict_proba(NEW), from_list, atol=1e-12)


def test_probabilities_are_learned_as_they_are(ensemble):
    y = np.random.RandomState(0).dirichlet(np.ones(3), N)
    y[0] = [0.4, 0.4, 0.2]
    student = ensemble(epochs=1).fit(TEXTS, y).distil()
    for split in ("train", "calibration"):
        stored = student.run_.run.load_predictions("members", split)
        rows = list(map(int, stored.ids))
        np.testing.assert_allclose(stored.label_probs, y[rows])
        expected = [-1 if row == 0 else y[row].argmax() for row in rows]
        assert stored.labels.tolist() == expected


def test_a_column_of_labels_is_taken_with_a_warning(ensemble, from_list):
    with pytest.warns(DataConversionWarning):
        classifier = ensemble().fit(TEXTS, NAMES[:, None])
    assert np.array_equal(classifier.predict_proba(NEW), from_list)


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


# In scikit-learn's hands


def test_a_grid_search_finds_the_rate_that_learns(ensemble):
    grid = {"members": [1, 2], "learning_rate": [1e-9, 0.03], "source": ["heads"]}
    search = GridSearchCV(ensemble(epochs=12), grid, cv=2, error_score="raise").fit(TEXTS, NAMES)
    assert search.best_params_["learning_rate"] == 0.03
    assert search.best_estimator_.score(TEXTS, NAMES) == search.score(TEXTS, NAMES) > 0.8
    assert search.predict_proba(NEW).shape == (12, 3)


def test_a_grid_search_over_sources_runs_in_several_processes(ensemble):
    grid = {"source": ["heads", "lora"], "members": [1, 2]}
    settings = {"backbone.precision": "fp32"}
    search = GridSearchCV(ensemble(settings=settings), grid, cv=2, n_jobs=2, error_score="raise")
    search.fit(TEXTS, NAMES)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


@pytest.mark.parametrize("jobs", [None, 2])
def test_cross_validation_gives_estimators_that_answer(ensemble, jobs):
    texts = np.array(TEXTS, dtype=object)
    found = cross_validate(
        ensemble(epochs=12), texts, NAMES, cv=2, n_jobs=jobs, return_estimator=True, return_indices=True,
        scoring="neg_log_loss", error_score="raise",
    )  # fmt: skip
    for number, classifier in enumerate(found["estimator"]):
        held_out = found["indices"]["test"][number]
        probs = classifier.predict_proba(texts[held_out])
        truth = [classifier.classes_.tolist().index(name) for name in NAMES[held_out]]
        assert found["test_score"][number] == pytest.approx(np.log(probs[np.arange(30), truth]).mean())


@pytest.mark.parametrize(
    ("step", "form"),
    [
        (FunctionTransformer(lambda texts: [text.upper() for text in texts]), list),
        (
            ColumnTransformer([("text", "passthrough", ["body"])]),
            lambda texts: pd.DataFrame({"id": range(len(texts)), "body": texts}),
        ),
        (
            ColumnTransformer([("text", "passthrough", ["body"])]).set_output(transform="pandas"),
            lambda texts: pd.DataFrame({"id": range(len(texts)), "body": texts}),
        ),
    ],
)
def test_a_step_of_a_pipeline_hands_texts_over(ensemble, from_list, step, form):
    pipeline = make_pipeline(step, ensemble()).fit(form(TEXTS), NAMES)
    np.testing.assert_allclose(pipeline.predict_proba(form(NEW)), from_list, atol=1e-6)


def run_without(*modules, program):
    """Run a program where these modules are not installed."""
    blocked = (
        "import sys\nclass Absent:\n    def find_spec(self, name, path=None, target=None):\n"
        f"        if name in {modules}: raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Absent())\n"
    )
    return subprocess.run(
        [sys.executable, "-c", blocked + program], capture_output=True, text=True, check=False
    )


def test_a_missing_scikit_learn_is_told_with_what_mends_it():
    done = run_without("sklearn", program="import credibly\nfrom credibly import EnsembleClassifier")
    told = done.stderr.strip().splitlines()[-1]
    assert told.startswith("credibly.errors.MissingExtraError: the estimators need scikit-learn")
    assert told.endswith('pip install "credibly[sklearn]"')


def test_estimators_are_made_without_torch_and_pandas():
    program = (
        "from credibly import EnsembleClassifier\nfrom sklearn.base import clone\n"
        "print(clone(EnsembleClassifier(members=3)).get_params()['members'])"
    )
    done = run_without("torch", "pandas", program=program)
    assert (done.stdout, done.stderr) == ("3\n", "")
