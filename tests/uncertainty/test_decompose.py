import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from credibly.uncertainty.decompose import decompose
from credibly.uncertainty.dirichlet import chance_of_another_class
from uncertainty.cases import dirichlet_of, predictions_of, random_predictions

PARTS = ("total", "aleatoric", "epistemic", "variance", "disagreement")


def binary_entropy(p):
    return stats.entropy([p, 1 - p])


def test_a_table_worked_by_hand():
    # Row 0: members certain of opposite classes (as far as 1e-12 allows): all is epistemic.
    # Row 1: members agree on an even bet: all is aleatoric.
    # Row 2: 0.9 and 0.5; mean 0.7, so variance is 0.2 squared; the even member's argmax is class 0 too.
    # Row 3: 0.8 and 0.3; mean 0.55; the second member votes otherwise.
    first = [[1.0, 0.0], [0.5, 0.5], [0.9, 0.1], [0.8, 0.2]]
    second = [[0.0, 1.0], [0.5, 0.5], [0.5, 0.5], [0.3, 0.7]]
    found = decompose(predictions_of([first, second]))
    ln2 = np.log(2)
    parts = [0.0, ln2, (binary_entropy(0.9) + ln2) / 2, (binary_entropy(0.8) + binary_entropy(0.3)) / 2]
    totals = [ln2, ln2, binary_entropy(0.7), binary_entropy(0.55)]
    assert found.total == pytest.approx(totals, abs=1e-6)
    assert found.aleatoric == pytest.approx(parts, abs=1e-6)
    assert found.epistemic == pytest.approx(np.subtract(totals, parts), abs=1e-6)
    assert found.variance == pytest.approx([0.25, 0.0, 0.04, 0.0625], abs=1e-6)
    assert found.disagreement.tolist() == [0.5, 0.0, 0.0, 0.5]


def test_epistemic_is_the_mean_divergence_from_the_mean():
    predictions = random_predictions(M=5, C=4)
    members = np.exp(predictions.log_probs.astype(np.float64))
    divergence = stats.entropy(members, members.mean(0)[None], axis=-1).mean(0)
    assert np.allclose(decompose(predictions).epistemic, divergence, atol=1e-7)


def test_variance_is_the_population_variance_of_the_predicted_class():
    predictions = random_predictions(M=5, C=4)
    members = np.exp(predictions.log_probs.astype(np.float64))
    predicted = members.mean(0).argmax(-1)
    expected = members[:, np.arange(200), predicted].var(axis=0)
    assert np.allclose(decompose(predictions).variance, expected, atol=1e-7)
    votes = members.argmax(-1) != predicted
    assert np.allclose(decompose(predictions).disagreement, votes.mean(0))


def test_one_member_knows_of_no_disagreement():
    found = decompose(random_predictions(M=1))
    assert (found.epistemic == 0).all()
    assert (found.variance == 0).all()
    assert (found.disagreement == 0).all()
    assert (found.aleatoric == found.total).all()


@given(st.integers(0, 10**6), st.integers(2, 12), st.integers(2, 6))
def test_identical_members_are_exactly_certain_of_each_other(seed, M, C):
    one = random_predictions(N=20, M=1, C=C, seed=seed)
    found = decompose(predictions_of(np.tile(np.exp(one.log_probs.astype(np.float64)), (M, 1, 1))))
    assert (found.epistemic == 0).all()
    assert found.variance.max() < 1e-30
    assert (found.disagreement == 0).all()


@given(st.integers(0, 10**6), st.integers(1, 8), st.integers(2, 6), st.floats(0.01, 30))
def test_parts_add_up_and_stay_in_range(seed, M, C, scale):
    random = np.random.default_rng(seed)
    logits = random.normal(0, scale, (M, 20, C))
    probs = np.exp(logits - logits.max(-1, keepdims=True))
    found = decompose(predictions_of(probs / probs.sum(-1, keepdims=True)))
    assert found.epistemic.min() >= 0
    assert found.epistemic.max() <= np.log(min(C, M)) + 1e-9
    assert found.aleatoric.min() >= -1e-12
    assert found.total.max() <= np.log(C) + 1e-12
    assert np.allclose(found.aleatoric + found.epistemic, found.total, atol=1e-12)
    assert found.variance.max() <= 0.25


@given(st.integers(0, 10**6))
def test_permuting_members_classes_and_rows_permutes_the_answer(seed):
    predictions = random_predictions(N=15, M=4, C=3, seed=seed)
    random = np.random.default_rng(seed)
    members, rows, classes = random.permutation(4), random.permutation(15), random.permutation(3)
    moved = predictions_of(np.exp(predictions.log_probs[members][:, rows][..., classes].astype(np.float64)))
    before, after = decompose(predictions), decompose(moved)
    for part in PARTS:
        assert np.allclose(getattr(after, part), getattr(before, part)[rows], atol=1e-6)


def test_a_uniform_dirichlet_by_hand():
    # Dirichlet(1, 1): total ln 2, expected entropy 1/2, variance (1/4)/3, a draw is a fair coin.
    found = decompose(dirichlet_of([[1.0, 1.0]]))
    expected = [np.log(2), 0.5, np.log(2) - 0.5, 1 / 12, 0.5]
    assert [getattr(found, part)[0] for part in PARTS] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    "alpha", [[2.0, 5.0], [0.3, 0.2], [1.0, 2.0, 4.0], [0.2, 0.5, 0.1], [20.0, 18.0, 3.0, 0.5]]
)
def test_the_closed_forms_agree_with_sampling(alpha):
    draws = np.random.default_rng(0).dirichlet(alpha, 400_000)
    found = decompose(dirichlet_of([alpha]))
    predicted = int(np.argmax(alpha))
    sampled = {
        "aleatoric": stats.entropy(draws, axis=-1),
        "variance": (draws[:, predicted] - alpha[predicted] / sum(alpha)) ** 2,
        "disagreement": (draws.argmax(-1) != predicted).astype(float),
    }
    for part, values in sampled.items():
        error = values.std() / np.sqrt(len(values))
        assert abs(getattr(found, part)[0] - values.mean()) < 4.5 * error + 1e-6
    assert found.total[0] == pytest.approx(stats.entropy(alpha), abs=1e-6)
    assert found.epistemic[0] == pytest.approx(found.total[0] - found.aleatoric[0], abs=1e-12)


def test_a_dirichlet_that_is_surer_has_less_epistemic_uncertainty():
    mean = np.array([0.2, 0.3, 0.5])
    epistemic = decompose(dirichlet_of(np.outer(np.geomspace(1e-3, 1e9, 40), mean))).epistemic
    assert (np.diff(epistemic) < 0).all()
    assert epistemic.max() <= np.log(3)
    assert epistemic.min() > 0


def test_two_classes_disagree_as_the_beta_distribution_says():
    alpha = np.array([[3.0, 1.0], [0.5, 2.0], [1e4, 9.9e3]])
    expected = [stats.beta.cdf(0.5, 3, 1), stats.beta.cdf(0.5, 2, 0.5), stats.beta.cdf(0.5, 1e4, 9.9e3)]
    assert chance_of_another_class(alpha) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("size", [1e-12, 1e-6, 1e-3, 0.1, 1.0, 30.0, 1e4, 1e9])
@pytest.mark.parametrize("C", [3, 6])
def test_equal_concentrations_disagree_with_all_but_one_in_c(size, C):
    assert chance_of_another_class(np.full((1, C), size))[0] == pytest.approx(1 - 1 / C, abs=1e-6)


def test_disagreement_is_the_integral_that_scipy_finds():
    def by_quadrature(alpha):
        largest, *others = sorted(alpha, reverse=True)
        quantiles, weights = np.polynomial.legendre.leggauss(400)
        g = stats.gamma.ppf((quantiles + 1) / 2, largest)
        return 1 - (weights / 2 * np.prod([stats.gamma.cdf(g, other) for other in others], axis=0)).sum()

    cases = np.array(
        [[5.0, 3.0, 1.0], [50.0, 45.0, 3.0], [300.0, 290.0, 280.0], [1.5, 1.2, 1.1], [9.0, 8.5, 2.0]]
    )
    assert chance_of_another_class(cases) == pytest.approx([by_quadrature(case) for case in cases], abs=2e-6)


def test_a_class_of_almost_no_concentration_changes_little():
    assert chance_of_another_class([[3.0, 2.0, 1e-9]])[0] == pytest.approx(
        chance_of_another_class([[3.0, 2.0]])[0], abs=1e-7
    )


def test_the_order_of_classes_does_not_matter_for_disagreement():
    alpha = np.array([[4.0, 2.0, 1.0, 0.3]])
    assert chance_of_another_class(alpha[:, [3, 1, 0, 2]]) == pytest.approx(
        chance_of_another_class(alpha), abs=1e-14
    )
