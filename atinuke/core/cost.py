"""What a graph costs, as formulas in its free axes: parameters, FLOPs, bytes of weights, activations and KV cache.

Conventions:

- FLOPs: 2 a multiply-add, of matrix products and convolutions only, as `torch.utils.flop_counter` counts; attention is
  counted in full although half of it may be masked. Training is 3 times forward: each product has two for gradients.
- Weights: the parameters, tied ones once, without buffers.
- Activations: what every component gives, as if all were held at once; what a component holds inside is not counted.
- Cache: what the incremental form holds for `batch` texts of up to `capacity` tokens.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Protocol

import sympy

from atinuke.core import dims
from atinuke.core.checked import CheckedBody, CheckedGraph, CheckedNode
from atinuke.core.dims import Size
from atinuke.core.errors import fail
from atinuke.core.fit import Type
from atinuke.core.graph import Range
from atinuke.core.names import close

CAPACITY = "capacity"
FLOAT_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
BYTES = {"bool": 1, "uint8": 1, "int8": 1, "int16": 2, "int32": 4, "int64": 8, **FLOAT_BYTES}

Elements = Mapping[str, Size]  # how many numbers, by dtype of the graph language
Inputs = Mapping[str, tuple[Type, ...]]  # what comes on the wires of each port


@dataclass(frozen=True)
class Work:
    """The FLOPs of one forward pass, exact where every free axis is a multiple of `multiple`."""

    flops: Size
    multiple: int = 1


class Meter(Protocol):
    """Measures components; `atinuke.compile.measure.MetaMeter` does."""

    def work(self, title: str, node: CheckedNode, inputs: Inputs, axes: Mapping[str, Range]) -> Work:
        """What one forward pass through a component does; raises AtinukeError where that cannot be told."""

    def caches(self, checked: CheckedGraph) -> Mapping[str, Elements] | None:
        """What every node remembers, by path, in its rows and `capacity`; None where there is no incremental form."""


@dataclass
class NodeCost:
    """All the instances of one component of the graph together; `path` leads to it (`stack.H`)."""

    path: str
    use: str
    instances: int = 0
    parameters: int = 0
    flops: Size = sympy.S.Zero
    outputs: Elements = field(default_factory=dict)
    cache: Elements = field(default_factory=dict)


@dataclass(frozen=True)
class Figures:
    """A cost at certain sizes; bytes are by the model's dtype, and None of a cache without a capacity."""

    parameters: int
    flops: int
    training_flops: int
    weight_bytes: Mapping[str, int]
    activation_bytes: Mapping[str, int]
    cache_bytes: Mapping[str, int] | None


@dataclass(frozen=True)
class Cost:
    """The cost of a graph, node by node and in all; FLOPs are exact where all free axes are multiples of `multiple`."""

    axes: Mapping[str, Range]
    nodes: tuple[NodeCost, ...]
    steps: bool
    multiple: int = 1

    @property
    def parameters(self) -> int:
        return sum(node.parameters for node in self.nodes)

    @property
    def flops(self) -> Size:
        """FLOPs of one forward pass."""
        return _sum(node.flops for node in self.nodes)

    @property
    def training_flops(self) -> Size:
        """FLOPs of one training step: forward and backward."""
        return sympy.expand(3 * self.flops)

    def weight_bytes(self, dtype: str) -> int:
        """Bytes of the parameters of a model of that dtype."""
        return self.parameters * FLOAT_BYTES[dtype]

    def activation_bytes(self, dtype: str) -> Size:
        """Bytes of what the components give in a model of that dtype."""
        return _bytes((node.outputs for node in self.nodes), dtype)

    def cache_bytes(self, dtype: str) -> Size | None:
        """Bytes of the cache of a model of that dtype; None where the graph has no incremental form."""
        return _bytes((node.cache for node in self.nodes), dtype) if self.steps else None

    def require(self, sizes: Mapping[str, int]) -> None:
        """Raises AtinukeError for a size that is not of a free axis, or out of its range."""
        for name, size in sizes.items():
            axis = self.axes.get(name)
            if axis is None and name != CAPACITY:
                raise fail(f"`{name}` is not a free axis of the graph", fix=close(name, [*self.axes, CAPACITY]))
            if size < 1 or (axis and not axis.low <= size <= axis.high):
                raise fail(f"axis `{name}` must be {axis or 'at least 1'}", f"got {size}", fix="choose one in range")

    def value(self, formula: Size, **sizes: int) -> int:
        """A formula of this cost at sizes of the free axes, such as `batch=8, sequence=256`.

        Raises:
            AtinukeError: a size is missing, out of its range, or not of a free axis.
        """
        self.require(sizes)
        missing = sorted(symbol.name for symbol in formula.free_symbols if symbol.name not in sizes)
        if missing:
            raise fail(f"axis `{missing[0]}` has no size", fix=f"give it one: {missing[0]}=...")
        return int(formula.subs({dims.axis(name): size for name, size in sizes.items()}))

    def at(self, **sizes: int) -> Figures:
        """All figures at sizes of the free axes, such as `batch=8, sequence=256`; `capacity` adds those of the cache.

        Raises:
            AtinukeError: a size is missing, out of its range, or not of a free axis.
        """
        caches = {dtype: self.cache_bytes(dtype) for dtype in FLOAT_BYTES} if CAPACITY in sizes else {}
        cached = {dtype: self.value(formula, **sizes) for dtype, formula in caches.items() if formula is not None}
        flops = self.value(self.flops, **sizes)
        return Figures(
            self.parameters,
            flops,
            3 * flops,
            {dtype: self.weight_bytes(dtype) for dtype in FLOAT_BYTES},
            {dtype: self.value(self.activation_bytes(dtype), **sizes) for dtype in FLOAT_BYTES},
            cached or None,
        )


def cost(checked: CheckedGraph, meter: Meter) -> Cost:
    """The cost of a checked graph.

    Raises:
        AtinukeError: the work of a component cannot be told.
    """
    axes = checked.graph.axes
    flops: dict[str, list[Size]] = {}
    outputs: dict[str, list[Type]] = {}
    found: dict[str, NodeCost] = {}
    multiple = 1
    for path, body, node in components(checked.body):
        inputs = {port: tuple(map(body.type_of, wires)) for port, wires in node.feeds.items()}
        work = meter.work(path, node, inputs, axes)
        multiple = max(multiple, work.multiple)
        entry = found.setdefault(path, NodeCost(path, node.node.use))
        entry.instances += 1
        entry.parameters += count_parameters([node])
        flops.setdefault(path, []).append(work.flops)
        outputs.setdefault(path, []).extend(node.outputs.values())
    caches = meter.caches(checked)
    for path, entry in found.items():
        entry.flops = _sum(flops[path])
        entry.outputs = _elements(outputs[path])
        entry.cache = {} if caches is None else caches.get(path, {})
    return Cost(axes, tuple(found.values()), caches is not None, multiple)


def components(body: CheckedBody, title: str = "") -> Iterable[tuple[str, CheckedBody, CheckedNode]]:
    """Every instance of every component: its path (the same for all instances), the body it stands in, and itself."""
    for name, node in body.nodes.items():
        if node.cls is not None:
            yield f"{title}{name}", body, node
        for inner in node.instances:
            yield from components(inner, f"{title}{name}.")


def count_parameters(nodes: Iterable[CheckedNode]) -> int:
    """The number of parameters that components bring with them: tied ones belong to the node that they are tied to."""
    return sum(prod(shape) for node in nodes for name, shape in node.parameters.items() if name not in node.node.tie)


def _elements(types: Iterable[Type]) -> dict[str, Size]:
    found: dict[str, list[Size]] = {}
    for given, times in Counter(types).items():
        found.setdefault(given.dtype, []).append(times * sympy.Mul(*given.shape))
    return {dtype: _sum(numbers) for dtype, numbers in found.items()}


def _bytes(elements: Iterable[Elements], dtype: str) -> Size:
    width = {**BYTES, "float": FLOAT_BYTES[dtype]}
    return _sum(width[name] * numbers for each in elements for name, numbers in each.items())


def _sum(formulas: Iterable[Size]) -> Size:
    return sympy.expand(sympy.Add(*(times * formula for formula, times in Counter(formulas).items())))
