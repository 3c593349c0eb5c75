"""A graph is frozen data: named nodes, each fed by what stands above it.

Comparing two graphs ignores where they were written.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from atinuke.core.errors import Place

Plain = int | float | bool | str | None | tuple["Plain", ...]


def frozen(mapping: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
    """A read-only copy that keeps the order."""
    return MappingProxyType(dict(mapping or {}))


class _Broken:
    """Stands for a value that could not be read, which has been said: nothing more is said about it."""

    def __repr__(self) -> str:
        return "BROKEN"


BROKEN = _Broken()


@dataclass(frozen=True)
class Range:
    """The sizes that a free axis may take, both ends included."""

    low: int
    high: int

    def __str__(self) -> str:
        return f"{self.low}..{self.high}"


@dataclass(frozen=True)
class Input:
    """A tensor that comes from outside: `float[batch, sequence, d_model]`, with `?` behind it when it may be absent."""

    dtype: str
    shape: tuple[str, ...]
    optional: bool = False
    where: Place | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(self.shape)}]" + ("?" if self.optional else "")


@dataclass(frozen=True)
class Wire:
    """What feeds a port: a node or input by name, and which of its outputs (None is the first)."""

    node: str
    output: str | None = None

    def __str__(self) -> str:
        return f"{self.node}.{self.output}" if self.output else self.node


@dataclass(frozen=True)
class Node:
    """One use of a component or block. `inputs` is by port; by position where the file gave a list or a single wire.
    `lora` are low-rank updates of its linear maps (see `atinuke.core.lora`)."""

    use: str
    inputs: Mapping[str, Wire] | tuple[Wire, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=frozen)
    repeat: Plain = None
    tie: Mapping[str, str] = field(default_factory=frozen)
    lora: Mapping[str, Mapping[str, Any]] = field(default_factory=frozen)
    where: Place | None = field(default=None, compare=False)
    places: Mapping[str, Place] = field(default_factory=frozen, compare=False)

    def place(self, key: str) -> Place | None:
        """Where a part of the node stands (`in`, `with.d_model`), or else the node itself."""
        return self.places.get(key, self.where)


@dataclass(frozen=True)
class Block:
    """A graph used as a component. `outputs` under the name "" is a single unnamed output."""

    inputs: Mapping[str, Input]
    nodes: Mapping[str, Node]
    outputs: Mapping[str, Wire]
    where: Place | None = field(default=None, compare=False)
    places: Mapping[str, Place] = field(default_factory=frozen, compare=False)

    def place(self, key: str) -> Place | None:
        """Where a part of the block stands (`outputs.logits`), or else the block itself."""
        return self.places.get(key, self.where)


@dataclass(frozen=True)
class Graph:
    """A whole graph file. `slots` says of nodes what they must give, whatever is swapped in for them: types by output,
    under the name "" where there is only one."""

    name: str
    dims: Mapping[str, Plain]
    axes: Mapping[str, Range]
    inputs: Mapping[str, Input]
    nodes: Mapping[str, Node]
    outputs: Mapping[str, Wire]
    blocks: Mapping[str, Block] = field(default_factory=frozen)
    slots: Mapping[str, Mapping[str, Input]] = field(default_factory=frozen)
    where: Place | None = field(default=None, compare=False)
    places: Mapping[str, Place] = field(default_factory=frozen, compare=False)

    def place(self, key: str) -> Place | None:
        """Where a part of the graph stands (`dims.d_model`), or else its beginning."""
        return self.places.get(key, self.where)

    def body(self, block: str | None) -> "Block":
        """The nodes of a block, or of the graph itself, in one form."""
        if block is not None:
            return self.blocks[block]
        return Block(self.inputs, self.nodes, self.outputs, self.where, self.places)

    def with_node(self, name: str, node: Node, block: str | None = None) -> "Graph":
        """This graph with one node replaced."""
        return self.with_nodes({**self.body(block).nodes, name: node}, block)

    def with_nodes(self, nodes: Mapping[str, Node], block: str | None = None) -> "Graph":
        """This graph with other nodes, at the top or in a block."""
        if block is None:
            return replace(self, nodes=frozen(nodes))
        changed = replace(self.blocks[block], nodes=frozen(nodes))
        return replace(self, blocks=frozen({**self.blocks, block: changed}))
