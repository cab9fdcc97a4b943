"""What goes wrong in a training: a member that diverges stops alone, and its figures are never stored."""

import math

import pytest
import torch
from torch import nn

from credibly.training import LOGGED_STEPS, Checkpoints, HeldOut, Monitor
from test_training import M, Stack, made_batches, optimiser, stack_losses, train


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("at", [1, 4, 9])
def test_a_member_whose_loss_is_no_number_stops_and_the_others_live(broken, clip, at):
    done, stacks = [], (Stack(), Stack())

    def losses(batch):
        factor = torch.ones(M)
        factor[1] = broken if len(done) + 1 == at else 1.0
        return stack_losses(stacks[0])(batch) * factor

    made, settings = made_batches(), optimiser(clip_norm=clip)
    monitor = Monitor(lambda step, total: done.append(step))
    histories = train(stacks[0], lambda epoch: made[epoch], losses, 3, settings, M, monitor)
    untroubled = train(stacks[1], lambda epoch: made[epoch], stack_losses(stacks[1]), 3, settings, M)
    assert f"the loss or its gradient is no longer finite at step {at}; lower" in histories[1].failure
    assert [record.step for record in histories[1].records] == list(range(1, at))
    for member in (0, 2):
        assert histories[member].failure is None
        for one, other in zip(*(stack.parameters() for stack in stacks), strict=True):
            assert torch.equal(one[member], other[member])
        assert [record.loss for record in histories[member].records] == [
            record.loss for record in untroubled[member].records
        ]


def test_a_gradient_that_is_no_number_stops_too():
    weight = nn.Linear(1, 1, bias=False)
    weight.weight.data.zero_()
    (history,) = train(
        weight, lambda epoch: [0], lambda batch: (weight.weight * 0).sum().sqrt()[None], 1,
        optimiser(epochs=1),
    )  # fmt: skip
    assert history.failure.startswith("the loss or its gradient is no longer finite at step 1;")


def test_a_rate_far_too_high_is_told_and_not_kept():
    stack, made = Stack(), made_batches()

    def losses(batch):
        return stack(batch[0]).pow(4).mean(dim=(1, 2))

    done = []
    monitor = Monitor(lambda step, total: done.append(step))
    settings = optimiser(epochs=3, learning_rate=1e30)
    histories = train(stack, lambda epoch: made[epoch], losses, 3, settings, M, monitor)
    assert all("no longer finite at step 2" in history.failure for history in histories)
    # Where no member is left the rest of the steps is not taken.
    assert done == [1, 2]


@pytest.mark.parametrize("worst", [float("nan"), float("inf")])
def test_a_member_that_held_out_rows_show_to_have_diverged_stops_before_it_is_stored(tmp_path, worst):
    stack, made = Stack(), made_batches()

    def validate(limit):
        return HeldOut(torch.tensor([0.5, worst, 0.6]), torch.full((M,), 0.5), 8)

    monitor = Monitor(checkpoints=Checkpoints(tmp_path / "kept"))
    histories = train(
        stack, lambda epoch: made[epoch], stack_losses(stack), 3, optimiser(validations=1), M, monitor,
        validate=validate,
    )  # fmt: skip
    assert "no longer finite at step 3" in histories[1].failure
    assert [record.step for record in histories[1].records] == [1, 2]
    assert [history.failure for history in histories[::2]] == [None, None]
    assert [len(history.records) for history in histories[::2]] == [9, 9]
    _, facts = monitor.checkpoints.latest()
    assert facts["active"] == [True, False, True]


def test_a_loss_that_is_no_number_at_a_measured_step_alone_stops_the_member():
    parameter, steps = nn.Linear(1, 1), 5 * LOGGED_STEPS

    def losses(batch):
        return parameter.weight.square().sum()[None] * (float("nan") if batch == 11 else 1.0)

    (history,) = train(
        parameter, lambda epoch: range(steps), losses, steps, optimiser(epochs=1, validations=steps // 3),
        validate=lambda limit: HeldOut(torch.zeros(1), torch.zeros(1), 8),
    )  # fmt: skip
    assert "no longer finite at step 12" in history.failure
    assert all(math.isfinite(record.loss) for record in history.records)


def test_the_norm_of_a_gradient_is_that_before_clipping_at_every_step():
    network = nn.Linear(1, 1, bias=False)
    network.weight.data.fill_(3.0)
    steps = 5 * LOGGED_STEPS
    (history,) = train(
        network, lambda epoch: range(steps), lambda batch: 5 * network.weight.sum()[None], steps,
        optimiser(epochs=1, clip_norm=0.5, validations=steps // 3),
        validate=lambda limit: HeldOut(torch.zeros(1), torch.zeros(1), 8),
    )  # fmt: skip
    assert 3 in [record.step for record in history.records]
    assert {record.gradient_norm for record in history.records} == {5.0}


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

    def failing(batch):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train(network, lambda epoch: [0], failing, 1, optimiser())
    assert not network.training
