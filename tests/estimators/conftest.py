"""Estimators on a stand-in, fitted once for all tests of a file."""

import pytest

from credibly import EnsembleClassifier
from estimators.cases import NAMES, NEW, SETTINGS, TEXTS


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


@pytest.fixture(scope="module")
def from_list(ensemble):
    return ensemble().fit(TEXTS, NAMES).predict_proba(NEW)
