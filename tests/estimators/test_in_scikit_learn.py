"""The scikit-learn face: in scikit-learn's searches and pipelines, and without what it does not need."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from estimators.cases import NAMES, NEW, TEXTS

pytestmark = pytest.mark.slow


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
