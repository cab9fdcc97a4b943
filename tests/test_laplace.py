"""The Laplace approximation of a linear head against second implementations and closed forms."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from sklearn.linear_model import LogisticRegression

from credibly.errors import InputError
from credibly.members import posterior
from credibly.members.laplace import stacked
from credibly.members.posterior import (
    Curvature,
    Rows,
    curvature_at,
    evidence_slope,
    hessian,
    kronecker_factors,
    log_evidence,
    most_probable,
    penalised_loss,
    posterior_of,
    well_determined,
)

RNG = np.random.default_rng(3)
N, D, C = 60, 4, 3
INPUTS = RNG.normal(size=(N, D)).astype(np.float32)
LABELS = (INPUTS @ RNG.normal(size=(D, C)) + RNG.gumbel(size=(N, C))).argmax(axis=1)
HARD = Rows(INPUTS, np.eye(C)[LABELS])
SOFT = Rows(INPUTS, RNG.dirichlet(np.ones(C), N))
WEIGHTED = Rows(INPUTS, SOFT.targets * RNG.uniform(0.2, 3.0, size=C))
WEIGHTS = RNG.normal(size=HARD.shape)
every_target = pytest.mark.parametrize("rows", [HARD, SOFT, WEIGHTED], ids=["hard", "soft", "weighted"])


def torch_loss(rows, precision):
    inputs = torch.from_numpy(np.column_stack([rows.inputs, np.ones(len(rows.inputs))]))
    targets = torch.from_numpy(rows.targets)

    def loss(flat):
        weights = flat.view(*rows.shape)
        log_probs = torch.log_softmax(inputs @ weights.T, dim=1)
        return -(targets * log_probs).sum() + precision / 2 * (weights**2).sum()

    return loss


def whole(curvature):
    """Return the matrix that a curvature stands for."""
    turned = np.kron(curvature.left, curvature.right)
    return turned @ np.diag(curvature.eigenvalues.ravel()) @ turned.T


# The loss and its derivatives


@every_target
def test_the_hessian_is_that_of_automatic_differentiation(rows):
    flat = torch.from_numpy(WEIGHTS.ravel())
    expected = torch.autograd.functional.hessian(torch_loss(rows, 0.0), flat).numpy()
    np.testing.assert_allclose(hessian(WEIGHTS, rows), expected, atol=1e-10)
    np.testing.assert_allclose(whole(curvature_at(WEIGHTS, rows, "full")), expected, atol=1e-10)


@every_target
def test_loss_and_gradient_are_those_of_automatic_differentiation(rows):
    flat = torch.from_numpy(WEIGHTS.ravel()).requires_grad_()
    expected = torch_loss(rows, 0.7)(flat)
    expected.backward()
    loss, gradient = penalised_loss(WEIGHTS, rows, 0.7)
    assert loss == pytest.approx(expected.item(), rel=1e-12)
    np.testing.assert_allclose(gradient.ravel(), flat.grad.numpy(), atol=1e-10)


def test_rows_in_chunks_give_the_same(monkeypatch):
    expected = (
        penalised_loss(WEIGHTS, SOFT, 0.7)[0],
        hessian(WEIGHTS, SOFT),
        *kronecker_factors(WEIGHTS, SOFT),
    )
    monkeypatch.setattr(posterior, "CHUNK", 7)
    found = penalised_loss(WEIGHTS, SOFT, 0.7)[0], hessian(WEIGHTS, SOFT), *kronecker_factors(WEIGHTS, SOFT)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-10)


def test_the_kronecker_product_is_exact_where_all_inputs_are_one():
    """Then the mean of products is the product of means."""
    rows = Rows(np.tile(INPUTS[:1], (N, 1)), SOFT.targets)
    exact = hessian(WEIGHTS, rows)
    np.testing.assert_allclose(whole(curvature_at(WEIGHTS, rows, "kron")), exact, atol=1e-9)
    classes, inputs = kronecker_factors(WEIGHTS, SOFT)
    np.testing.assert_allclose(
        whole(curvature_at(WEIGHTS, SOFT, "kron")), np.kron(classes, inputs), atol=1e-9
    )


# The maximum


@pytest.mark.parametrize("precision", [0.05, 1.0, 20.0])
def test_the_most_probable_weights_are_those_of_scikit_learn(precision):
    """Ours has the bias among the penalised weights, so scikit-learn gets it as a column of ones."""
    inputs = np.column_stack([INPUTS, np.ones(N)]).astype(np.float64)
    peer = LogisticRegression(C=1 / precision, fit_intercept=False, tol=1e-10, max_iter=10_000)
    found = most_probable(HARD, precision, np.zeros(HARD.shape))
    np.testing.assert_allclose(found, peer.fit(inputs, LABELS).coef_, atol=1e-4)


def test_weighted_rows_are_those_of_scikit_learn():
    share = np.array([0.5, 1.0, 2.5])
    inputs = np.column_stack([INPUTS, np.ones(N)]).astype(np.float64)
    peer = LogisticRegression(C=1.0, fit_intercept=False, tol=1e-10, max_iter=10_000)
    peer.fit(inputs, LABELS, sample_weight=share[LABELS])
    found = most_probable(Rows(INPUTS, HARD.targets * share), 1.0, np.zeros(HARD.shape))
    np.testing.assert_allclose(found, peer.coef_, atol=1e-4)


def test_inputs_that_are_no_numbers_are_refused():
    broken = INPUTS.copy()
    broken[3, 1] = np.nan
    with pytest.raises(InputError, match="finite"):
        posterior_of(Rows(broken, HARD.targets))


# The prior's precision


@given(some.floats(-3, 3), some.sampled_from(["full", "kron"]))
def test_the_slope_of_the_evidence_is_its_finite_difference(logarithm, shape):
    precision, curvature = 10.0**logarithm, curvature_at(WEIGHTS, HARD, shape)
    step = 1e-4 * precision
    above, below = (log_evidence(50.0, WEIGHTS, curvature, precision + move) for move in (step, -step))
    slope = evidence_slope(WEIGHTS, curvature, precision)
    assert (above - below) / (2 * step) == pytest.approx(slope, rel=1e-4, abs=1e-6)


def test_the_evidence_of_one_weight_is_worked_by_hand():
    """With loss 2, weight 3, curvature 4 and precision 0.5: -2 - 0.25 x 9 + ln(0.5) / 2 - ln(4.5) / 2."""
    one = Curvature(np.array([[4.0]]), np.ones((1, 1)), np.ones((1, 1)))
    expected = -2 - 2.25 + 0.5 * np.log(0.5 / 4.5)
    assert log_evidence(2.0, np.array([[3.0]]), one, 0.5) == pytest.approx(expected, abs=1e-12)
    assert well_determined(one, 0.5) == pytest.approx(8 / 9)


@pytest.mark.parametrize("shape", ["full", "kron"])
def test_at_the_precision_found_the_evidence_is_flat(shape):
    found = posterior_of(HARD, shape)
    steepest = abs(evidence_slope(found.weights, found.curvature, 10 * found.precision))
    assert abs(evidence_slope(found.weights, found.curvature, found.precision)) < 0.01 * steepest
    _, gradient = penalised_loss(found.weights, HARD, found.precision)
    assert np.abs(gradient).max() < 0.05


def test_labels_that_are_noise_get_a_narrow_prior():
    noise = Rows(INPUTS, np.eye(C)[RNG.integers(0, C, N)])
    assert posterior_of(noise).precision > 5 * posterior_of(HARD).precision


def test_a_precision_that_is_given_is_kept():
    found = posterior_of(HARD, precision=2.0)
    assert found.precision == 2.0
    np.testing.assert_allclose(found.weights, most_probable(HARD, 2.0, np.zeros(HARD.shape)), atol=1e-6)


# Draws


@pytest.mark.parametrize("shape", ["full", "kron"])
def test_draws_have_the_posteriors_mean_and_covariance(shape):
    found = posterior_of(HARD, shape, precision=2.0)
    covariance = np.linalg.inv(whole(found.curvature) + 2.0 * np.eye(WEIGHTS.size))
    # What standard normal noise is multiplied by, column by column: its square is the covariance.
    unit = np.eye(WEIGHTS.size).reshape(-1, *WEIGHTS.shape)
    root = np.stack([found.curvature.spread(2.0, one).ravel() for one in unit], axis=1)
    np.testing.assert_allclose(root @ root.T, covariance, atol=1e-12)
    np.testing.assert_allclose(root, root.T, atol=1e-12)
    generator = np.random.default_rng(0)
    draws = np.stack([found.sample(generator).ravel() for _ in range(20_000)])
    errors = np.sqrt(np.diag(covariance) / len(draws))
    assert (np.abs(draws.mean(axis=0) - found.weights.ravel()) < 5 * errors).all()
    np.testing.assert_allclose(np.cov(draws.T), covariance, atol=0.05 * covariance.max())


def test_more_rows_leave_less_open():
    twice = Rows(np.tile(INPUTS, (4, 1)), np.tile(HARD.targets, (4, 1)))
    few, many = (np.linalg.inv(whole(curvature_at(WEIGHTS, rows)) + np.eye(15)) for rows in (HARD, twice))
    assert np.linalg.eigvalsh(few - many).min() > -1e-12
    assert np.trace(few) > 1.2 * np.trace(many)


def test_stacked_heads_give_the_logits_of_the_weights():
    logits = stacked([WEIGHTS, 2 * WEIGHTS])(torch.from_numpy(INPUTS)).detach().numpy()
    expected = INPUTS @ WEIGHTS[:, :-1].T + WEIGHTS[:, -1]
    np.testing.assert_allclose(logits, [expected, 2 * expected], atol=1e-5)
