"""What the checker proves: a graph with every setting resolved and a type on every wire."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from atinuke.core.component import Component
from atinuke.core.fit import Type
from atinuke.core.graph import Block, Graph, Node, Wire, frozen
from atinuke.core.lora import LinearMap, LoRA
from atinuke.core.signature import Signature

ABSENT = Type("absent", ())  # what an optional input carries where nothing feeds it


class Probe(Protocol):
    """Builds a component without weights, so that its constructor can object and its parameters can be measured."""

    def parameters(self, cls: type, settings: Mapping[str, Any]) -> Mapping[str, tuple[int, ...]]:
        """Shapes of the parameters and buffers by name; raises ValueError or TypeError as the constructor does."""

    def linear_maps(self, cls: type, settings: Mapping[str, Any]) -> Mapping[str, LinearMap]:
        """The plain linear maps inside a component that can be built, by the names of their modules."""


@dataclass(frozen=True)
class CheckedNode:
    """A node with everything resolved. A block has `instances` (one, or one a repetition); a component has a class."""

    name: str
    node: Node
    outputs: Mapping[str, Type]
    feeds: Mapping[str, tuple[Wire, ...]]
    settings: Mapping[str, Any] = field(default_factory=frozen)
    component: Component | None = None
    cls: type | None = None
    signature: Signature | None = None
    parameters: Mapping[str, tuple[int, ...]] = field(default_factory=frozen)
    lora: Mapping[str, LoRA] = field(default_factory=frozen)
    instances: tuple["CheckedBody", ...] = ()
    carried: Mapping[str, str] = field(default_factory=frozen)

    @property
    def repeated(self) -> bool:
        return self.node.repeat is not None


@dataclass(frozen=True)
class CheckedBody:
    """The nodes of a graph, or of one instance of a block, with what each wire carries."""

    body: Block
    scope: Mapping[str, Any]
    inputs: Mapping[str, Type]
    nodes: Mapping[str, CheckedNode]
    outputs: Mapping[str, Type]

    def type_of(self, wire: Wire) -> Type:
        """What a wire of this body carries."""
        if wire.node in self.inputs:
            return self.inputs[wire.node]
        outputs = self.nodes[wire.node].outputs
        return outputs[wire.output or next(iter(outputs))]


@dataclass(frozen=True)
class CheckedGraph:
    """A graph that holds together."""

    graph: Graph
    dims: Mapping[str, Any]
    body: CheckedBody
