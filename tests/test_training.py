"""The training loop: M stacked members learn as M separate ones would, and histories say what happened."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from credibly.errors import TrainingError
from credibly.settings import OptimiserSettings
from credibly.training import LOGGED_STEPS, StepRecord, gradient_norms, history_lines, rate_factor, train

M, N, WIDTHS = 3, 24, (5, 4, 2)


def optimiser(**changed):
    return OptimiserSettings(**{"epochs": 3, "batch_size": 8, "learning_rate": 0.05, **changed})


class Stack(nn.Module):
    """M two-layer networks side by side."""

    def __init__(self, members=M, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)

        def drawn(*shape):
            return nn.Parameter(torch.randn(members, *shape, generator=generator) * 0.5)

        self.weights = nn.ParameterList([drawn(5, 4), drawn(4, 2)])
        self.biases = nn.ParameterList([drawn(4), drawn(2)])

    def forward(self, inputs):
        hidden = torch.tanh(torch.einsum("bi,mio->mbo", inputs, self.weights[0]) + self.biases[0][:, None])
        return torch.einsum("mbi,mio->mbo", hidden, self.weights[1]) + self.biases[1][:, None]


def separate(stack, member):
    """One member of a stack as an ordinary network."""
    layers = [nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2)]
    for layer, weight, bias in zip(layers[::2], stack.weights, stack.biases, strict=True):
        layer.weight.data = weight[member].detach().T.clone()
        layer.bias.data = bias[member].detach().clone()
    return nn.Sequential(*layers)


def made_batches(epochs=3):
    generator = torch.Generator().manual_seed(7)
    inputs = torch.randn(N, 5, generator=generator)
    labels = (inputs[:, 0] > 0).long()
    orders = [torch.randperm(N, generator=generator) for _ in range(epochs)]
    return [[(inputs[rows], labels[rows]) for rows in order.split(8)] for order in orders]


def stack_losses(stack):
    def losses(batch):
        inputs, labels = batch
        logits = stack(inputs)
        each = [nn.functional.cross_entropy(one, labels) for one in logits]
        # Members of quite different scale, so that one clipped by another's norm would show.
        return torch.stack([loss * 10**index for index, loss in enumerate(each)])

    return losses


def plainly_trained(network, member, settings, made):
    """The same training, written as anyone would write it for one network."""
    decayed = [p for name, p in network.named_parameters() if name.endswith("weight")]
    others = [p for name, p in network.named_parameters() if name.endswith("bias")]
    steps = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=settings.learning_rate,
    )
    total, step, history = settings.epochs * len(made[0]), 0, []
    for epoch in range(settings.epochs):
        for inputs, labels in made[epoch]:
            steps.zero_grad()
            loss = nn.functional.cross_entropy(network(inputs), labels) * 10**member
            loss.backward()
            highest = settings.clip_norm or math.inf
            norm = nn.utils.clip_grad_norm_(network.parameters(), highest)
            for group in steps.param_groups:
                group["lr"] = settings.learning_rate * rate_factor(step, total, settings)
            steps.step()
            step += 1
            history.append((loss.item(), norm.item()))
    return history


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"weight_decay": 0.5},
        {"clip_norm": 0.1},
        {"schedule": "cosine", "warmup_share": 0.3},
        {"schedule": "linear", "weight_decay": 0.3, "clip_norm": 0.5},
    ],
)
def test_stacked_members_learn_as_separate_networks_do(changed):
    settings, stack, made = optimiser(**changed), Stack(), made_batches()
    alone = [separate(stack, member) for member in range(M)]
    histories = train(stack, lambda epoch: made[epoch], stack_losses(stack), 3, settings, M)
    for member, network in enumerate(alone):
        expected = plainly_trained(network, member, settings, made)
        for layer, weight, bias in zip(list(network)[::2], stack.weights, stack.biases, strict=True):
            torch.testing.assert_close(weight[member].T, layer.weight, atol=1e-5, rtol=0)
            torch.testing.assert_close(bias[member], layer.bias, atol=1e-5, rtol=0)
        found = [(record.loss, record.gradient_norm) for record in histories[member]]
        np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_a_plain_network_learns_like_a_stack_of_one():
    settings = optimiser(weight_decay=0.5, clip_norm=0.2)
    stack, made = Stack(members=1), made_batches()
    network = separate(stack, 0)
    train(stack, lambda epoch: made[epoch], stack_losses(stack), 3, settings, 1)
    losses = stack_losses(lambda inputs: network(inputs)[None])
    train(network, lambda epoch: made[epoch], losses, 3, settings)
    for layer, weight, bias in zip(list(network)[::2], stack.weights, stack.biases, strict=True):
        torch.testing.assert_close(weight[0].T, layer.weight, atol=1e-6, rtol=0)
        torch.testing.assert_close(bias[0], layer.bias, atol=1e-6, rtol=0)


def test_weights_decay_and_biases_do_not():
    stack, made = Stack(), made_batches()
    before = {name: p.detach().clone() for name, p in stack.named_parameters()}
    settings = optimiser(epochs=1, weight_decay=0.1, learning_rate=0.5)
    train(stack, lambda epoch: made[0][:1], lambda batch: 0.0 * stack_losses(stack)(batch), 1, settings, M)
    for name, parameter in stack.named_parameters():
        kept = 0.95 if name.startswith("weights") else 1.0
        torch.testing.assert_close(parameter, before[name] * kept)


def test_frozen_weights_stay():
    stack, made = Stack(), made_batches()
    stack.weights[0].requires_grad_(False)
    before = stack.weights[0].detach().clone()
    train(stack, lambda epoch: made[epoch], stack_losses(stack), 3, optimiser(weight_decay=0.5), M)
    assert torch.equal(stack.weights[0], before)


@given(st.floats(0.01, 100), st.integers(0, 50))
def test_norms_are_by_member(scale, seed):
    stack = Stack(seed=seed)
    inputs = torch.randn(6, 5, generator=torch.Generator().manual_seed(seed))
    (stack(inputs).square() * torch.tensor([scale, 1.0, 1 / scale])[:, None, None]).sum().backward()
    parameters = list(stack.parameters())
    expected = [math.sqrt(sum(float((p.grad[m] ** 2).sum()) for p in parameters)) for m in range(M)]
    np.testing.assert_allclose(gradient_norms(parameters, M), expected, rtol=1e-4)


# Schedules


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, [1, 1, 1, 1, 1]),
        ({"warmup_share": 0.4}, [0.5, 1, 1, 1, 1]),
        ({"warmup_share": 0.5}, [1 / 3, 2 / 3, 1, 1, 1]),
        ({"schedule": "linear"}, [1, 0.8, 0.6, 0.4, 0.2]),
        ({"schedule": "linear", "warmup_share": 0.2}, [1, 1, 0.75, 0.5, 0.25]),
        ({"schedule": "cosine"}, [1, 0.904508, 0.654508, 0.345492, 0.095492]),
        ({"schedule": "cosine", "warmup_share": 0.2}, [1, 1, 0.853553, 0.5, 0.146447]),
    ],
)
def test_schedules_by_hand(changed, expected):
    settings = optimiser(**changed)
    np.testing.assert_allclose([rate_factor(step, 5, settings) for step in range(5)], expected, atol=1e-6)


@given(
    st.integers(1, 300),
    st.sampled_from(["constant", "linear", "cosine"]),
    st.floats(0, 1, exclude_max=True),
)
def test_a_rate_rises_to_one_and_falls_but_not_to_zero(total, schedule, share):
    settings = optimiser(schedule=schedule, warmup_share=share)
    factors = [rate_factor(step, total, settings) for step in range(total)]
    assert all(0 < factor <= 1 for factor in factors)
    top = factors.index(max(factors))
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)


# Histories


def test_a_history_tells_every_step_of_a_short_training():
    stack, made, told = Stack(), made_batches(), []
    settings = optimiser(schedule="linear", learning_rate=0.1)
    histories = train(
        stack, lambda epoch: made[epoch], stack_losses(stack), 3, settings, M,
        lambda done, total: told.append((done, total)),
    )  # fmt: skip
    assert told == [(step, 9) for step in range(1, 10)]
    assert [len(history) for history in histories] == [9, 9, 9]
    for history in histories:
        assert [record.step for record in history] == list(range(1, 10))
        np.testing.assert_allclose([record.epoch for record in history], np.arange(1, 10) / 3)
        rates = [record.learning_rate for record in history]
        np.testing.assert_allclose(rates, 0.1 * (1 - np.arange(9) / 9))
        seconds = [record.seconds for record in history]
        assert seconds == sorted(seconds)
        assert seconds[0] > 0
    first = [history[0].loss for history in histories]
    assert first[2] > 10 * first[1] > first[1] > first[0] > 0
    mean = [np.mean([record.loss for record in histories[0][part]]) for part in (slice(3), slice(-3, None))]
    assert mean[1] < mean[0]


def test_a_long_training_keeps_about_200_lines_and_the_last():
    parameter = nn.Linear(1, 1)
    histories = train(
        parameter, lambda epoch: range(1250), lambda batch: parameter.weight.square().sum()[None], 1250,
        optimiser(epochs=1),
    )  # fmt: skip
    steps = [record.step for record in histories[0]]
    assert len(steps) == pytest.approx(LOGGED_STEPS, rel=0.1)
    assert steps[-1] == 1250
    assert steps[:2] == [6, 12]


def test_history_lines_are_one_json_object_each():
    record = StepRecord(3, 0.5, 0.25, 2.0, 0.001, 1.5)
    lines = history_lines([record, record]).splitlines()
    assert len(lines) == 2
    assert json.loads(lines[1]) == {
        "step": 3, "epoch": 0.5, "loss": 0.25, "gradient_norm": 2.0, "learning_rate": 0.001, "seconds": 1.5,
    }  # fmt: skip
    assert history_lines([]) == ""


# What goes wrong


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("at", [1, 4, 9])
def test_a_loss_that_is_no_number_stops_and_names_the_member(broken, clip, at):
    stack, made, done = Stack(), made_batches(), []

    def losses(batch):
        factor = torch.ones(M)
        factor[1] = broken if len(done) + 1 == at else 1.0
        return stack_losses(stack)(batch) * factor

    with pytest.raises(
        TrainingError, match=rf"of member 1 .* no longer finite at step {at}; lower the learn"
    ):
        train(
            stack, lambda epoch: made[epoch], losses, 3, optimiser(clip_norm=clip), M,
            lambda step, total: done.append(step),
        )  # fmt: skip
    # It stops before the step is taken.
    assert len(done) == at - 1
    assert all(torch.isfinite(parameter).all() for parameter in stack.parameters())


def test_a_gradient_that_is_no_number_stops_too():
    weight = nn.Linear(1, 1, bias=False)
    weight.weight.data.zero_()
    with pytest.raises(TrainingError, match=r"the loss or its gradient is no longer finite at step 1"):
        train(
            weight, lambda epoch: [0], lambda batch: (weight.weight * 0).sum().sqrt()[None], 1,
            optimiser(epochs=1),
        )  # fmt: skip


def test_a_rate_far_too_high_is_told_and_not_kept():
    stack, made = Stack(), made_batches()

    def losses(batch):
        return stack(batch[0]).pow(4).mean(dim=(1, 2))

    with pytest.raises(TrainingError, match="of member 0, 1, 2"):
        train(stack, lambda epoch: made[epoch], losses, 3, optimiser(learning_rate=1e30), M)


def test_training_is_seen_by_the_module_and_ends_in_evaluation_mode():
    network, modes = nn.Sequential(nn.Linear(1, 1), nn.Dropout(0.5)), []

    def losses(batch):
        modes.append(network[1].training)
        return network[0].weight.square().sum()[None]

    train(network.eval(), lambda epoch: [0], losses, 1, optimiser(epochs=2))
    assert modes == [True, True]
    assert not network.training
    assert not network[1].training


def test_a_failed_training_leaves_no_network_in_training_mode():
    network = nn.Linear(1, 1).eval()
    with pytest.raises(TrainingError):
        train(
            network, lambda epoch: [0], lambda batch: (network.weight.sum() * math.nan)[None], 1, optimiser()
        )
    assert not network.training
