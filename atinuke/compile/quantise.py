"""Quantisation of an ONNX model: the matrices that vectors are multiplied with, by standard operators.

Every engine has its own fast kernels, and finds the places for them by the operators that stand here:
DynamicQuantizeLinear and MatMulInteger where activations are measured at run time, else QuantizeLinear and
DequantizeLinear, the only form that TensorRT takes. Products of two activations, as in attention, stay in float.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atinuke.compile.onnx_graph import OnnxGraph, Product, inside
from atinuke.core.errors import fail

OPSET = 21
"""The first with scales of groups, and with int4."""
GROUP = 32
"""Weights along the input axis that share a scale where weights alone are quantised."""
LEAST = 16
"""The smallest group that ONNX Runtime has kernels for."""

FEW = 16
"""Matrices with fewer outputs stay as they are: they cost nothing, and the choice of experts hangs on them."""

LIMITS = {"int8": 127.0, "int4": 7.0, "float8_e4m3fn": 448.0}
WEIGHTS = {"int8": "int8", "int8-weights": "int8", "int4-weights": "int4", "fp8": "float8_e4m3fn"}
"""What weights become in each precision."""


@dataclass(frozen=True)
class Quantised:
    """A stored matrix `[inputs, outputs]`: names of its numbers and of their scales, one an output or, with a `group`,
    one for so many inputs of an output."""

    values: str
    scales: str
    group: int | None
    dtype: Any


def quantise(
    model: Any,
    precision: str,
    float32: Collection[str] = (),
    ranges: Mapping[str, float] | None = None,
    tables: bool = False,
    groups: bool = True,
) -> None:
    """Changes an `onnx.ModelProto` of opset 21.

    - `int8-weights`, `int4-weights`: a scale for every 32 weights along the input axis, or without `groups` one for
      every output.
    - `int8`: weights with a scale for every output; activations as they are measured at run time, or where there are
      `ranges` (their largest magnitudes by name, see `atinuke.compile.ranges`) with these.
    - `fp8`: the same in E4M3 (Micikevicius et al., 2022), with `ranges` only.

    The nodes of the paths `float32` and matrices with few outputs stay as they are. With `tables`, what embeddings are
    read from is quantised too, and stored once where it is tied to a head; of the engines ONNX Runtime alone takes
    that. What embeddings are read from has 8 bits in int4-weights as well.

    Raises:
        AtinukeError: fp8 without `ranges`.
    """
    if precision == "fp8" and ranges is None:
        raise fail("fp8 needs the ranges of activations", fix="give inputs to calibrate with")
    graph = OnnxGraph(model)
    alone = precision.endswith("-weights")
    read = {node.input[0] for node in graph.tables()}
    for product in graph.products():
        if inside(product.node, float32) or product.weight.shape[1] < FEW:
            continue
        node, x = product.node, product.node.input[0]
        kind = "int8" if product.root in read and precision == "int4-weights" else WEIGHTS[precision]
        weight = _weight(
            graph, product, kind, alone and groups, shared=tables and product.turned and product.root in read
        )
        if not alone and ranges is None:
            _dynamic(graph, node, weight)
            continue
        if not alone:
            assert ranges is not None
            node.input[0] = _fake(graph, node, x, ranges[x], kind, weight.dtype)
        node.input[1] = _dequantise(graph, node, weight)
    if tables:
        for node in graph.tables():
            if not inside(node, float32):
                _table(graph, node, alone and groups)
    graph.finish()


def _weight(graph: OnnxGraph, product: Product, kind: str, groups: bool, shared: bool) -> Quantised:
    """The matrix of a product. A `shared` one is stored by rows, as embeddings are read, and turned where it is
    used."""
    inputs = len(product.weight)
    group = group_of(inputs) if groups else None
    name = f"{product.root}.{kind}"
    if not shared:
        values, scales = to_grid(product.weight.T, kind, group or inputs)
        scales = scales.T if group else scales[:, 0]
        return Quantised(
            graph.store(name, values.T), graph.store(f"{name}.scales", scales), group, product.weight.dtype
        )
    _rows(graph, product.root, kind, group or inputs)
    node = product.node
    turned = graph.put(node, "Transpose", [f"{name}.rows"], f"{name}.turned", perm=[1, 0])
    if group:
        scales_of = graph.put(node, "Transpose", [f"{name}.rows.scales"], f"{name}.scales.turned", perm=[1, 0])
    else:
        flat = graph.store("flat", np.array([-1]))
        scales_of = graph.put(node, "Reshape", [f"{name}.rows.scales", flat], f"{name}.scales.turned")
    return Quantised(turned, scales_of, group, product.weight.dtype)


def _rows(graph: OnnxGraph, root: str, kind: str, group: int) -> tuple[str, str]:
    """What is stored under `root` by rows, and the scales of groups of each row."""
    values, scales = to_grid(graph.array(root), kind, group)
    name = f"{root}.{kind}.rows"
    return graph.store(name, values), graph.store(f"{name}.scales", scales)


def _table(graph: OnnxGraph, node: Any, groups: bool) -> None:
    """Reads rows of numbers and of scales in place of rows of weights."""
    root, rows = node.input
    width = graph.stored[root].dims[1]
    group = (group_of(width) if groups else None) or width
    values, scales = _rows(graph, root, "int8", group)
    out = node.output[0]
    read = [graph.put(node, "Gather", [name, rows], f"{out}.{i}") for i, name in enumerate((values, scales))]
    graph.put(node, "DequantizeLinear", read, out, axis=-1, block_size=group)
    graph.drop(node)


def _dynamic(graph: OnnxGraph, node: Any, weight: Quantised) -> None:
    """Whole numbers times whole numbers; one scale for all of the activation, worked out at run time."""
    from onnx import TensorProto

    x, out = node.input[0], node.output[0]
    measured = [f"{x}.uint8", f"{x}.scale", f"{x}.zero"]
    graph.put(node, "DynamicQuantizeLinear", [x], *measured)
    whole = graph.put(node, "MatMulInteger", [measured[0], weight.values, measured[2]], f"{out}.whole")
    cast = graph.put(node, "Cast", [whole], f"{out}.cast", to=TensorProto.FLOAT)
    scale = graph.put(node, "Mul", [measured[1], weight.scales], f"{out}.whole.scale")
    graph.put(node, "Mul", [cast, scale], out)
    graph.drop(node)


def _fake(graph: OnnxGraph, node: Any, x: str, largest: float, kind: str, dtype: Any) -> str:
    """An activation on the grid of a type that reaches its largest magnitude."""
    scale = graph.store(f"{x}.scale", np.array(max(largest, 1e-9) / LIMITS[kind], dtype))
    zero = graph.store(f"zero.{kind}", np.zeros((), _dtype(kind)))
    narrow = graph.put(node, "QuantizeLinear", [x, scale, zero], f"{x}.quantised")
    return graph.put(node, "DequantizeLinear", [narrow, scale, zero], f"{x}.dequantised")


def _dequantise(graph: OnnxGraph, node: Any, weight: Quantised) -> str:
    grouped = {"axis": 0, "block_size": weight.group} if weight.group else {"axis": 1}
    return graph.put(node, "DequantizeLinear", [weight.values, weight.scales], f"{node.output[0]}.weight", **grouped)


def group_of(inputs: int) -> int | None:
    """How many weights share a scale; None where no group divides the axis, so that all of an output's share one."""
    return next((group for group in (GROUP, LEAST) if inputs % group == 0), None)


def to_grid(rows: NDArray[Any], kind: str, group: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """The nearest numbers of a type, and the scales `[rows, groups]` by which they are multiplied: symmetric, the
    largest magnitude of a group is the largest number. Rows of zeros have scale 1."""
    grouped = rows.reshape(len(rows), -1, group).astype(np.float32)
    scales = np.abs(grouped).max(-1) / LIMITS[kind]
    scales = scales.astype(rows.dtype)
    scales[scales == 0] = 1
    numbers = grouped / scales[..., None].astype(np.float32)
    if kind.startswith("int"):
        numbers = np.rint(numbers)
    return np.clip(numbers, -LIMITS[kind], LIMITS[kind]).reshape(rows.shape).astype(_dtype(kind)), scales


def _dtype(kind: str) -> Any:
    import ml_dtypes

    return np.int8 if kind == "int8" else np.dtype(getattr(ml_dtypes, kind))
