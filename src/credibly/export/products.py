"""The matrix products of an ONNX graph that can run on integers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

FloatMatrix = NDArray[np.float32]
Constants = Mapping[str, TensorProto]


@dataclass(frozen=True)
class Product:
    """A product of activations with a constant weight.

    Args:
        name: of the node that multiplies.
        results: names of what its nodes give: the product, and with the bias added the last.
        weight: float32, (K, N).
        bias: float32, (N,).
    """

    name: str
    results: tuple[str, ...]
    weight: FloatMatrix
    bias: FloatMatrix


@dataclass(frozen=True)
class Site:
    """All products of the same activations, which are made integers once.

    Args:
        input: name of the activations, (..., K).
        products: one or more.
    """

    input: str
    products: tuple[Product, ...]

    @cached_property
    def weight(self) -> FloatMatrix:
        """The products' weights side by side, float32, (K, N)."""
        return np.concatenate([product.weight for product in self.products], axis=1)

    @property
    def name(self) -> str:
        """The names of the layers that multiply."""
        names = [product.name.strip("/").rpartition("/")[0] or product.name for product in self.products]
        first = names[0].rpartition("/")[0]
        return "+".join([names[0], *(name.removeprefix(f"{first}/") for name in names[1:])])


def sites_of(graph: ModelProto, classes: int) -> list[Site]:
    """Return where integers can stand for floats, in the graph's order.

    The layer that gives the logits is left out: it costs nothing, and its rounding would be the logits'.
    """
    constants = {tensor.name: tensor for tensor in graph.graph.initializer}
    readers: dict[str, list[NodeProto]] = {}
    for node in graph.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    found: dict[str, list[Product]] = {}
    for node in graph.graph.node:
        product = _product_of(node, readers.get(node.output[0], []), constants)
        if product and product.weight.shape[1] != classes:
            found.setdefault(node.input[0], []).append(product)
    return [Site(name, tuple(products)) for name, products in found.items()]


def _product_of(node: NodeProto, readers: Sequence[NodeProto], constants: Constants) -> Product | None:
    """Return what a node multiplies by a constant matrix, with the bias that is added to it; else None."""
    if node.op_type not in ("MatMul", "Gemm") or node.input[1] not in constants:
        return None
    settings = {attribute.name: attribute for attribute in node.attribute}
    if any(settings[name].f != 1.0 for name in ("alpha", "beta") if name in settings) or (
        "transA" in settings and settings["transA"].i
    ):
        return None
    weight = numpy_helper.to_array(constants[node.input[1]])
    if weight.ndim != 2 or weight.dtype != np.float32:
        return None
    weight = weight.T if "transB" in settings and settings["transB"].i else weight
    results, bias = [node.output[0]], np.zeros(weight.shape[1], np.float32)
    if len(node.input) > 2:
        if node.input[2] not in constants:
            return None
        bias = bias + numpy_helper.to_array(constants[node.input[2]]).reshape(-1)
    elif len(readers) == 1 and readers[0].op_type == "Add":
        added = [constants[name] for name in readers[0].input if name in constants]
        if added and list(added[0].dims) == [len(bias)]:
            bias = numpy_helper.to_array(added[0])
            results.append(readers[0].output[0])
    return Product(node.name, tuple(results), np.ascontiguousarray(weight), bias)
