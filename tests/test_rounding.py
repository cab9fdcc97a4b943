"""Products on integers: rounded by hand and by the graph alike, and chosen by what they do to answers."""

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from credibly.export import rounding
from credibly.export.effects import Choice, chosen
from credibly.export.parity import Parity, error_in_bins
from credibly.export.products import sites_of
from credibly.export.quantise import quantised
from credibly.export.rounding import Seen, beside, columns_rounded, divided, fine, range_of, relative_error
from credibly.records import Examples, Predictions
from credibly.runtime.graph import session_of
from credibly.uncertainty.systems import answers

K, N = 32, 6
WAYS = {"divided": divided, "beside": lambda seen, weight: beside(seen, weight, 1 / 8), "fine": fine}


def activations(far=20.0, rows=400, seed=0):
    """Normal activations with one channel that reaches far, as transformers' have."""
    draw = np.random.default_rng(seed)
    states = draw.normal(size=(rows, K)).astype(np.float32)
    states[:, 3] *= far
    return states


def seen_of(states):
    return Seen(states, states.min(axis=0), states.max(axis=0))


def weights(seed=1):
    return np.random.default_rng(seed).normal(size=(K, N)).astype(np.float32)


def graph_of(weight, bias, gemm=False):
    """A graph with one product, whose bias is added as exporters do it."""
    bias_node = [] if gemm else [helper.make_node("Add", ["b", "xw"], ["logits"], name="/layer/Add")]
    product = (
        helper.make_node("Gemm", ["x", "w", "b"], ["logits"], name="/layer/Gemm", transB=1)
        if gemm
        else helper.make_node("MatMul", ["x", "w"], ["xw"], name="/layer/MatMul")
    )
    shape = ["rows", K] if gemm else ["batch", "length", K]
    graph = helper.make_graph(
        [product, *bias_node],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [*shape[:-1], N])],
        [
            numpy_helper.from_array(weight.T.copy() if gemm else weight, "w"),
            numpy_helper.from_array(bias, "b"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


# Rounding


def test_weights_are_rounded_column_by_column():
    weight = np.array([[1.27, -0.5], [0.01, 1.0]], dtype=np.float32)
    integers, scales = columns_rounded(weight)
    np.testing.assert_allclose(scales, [0.01, 1 / 127], rtol=1e-6)
    assert integers.tolist() == [[127, -64], [1, 127]]


@given(low=st.floats(-100, 0), high=st.floats(0, 100))
def test_a_range_covers_its_ends_and_holds_zero_exactly(low, high):
    scale, zero = range_of(np.array([low]), np.array([high]))
    ends = np.array([low, 0.0, high], dtype=np.float32)
    assert np.abs(rounding.rounded(ends, scale, zero) - ends).max() <= 0.51 * scale + 1e-6
    assert rounding.rounded(np.zeros(1, np.float32), scale, zero) == 0


@pytest.mark.parametrize("way", WAYS)
def test_a_channel_that_reaches_far_costs_the_others_little(way):
    seen, weight = seen_of(activations()), weights()
    scale, zero = range_of(seen.low, seen.high)
    integers, scales = columns_rounded(weight)
    plain = rounding.rounded(seen.rows, scale, zero) @ (integers * scales)
    error = relative_error(plain - seen.rows @ weight, seen.rows @ weight)
    assert WAYS[way](seen, weight).error < 0.6 * error


@pytest.mark.parametrize(("far", "covered"), [(1.17, 0.85), (1.0, 1.0)])
def test_a_range_leaves_out_the_farthest_where_that_loses_less(monkeypatch, far, covered):
    """Two rows in very many reach farther than all others: finer steps for these are worth more."""
    states = np.random.default_rng(0).uniform(-1, 1, (40000, K)).astype(np.float32)
    states[:2] = [[-far], [far]]
    own = divided(seen_of(states), weights())
    monkeypatch.setattr(rounding, "COVERED", (1.0,))
    whole = divided(seen_of(states), weights())
    assert own.scale == pytest.approx(covered * whole.scale, rel=0.01)
    assert (own.error < 0.97 * whole.error) == (covered < 1)


def test_what_stays_float_is_what_reaches_farthest():
    assert beside(seen_of(activations()), weights(), 1 / K).outliers.tolist() == [3]


def test_an_error_counts_by_the_size_of_its_row():
    exact = np.array([[1.0], [1.0], [100.0]], dtype=np.float32)
    lost = np.array([[0.1], [0.1], [10.0]], dtype=np.float32)
    assert relative_error(lost, exact) == pytest.approx(0.1)
    few = relative_error(np.array([[0.0], [0.0], [1.0]], np.float32), exact)
    many = relative_error(np.array([[1.0], [1.0], [0.0]], np.float32), exact)
    assert many > 10 * few


@pytest.mark.parametrize("gemm", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_the_graph_computes_what_was_reckoned(way, gemm):
    states, weight = activations(), weights()
    bias = np.linspace(-1, 1, N).astype(np.float32)
    model = graph_of(weight, bias, gemm)
    (site,) = sites_of(model, classes=2)
    np.testing.assert_array_equal(site.weight, weight)
    np.testing.assert_array_equal(site.products[0].bias, bias)
    found = WAYS[way](seen_of(states), weight)
    given_ = states if gemm else states.reshape(4, 100, K)
    (exact,) = session_of(model.SerializeToString()).run(["logits"], {"x": given_})
    integer = quantised(model, [site], {site.input: found})
    assert "MatMulIntegerToFloat" in {node.op_type for node in integer.graph.node}
    (rounded,) = session_of(integer.SerializeToString()).run(["logits"], {"x": given_})
    lost = (exact - rounded).reshape(-1, N)
    assert relative_error(lost, (exact - bias).reshape(-1, N)) == pytest.approx(found.error, rel=0.02)
    np.testing.assert_allclose(lost.mean(axis=0), 0, atol=1e-3 * np.abs(exact).max())


def test_the_layer_that_gives_the_logits_stays_float():
    assert sites_of(graph_of(weights(), np.zeros(N, np.float32)), classes=N) == []


def test_a_large_table_is_stored_in_8_bits_row_by_row(monkeypatch):
    monkeypatch.setattr("credibly.export.quantise.LARGE_TABLE", 100)
    table = np.random.default_rng(0).normal(size=(50, 64)).astype(np.float32)
    table[7] *= 100
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "ids"], ["logits"], name="words")],
        "look-up",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "length"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "length", 64])],
        [numpy_helper.from_array(table, "table")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    small = quantised(model, [], {})
    ids = np.arange(50).reshape(5, 10)
    (found,) = session_of(small.SerializeToString()).run(["logits"], {"ids": ids})
    assert (np.abs(found.reshape(50, 64) - table) <= np.abs(table).max(axis=1, keepdims=True) / 250).all()
    assert small.ByteSize() < 0.5 * model.ByteSize()
    onnx.checker.check_model(small)


# What is chosen


def test_the_site_that_does_most_for_its_time_is_mended_first():
    roundings = {name: object() for name in ("a1", "a2", "b1")}
    choices = {
        "a": [Choice(roundings["a1"], 1.0, 8.0), Choice(roundings["a2"], 2.0, 1.0), Choice(None, 10.0, 0.0)],
        "b": [Choice(roundings["b1"], 1.0, 1.0), Choice(None, 10.0, 0.0)],
    }
    assert chosen(choices, 1.0) == {"a": roundings["a1"], "b": roundings["b1"]}
    # Nine in all; half as far is a quarter of it: the second way to run a brings it to two.
    assert chosen(choices, 0.5) == {"a": roundings["a2"], "b": roundings["b1"]}
    # Then a's last part is worth an eighth a unit of time, and b's a ninth.
    assert chosen(choices, 0.4) == {"b": roundings["b1"]}
    assert chosen(choices, 0.1) == {}


# Parity


def answer(probs, labels=None):
    probs = np.asarray(probs)
    ids = tuple(map(str, range(len(probs))))
    labels = np.full(len(probs), -1) if labels is None else np.asarray(labels)
    examples = Examples(ids, ids, ("no", "yes"), labels)
    return answers("ensemble", Predictions.from_probs(probs, examples), {})[0]


def two(chances):
    chances = np.asarray(chances, dtype=float)
    return np.stack([1 - chances, chances], axis=1)


def test_parity_of_hand_made_answers():
    chances = np.full(200, 0.6)
    other = chances.copy()
    other[:2], other[2:5] = 0.49, 0.65
    labels = np.ones(200, int)
    found = Parity.between(answer(two(chances), labels), answer(two(other), labels))
    assert found.rows == 200
    assert found.equal_labels == pytest.approx(0.99)
    assert found.within == pytest.approx(195 / 200)
    # In the one bin the gap was 0.4; two rows are wrong with 0.51, three surer by 0.05.
    gap = (195 * 0.4 + 3 * 0.35 - 2 * 0.51) / 200
    assert found.ece_points == pytest.approx(100 * abs(0.4 - gap), abs=1e-3)
    assert not found.passed


def test_equal_answers_pass_and_have_no_error_to_differ_in_without_labels():
    one = answer(two(np.linspace(0.01, 0.99, 50)))
    found = Parity.between(one, one)
    assert (found.equal_labels, found.within, found.difference_99) == (1.0, 1.0, 0.0)
    assert found.ece_points is None
    assert found.passed


@pytest.mark.parametrize(
    ("moved", "passed"), [((0.029, 0.029), True), ((0.029, 0.031), True), ((0.031, 0.031), False)]
)
def test_one_row_in_a_hundred_may_be_off_by_more(moved, passed):
    chances = np.full(100, 0.9)
    other = chances.copy()
    other[:2] -= moved
    assert Parity.between(answer(two(chances)), answer(two(other))).passed == passed


def test_rows_that_cross_a_bins_edge_by_a_hair_do_not_count():
    # 0.8 is an edge of 15 bins: rows right and wrong lie on its two sides, and change them.
    chances, labels = np.tile([0.7999, 0.8001], 50), np.tile([1, 0], 50)
    other = np.tile([0.8001, 0.7999], 50)
    one, two_ = answer(two(chances), labels), answer(two(other), labels)
    assert Parity.between(one, two_).ece_points < 0.1
    assert abs(error_in_bins(one, one.confidence) - error_in_bins(two_, two_.confidence)) < 0.001
