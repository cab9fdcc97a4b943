import numpy as np
import pytest

from credibly.errors import InputError
from credibly.uncertainty.calibration.calibrate import Temperature
from credibly.uncertainty.calibration.calibrators import InTurn, fit_calibrator
from credibly.uncertainty.combine import combine
from credibly.uncertainty.decompose import decompose
from credibly.uncertainty.systems import answers, keeps_labels, source_of
from uncertainty.cases import dirichlet_of, random_predictions

FROM_MEMBERS = ["single", "ensemble", "majority_vote", "mean_logits"]


@pytest.mark.parametrize("name", FROM_MEMBERS)
def test_what_can_be_computed_from_the_members_reads_them(name):
    assert source_of(name) == source_of(f"{name}+temperature") == "members"


@pytest.mark.parametrize("name", ["student", "direct", "soft_labels", "laplace"])
def test_a_network_reads_its_own_record(name):
    assert source_of(name) == source_of(f"{name}+temperature") == name


def test_single_gives_one_answer_a_member():
    predictions = random_predictions(M=4)
    found = answers("single", predictions, {})
    assert len(found) == 4
    for index, answer in enumerate(found):
        assert np.allclose(answer.probs, np.exp(predictions.log_probs[index]), atol=1e-6)
        assert (answer.uncertainty.epistemic == 0).all()
        assert answer.ids == predictions.ids


@pytest.mark.parametrize(
    ("name", "rule"),
    [("ensemble", "mean_probs"), ("mean_logits", "mean_logits"), ("majority_vote", "majority_vote")],
)
def test_the_other_systems_of_members_combine_them_by_their_rule(name, rule):
    predictions = random_predictions(M=4, unknown=0.1)
    (answer,) = answers(name, predictions, {})
    assert np.array_equal(answer.probs, combine(predictions, rule))
    assert np.array_equal(answer.uncertainty.epistemic, decompose(predictions).epistemic)
    assert np.array_equal(answer.labels, predictions.labels)
    assert np.array_equal(answer.label_probs, predictions.label_probs)
    assert np.array_equal(answer.predicted, answer.probs.argmax(-1))
    assert np.array_equal(answer.confidence, answer.probs.max(-1))
    assert answer.class_names == predictions.class_names


def test_temperature_is_applied_to_every_member_first():
    predictions, calibrator = random_predictions(M=4), Temperature(2.0)
    (answer,) = answers("ensemble+temperature", predictions, {"ensemble+temperature": calibrator})
    tempered = calibrator.apply(predictions)
    assert np.array_equal(answer.probs, combine(tempered))
    assert np.array_equal(answer.uncertainty.epistemic, decompose(tempered).epistemic)
    assert len(answers("single+temperature", predictions, {"single+temperature": calibrator})) == 4


def test_a_bare_ensemble_takes_no_calibrator():
    predictions = random_predictions(M=4)
    (answer,) = answers("ensemble", predictions, {"ensemble": Temperature(5.0)})
    assert np.array_equal(answer.probs, combine(predictions))


def test_a_bare_dirichlet_takes_its_own_offset_where_there_is_one():
    predictions = dirichlet_of([[1.0, 3.0], [4.0, 2.0]])
    (plain,) = answers("student", predictions, {})
    (folded,) = answers("student", predictions, {"student": Temperature(1.0, 2.0)})
    assert np.allclose(folded.probs, plain.probs, atol=1e-7)
    assert (folded.uncertainty.epistemic < plain.uncertainty.epistemic).all()


def test_a_missing_calibrator_is_named():
    with pytest.raises(InputError, match=r"calibrator named 'direct\+temperature', got student"):
        answers("direct+temperature", random_predictions(M=1), {"student": Temperature()})
    with pytest.raises(InputError, match="got none"):
        answers("direct+temperature", random_predictions(M=1), {})


@pytest.mark.parametrize(
    ("name", "kind", "kept"),
    [
        ("student", "temperature", True),
        ("student", "entropy_temperature", True),
        ("student", "vector", False),
        ("ensemble", "temperature", True),
        ("ensemble", "entropy_temperature", False),
        ("ensemble", "isotonic", False),
        ("hydra", "temperature", True),
        ("hydra", "entropy_temperature", False),
    ],
)
def test_labels_stay_under_maps_that_move_no_class_past_another(name, kind, kept):
    predictions = random_predictions(N=200, M=1 if name == "student" else 3, raters=False)
    fitted = fit_calibrator(predictions, kind, on="members")
    system = f"{name}+{kind}"
    assert keeps_labels(system, {system: fitted}) is kept
    assert keeps_labels(system, {system: InTurn((fitted, Temperature(1.0, 0.5)))}) is kept
    if kept and name == "student":
        mapped = fitted.apply(predictions)
        assert np.array_equal(combine(mapped).argmax(1), combine(predictions).argmax(1))
