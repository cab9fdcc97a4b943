"""Float graphs to graphs whose products run on 8-bit integers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from credibly.export.products import Site
from credibly.export.rounding import FINER, FULL, Rounding, columns_rounded

CONTRIB = "com.microsoft"
LARGE_TABLE = 1_000_000
"""A table of embeddings with so many numbers or more is stored in 8 bits, each row with its own scale."""


@dataclass
class _Parts:
    """Nodes and constants on their way into a graph."""

    nodes: list[NodeProto] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)

    def constant(self, name: str, array: NDArray[Any]) -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def node(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **attributes))
        return output


def quantised(
    graph: ModelProto, sites: Sequence[Site], roundings: Mapping[str, Rounding], tables: bool = True
) -> ModelProto:
    """Return a graph in which sites run on integers.

    Args:
        graph: in float32.
        sites: of the graph.
        roundings: by the name of a site's input; a site without one stays as it is.
        tables: whether large tables of embeddings are stored in 8 bits.
    """
    chosen = [site for site in sites if site.input in roundings]
    first = {site.products[0].results[0]: site for site in chosen}
    gone = {name for site in chosen for product in site.products for name in product.results}
    large = {each.name: each for each in graph.graph.initializer if tables and _is_large_table(each)}
    parts = _Parts()
    for node in graph.graph.node:
        if node.op_type == "Gather" and node.input[0] in large:
            _add_table(parts, node, large[node.input[0]])
        elif node.output[0] in first:
            site = first[node.output[0]]
            _add_site(parts, site, roundings[site.input])
        elif node.output[0] not in gone:
            parts.nodes.append(node)
    return _with_parts(graph, parts)


def _add_site(parts: _Parts, site: Site, rounding: Rounding) -> None:
    """Add a site's nodes: activations to integers, once, and each product of them."""
    scaled = site.input
    if rounding.divisors is not None:
        factors = parts.constant(f"{site.input}.factors", 1 / rounding.divisors)
        scaled = parts.node("Mul", [site.input, factors], f"{site.input}.scaled")
    scale = parts.constant(f"{site.input}.scale", np.array(rounding.scale, np.float32))
    zero = parts.constant(f"{site.input}.zero", np.array(rounding.zero, np.uint8))
    integers = parts.node("QuantizeLinear", [scaled, scale, zero], f"{site.input}.integers")
    if rounding.fine:
        integers = _finer(parts, site.input, integers, scale, zero, rounding.scale / FINER)
    far = ""
    if len(rounding.outliers):
        channels = parts.constant(f"{site.input}.channels", rounding.outliers)
        far = parts.node("Gather", [site.input, channels], f"{site.input}.far", axis=-1)
    start = 0
    for product in site.products:
        columns = slice(start, start := start + product.weight.shape[1])
        name, output = product.results[0], product.results[-1]
        inputs = [
            integers,
            parts.constant(f"{name}.weight", rounding.weight[:, columns]),
            scale,
            parts.constant(f"{name}.scales", rounding.column_scales[columns]),
            zero,
            parts.constant(f"{name}.zeros", np.zeros(product.weight.shape[1], np.int8)),
            parts.constant(f"{name}.bias", product.bias + rounding.correction[columns]),
        ]
        near = f"{name}.near" if far else output
        parts.node("MatMulIntegerToFloat", inputs, near, domain=CONTRIB)
        if far:
            rest = parts.constant(f"{name}.far_weight", product.weight[rounding.outliers])
            parts.node("Add", [near, parts.node("MatMul", [far, rest], f"{name}.far")], output)


def _finer(parts: _Parts, name: str, coarse: str, scale: str, zero: str, step: float) -> str:
    """Add what rounding left over, rounded to finer steps, as further columns."""
    back = parts.node("DequantizeLinear", [coarse, scale, zero], f"{name}.coarse")
    rest = parts.node("Sub", [name, back], f"{name}.rest")
    finer = parts.constant(f"{name}.fine_scale", np.array(step, np.float32))
    fine = parts.node("QuantizeLinear", [rest, finer, zero], f"{name}.fine")
    return parts.node("Concat", [coarse, fine], f"{name}.both", axis=-1)


def _is_large_table(tensor: TensorProto) -> bool:
    sizes = list(tensor.dims)
    return len(sizes) == 2 and tensor.data_type == TensorProto.FLOAT and sizes[0] * sizes[1] >= LARGE_TABLE


def _add_table(parts: _Parts, node: NodeProto, tensor: TensorProto) -> None:
    """Add the look-up of a table in 8 bits; its constants once."""
    integers, scales = f"{tensor.name}.integers", f"{tensor.name}.scales"
    if not any(constant.name == integers for constant in parts.constants):
        rows, row_scales = columns_rounded(numpy_helper.to_array(tensor).T, FULL)
        parts.constant(integers, rows.T)
        parts.constant(scales, row_scales[:, None])
    output = node.output[0]
    found = parts.node("Gather", [integers, node.input[1]], f"{output}.integers")
    floats = parts.node("Cast", [found], f"{output}.floats", to=TensorProto.FLOAT)
    parts.node("Mul", [floats, parts.node("Gather", [scales, node.input[1]], f"{output}.scales")], output)


def _with_parts(graph: ModelProto, parts: _Parts) -> ModelProto:
    """Return a graph with other nodes, and of all constants those that are still read."""
    result = ModelProto()
    result.CopyFrom(graph)
    read = {name for node in parts.nodes for name in node.input}
    own = [tensor for tensor in result.graph.initializer if tensor.name in read]
    del result.graph.node[:], result.graph.initializer[:]
    result.graph.node.extend(parts.nodes)
    result.graph.initializer.extend([*own, *parts.constants])
    if all(each.domain != CONTRIB for each in result.opset_import):
        result.opset_import.append(helper.make_opsetid(CONTRIB, 1))
    return result
