"""Heads: the batched product is M plain networks, and their options do what they say."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from torch import nn

from credibly.errors import RunFolderError
from credibly.members import head_stack
from credibly.members.common import kept_units, training_rows, weighted_targets
from credibly.members.head_stack import Heads, build, fit, load_members, predict, save_member
from credibly.settings import HeadsSettings
from credibly.training import stream

EMBEDDINGS = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
LABELS = (EMBEDDINGS[:, 0] > 0).astype(int)
TARGETS = np.eye(2, dtype=np.float32)[LABELS]


def settings(**changed):
    optimiser = {"epochs": 3, "batch_size": 16, "learning_rate": 0.01}
    return HeadsSettings(**{"hidden": [5], "dropout": 0.0, "optimiser": optimiser, **changed})


def plain(stack, member):
    """A member as an ordinary network."""
    layers: list[nn.Module] = []
    for weight, bias in zip(stack.weights, stack.biases, strict=True):
        layer = nn.Linear(*weight.shape[:0:-1])
        layer.weight.data, layer.bias.data = weight[member].clone(), bias[member].clone()
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


@pytest.mark.parametrize("hidden", [[], [5], [7, 3]])
def test_the_batched_product_is_m_plain_networks(hidden):
    stack = build(settings(hidden=hidden), 6, 3, [0, 1, 2, 3])
    inputs = torch.from_numpy(EMBEDDINGS)
    logits = stack(inputs)
    assert logits.shape == (4, 50, 3)
    each = torch.stack([plain(stack, member)(inputs) for member in range(4)])
    torch.testing.assert_close(logits, each, atol=1e-6, rtol=1e-5)
    own = torch.stack([inputs.roll(member, 0) for member in range(4)])
    rolled = torch.stack([plain(stack, member)(own[member]) for member in range(4)])
    torch.testing.assert_close(stack(own), rolled, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("hidden", [[], [5], [7, 3]])
def test_all_layers_but_the_last_compute_in_the_precision_of_the_embeddings(hidden):
    stack = build(settings(hidden=hidden), 6, 3, [0, 1])
    rounded = torch.from_numpy(EMBEDDINGS).bfloat16()
    logits, exact = stack(rounded), stack(rounded.float())
    assert logits.dtype == torch.float32
    assert torch.equal(logits, exact) == (not hidden)
    # A product's terms are rounded to 8 bits: 2^-8 of their size, by the root of their number.
    torch.testing.assert_close(logits, exact, atol=0.02, rtol=0)
    logits.square().sum().backward()
    slopes = [weight.grad.clone() for weight in stack.weights]
    stack.zero_grad()
    exact.square().sum().backward()
    for slope, weight in zip(slopes, stack.weights, strict=True):
        assert slope.dtype == torch.float32
        torch.testing.assert_close(slope, weight.grad, atol=0.05 * weight.grad.abs().max().item(), rtol=0)


def test_heads_of_either_precision_are_saved_and_answer_in_float32():
    chosen = settings(hidden=[16], optimiser={"epochs": 40, "batch_size": 16, "learning_rate": 0.01})
    answers = []
    for precision in ("fp32", "bf16"):
        stack, _ = fit(EMBEDDINGS, TARGETS, chosen, [0, 1], precision=precision)
        assert {weight.dtype for weight in stack.weights} == {torch.float32}
        answers.append(predict(stack, EMBEDDINGS))
    assert not np.array_equal(*answers)
    right = [(answer.argmax(axis=2) == LABELS).mean() for answer in answers]
    assert min(right) >= 0.95
    np.testing.assert_allclose(np.exp(answers[0]), np.exp(answers[1]), atol=0.1)


def test_heads_start_as_linear_layers_do():
    stack = build(settings(hidden=[400]), 100, 2, range(8))
    for weight, bias, inputs in zip(stack.weights, stack.biases, (100, 400), strict=True):
        bound = 1 / np.sqrt(inputs)
        assert weight.abs().max() <= bound
        assert bias.abs().max() <= bound
        assert weight.std().item() == pytest.approx(bound / np.sqrt(3), rel=0.05)


def test_predictions_are_log_softmax_and_independent_of_chunks(monkeypatch):
    stack = build(settings(), 6, 2, [0, 1])
    found = predict(stack, EMBEDDINGS)
    with torch.inference_mode():
        expected = torch.log_softmax(stack(torch.from_numpy(EMBEDDINGS)), dim=-1)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    monkeypatch.setattr(head_stack, "PREDICTION_ROWS", 7)
    np.testing.assert_allclose(predict(stack, EMBEDDINGS), found, atol=1e-6)
    assert predict(stack, EMBEDDINGS[:0]).shape == (2, 0, 2)


@given(st.floats(0, 0.999999), st.integers(0, 100))
def test_dropout_drops_its_share_and_keeps_the_mean(dropout, seed):
    mask = torch.from_numpy(
        kept_units((100, 200), dropout, [np.random.default_rng([seed, m]) for m in range(2)])
    )
    dropped = (mask == 0).float().mean(dim=(1, 2))
    assert (dropped - dropout).abs().max() < 0.02
    kept = mask[mask > 0]
    if len(kept):
        assert kept.unique().numel() == 1
        assert kept[0].item() == pytest.approx(1 / (1 - dropout), rel=0.001, abs=1e-4) or dropout > 0.98
    assert not torch.equal(mask[0], mask[1]) or dropout < 1e-3 or dropout > 0.999


def test_dropout_acts_in_training_and_not_in_prediction():
    half = settings(dropout=0.5)
    stack = build(half, 6, 2, [0])
    np.testing.assert_array_equal(
        predict(stack, EMBEDDINGS), predict(build(settings(), 6, 2, [0]), EMBEDDINGS)
    )
    inputs = torch.from_numpy(EMBEDDINGS)
    dropped = stack(inputs, [np.random.default_rng(0)])
    assert (dropped - stack(inputs)).abs().max() > 0.01
    different = [fit(EMBEDDINGS, TARGETS, chosen, [0])[0].weights[0] for chosen in (half, settings())]
    assert not torch.equal(*different)


def test_an_epoch_shows_every_row_once_in_an_order_of_each_members_own(monkeypatch):
    shown = []
    real = Heads.forward

    def watched(self, embeddings, streams=None):
        shown.append(embeddings[:, :, 0].detach().clone())
        return real(self, embeddings, streams)

    monkeypatch.setattr(Heads, "forward", watched)
    index = np.arange(50, dtype=np.float32)[:, None] * np.ones((1, 6), dtype=np.float32)
    fit(index / 50, TARGETS, settings(), [0, 1])
    epochs = torch.cat(shown, dim=1).reshape(2, 3, 50)
    everything = torch.from_numpy(index[:, 0] / 50)
    for member in range(2):
        for epoch in range(3):
            assert torch.equal(epochs[member, epoch].sort().values, everything)
    orders = {tuple(one.tolist()) for member in epochs for one in member}
    assert len(orders) == 6
    assert [batch.shape[1] for batch in shown] == [16, 16, 16, 2] * 3


def test_a_bootstrap_draws_with_replacement_and_for_each_member_anew():
    drawn = [training_rows(10_000, seed, True) for seed in range(4)]
    for rows in drawn:
        assert len(rows) == 10_000
        assert (rows.min(), rows.max()) >= (0, 9_900)
        assert len(np.unique(rows)) / 10_000 == pytest.approx(1 - np.exp(-1), abs=0.01)
    assert len({rows.tobytes() for rows in drawn}) == 4
    assert training_rows(5, 0, False).tolist() == [0, 1, 2, 3, 4]


def test_balanced_weights_by_hand():
    # 3 of 4 rows in the first class: weights 4 / (2 x 3) and 4 / (2 x 1).
    targets = np.array([[1, 0], [1, 0], [1, 0], [0, 1]], dtype=np.float32)
    np.testing.assert_allclose(weighted_targets(targets, "balanced"), targets * [2 / 3, 2], rtol=1e-6)
    np.testing.assert_allclose(weighted_targets(targets, "none"), targets)
    absent = weighted_targets(np.array([[1.0, 0.0]]), "balanced")
    assert np.isfinite(absent).all()


def test_the_plain_head_is_among_the_options():
    """One hidden layer, Adam at a constant rate, no dropout, no decay: a loop over plain networks."""
    chosen = settings(
        optimiser={
            "epochs": 4,
            "batch_size": 16,
            "learning_rate": 0.01,
            "weight_decay": 0.0,
            "schedule": "constant",
        }
    )
    seeds = [3, 4]
    start = build(chosen, 6, 2, seeds)
    networks = [plain(start, member) for member in range(2)]
    found, _ = fit(EMBEDDINGS, TARGETS, chosen, seeds)
    for member, (seed, network) in enumerate(zip(seeds, networks, strict=True)):
        adam = torch.optim.Adam(network.parameters(), lr=0.01)
        for epoch in range(4):
            for rows in torch.from_numpy(stream(seed, f"order {epoch}").permutation(50)).split(16):
                adam.zero_grad()
                logits = network(torch.from_numpy(EMBEDDINGS)[rows])
                nn.functional.cross_entropy(logits, torch.from_numpy(LABELS)[rows]).backward()
                adam.step()
        expected = torch.log_softmax(network(torch.from_numpy(EMBEDDINGS)), dim=-1).detach()
        np.testing.assert_allclose(predict(found, EMBEDDINGS)[member], expected, atol=1e-5)


def test_a_batch_larger_than_the_data_is_one_batch():
    _, histories = fit(EMBEDDINGS, TARGETS, settings(optimiser={"epochs": 2, "batch_size": 999}), [0])
    assert [record.epoch for record in histories[0].records] == [1.0, 2.0]


# Files


@pytest.fixture
def stack():
    return build(settings(hidden=[5, 4], dropout=0.25), 6, 2, [0, 1])


def files_of(stack, folder):
    files = [folder / f"{member}.safetensors" for member in range(stack.members)]
    for member, file in enumerate(files):
        save_member(stack, member, file, ("no", "да"))
    return files


def test_a_saved_member_is_an_ordinary_network(stack, tmp_path):
    files = files_of(stack, tmp_path)
    with safe_open(files[1], framework="pt") as handle:
        assert sorted(handle.keys()) == [
            f"layers.{n}.{part}" for n in range(3) for part in ("bias", "weight")
        ]
        state = {name: handle.get_tensor(name) for name in handle.keys()}
        assert json.loads(handle.metadata()["widths"]) == [6, 5, 4, 2]
        assert json.loads(handle.metadata()["class_names"]) == ["no", "да"]
    network = plain(stack, 1)
    layers = [layer for layer in network if isinstance(layer, nn.Linear)]
    for number, layer in enumerate(layers):
        assert torch.equal(state[f"layers.{number}.weight"], layer.weight)
        assert torch.equal(state[f"layers.{number}.bias"], layer.bias)


def test_loaded_members_stand_in_the_order_of_their_files(stack, tmp_path):
    files = files_of(stack, tmp_path)
    loaded = load_members(files[::-1])
    np.testing.assert_array_equal(predict(loaded, EMBEDDINGS), predict(stack, EMBEDDINGS)[::-1])
    assert (loaded.widths, loaded.dropout, loaded.training) == ([6, 5, 4, 2], 0.25, False)


@pytest.mark.parametrize("content", [b"", b"garbage", None])
def test_a_file_that_is_no_head_is_told(stack, tmp_path, content):
    from safetensors.torch import save

    files = files_of(stack, tmp_path)
    files[1].write_bytes(save({"weight": torch.zeros(2)}) if content is None else content)
    with pytest.raises(RunFolderError, match=r"1.safetensors is damaged or no head .*--overwrite"):
        load_members(files)


def test_members_of_different_shape_are_not_stacked(stack, tmp_path):
    files = files_of(stack, tmp_path)
    save_member(build(settings(), 6, 2, [0]), 0, files[1], ("a", "b"))
    with pytest.raises(RunFolderError, match=r"widths \[6, 5, 2\], but the first member has \[6, 5, 4, 2\]"):
        load_members(files)
    with pytest.raises(RunFolderError, match="one member or more"):
        load_members([])
