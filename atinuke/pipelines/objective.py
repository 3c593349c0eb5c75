"""What a run makes smaller: how a graph becomes one that gives losses, and rows become its batches.

A graph file says what a model is; an objective adds the inputs, losses and figures of training, and leaves out what
they do not need. The names of the parameters stay as they are. Where labels follow from the rows themselves, such as
the next tokens of a text, the objective makes them out of each batch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from atinuke.compile.front import check_graph
from atinuke.core import dims
from atinuke.core.checked import CheckedGraph
from atinuke.core.component import Choice
from atinuke.core.dims import Size
from atinuke.core.errors import fail
from atinuke.core.fit import Type
from atinuke.core.graph import Graph, Input, Node, Range, Wire, frozen
from atinuke.core.names import close
from atinuke.core.registry import Registry
from atinuke.core.rewrite import prune
from atinuke.pipelines.sampler import Batch
from atinuke.pipelines.section import Chosen
from atinuke.pipelines.tokenizer import Tokenizer

LOSS = "loss"
BYTES = 256  # the tokens of a text without a tokenizer
Given = Mapping[str, tuple[str, int]]
"""Tensors of a batch: dtype in the graph language and number of axes by name."""


@dataclass(frozen=True)
class Added:
    """What training adds to a graph: nodes (in place of those of the same name that `replaces` names), inputs, and the
    outputs that are losses and figures."""

    nodes: Mapping[str, Node]
    inputs: Mapping[str, Input]
    outputs: Mapping[str, Wire]
    axes: Mapping[str, Range] = field(default_factory=dict)
    replaces: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Making:
    """What batches are made with: the `inputs` of the training graph, the name of each text field's mask, the run's
    tokenizer, and random numbers that follow from `seed` and the number of a row alone."""

    inputs: frozenset[str]
    masks: Mapping[str, str]
    tokenizer: Tokenizer | None = None
    seed: int = 0
    training: bool = True

    def random(self, number: int) -> np.random.Generator:
        """For the row that is visited as the `number`-th, in training since the beginning of the run."""
        return np.random.default_rng([self.seed, number, 1 if self.training else 2])


class Objective(Chosen):
    """`losses` are weights of further scalar outputs of the graph that are added to the objective's own loss, which has
    the weight `weight`.

    A new objective is a subclass that says at least what it has `added` to a graph; a plugin names it in the hook
    `atinuke_objectives`.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"rows"})
    """The kinds of data that it is for: `rows`, `data`."""
    unit: ClassVar[str] = "rows"
    """What a batch is counted in: `rows`, or the `tokens` that its labels name."""

    reads_of_windows: ClassVar[tuple[str, ...]] = ("input_ids",)
    """What it can feed of the inputs of a graph where it reads `data`."""

    losses: dict[str, float] = Field(default_factory=dict)
    weight: Annotated[float, Field(ge=0)] = 1.0

    @classmethod
    def find(cls, name: str) -> Choice:
        return Registry().objective(name)

    def added(self, checked: CheckedGraph, prefix: str = "") -> Added:
        """What it adds to a graph. Names of new nodes and outputs begin with `prefix`; its own loss is `loss`.

        Raises:
            AtinukeError: the graph does not give what the objective needs.
        """
        raise NotImplementedError

    def own(self, prefix: str = "") -> dict[str, float]:
        """The weights of the losses that it adds."""
        return {f"{prefix}{LOSS}": self.weight}

    def counted(self, prefix: str = "") -> dict[str, str]:
        """The outputs that are means over the labels that are not -100, each with the input that has these labels;
        other outputs are means over what a batch is counted in."""
        return {}

    def kept(self, graph: Graph) -> Sequence[str]:
        """The outputs of the graph that training keeps."""
        return [name for name in self.losses if name in graph.outputs]

    def trained(self, checked: CheckedGraph) -> CheckedGraph:
        """The graph that is trained.

        Raises:
            AtinukeError: the graph does not give what the objective needs.
        """
        graph = self.rewritten(checked)
        for name in self.losses:
            if name not in graph.outputs or name in self.own():
                known = [one for one, given in checked.body.outputs.items() if not given.shape]
                what = f"the graph has no output `{name}` to add to the loss"
                raise fail(what, where="objective.losses", fix=close(name, known))
        trained = check_graph(graph)
        for name in self.weights(trained):
            if trained.body.outputs[name].shape:
                what = f"output `{name}` is no loss: it must be a single number"
                fix = "put `mean` behind it, or leave it out of the losses"
                raise fail(what, f"got {trained.body.outputs[name]}", where=graph.place("outputs"), fix=fix)
        return trained

    def rewritten(self, checked: CheckedGraph) -> Graph:
        """The graph with what is added and kept, and without what that does not need."""
        graph, added = checked.graph, self.added(checked)
        new = [*(name for name in added.nodes if name not in added.replaces), *added.inputs]
        taken = [name for name in new if name in graph.nodes or name in graph.inputs]
        if taken:
            what = f"`{taken[0]}` is a name that training adds to the graph"
            fix = "rename it, or let the graph give its losses: objective given"
            raise fail(what, where=graph.place("nodes"), fix=fix)
        wider = replace(
            graph,
            axes=frozen({**added.axes, **graph.axes}),
            inputs=frozen({**graph.inputs, **added.inputs}),
            nodes=frozen({**graph.nodes, **added.nodes}),
            outputs=frozen({**added.outputs, **{name: graph.outputs[name] for name in self.kept(graph)}}),
            slots=frozen(),
        )
        return prune(wider)

    def weights(self, trained: CheckedGraph) -> dict[str, float]:
        """The weights of the losses by output."""
        return {**self.own(), **self.losses}

    def figures(self, trained: CheckedGraph) -> tuple[str, ...]:
        """The scalar outputs that are only logged."""
        scalars = (name for name, given in trained.body.outputs.items() if not given.shape)
        return tuple(name for name in scalars if name not in self.weights(trained))

    @property
    def needs_tokenizer(self) -> bool:
        """Whether it cannot do with the bytes of texts."""
        return False

    @property
    def needs_whole_rows(self) -> bool:
        """Whether it cannot do with rows that lack an optional field."""
        return False

    @property
    def begins(self) -> bool:
        """Whether it puts a token in front of the text field `input_ids`."""
        return False

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """What a tokenizer that is trained for it must have beside the end of text."""
        return ()

    @property
    def has_perplexity(self) -> bool:
        """Whether its loss is the mean of minus the logarithm of a token's probability."""
        return False

    def vocabulary(self, tokenizer: Tokenizer | None) -> int:
        """How many tokens the graph must have room for; without a tokenizer, the bytes.

        Raises:
            AtinukeError: the tokenizer lacks a token that is needed.
        """
        return tokenizer.vocab_size if tokenizer else BYTES

    def gives(self, given: Given, making: Making) -> dict[str, tuple[str, int]]:
        """The tensors of a batch after `batch`, of those `given` by the fields of rows.

        Raises:
            AtinukeError: what it needs is not given.
        """
        return dict(given)

    def batch(self, batch: Batch, numbers: Sequence[int], making: Making) -> Batch:
        """The inputs of the training graph, from a batch of rows that are visited as the `numbers`-th. The same for the
        same arguments, and no row's depend on another's."""
        return batch

    def windows(self, batch: Batch, numbers: Sequence[int], making: Making) -> Batch:
        """The inputs of the training graph, from windows of the texts of `data`: `input_ids`, and as `labels` the next
        tokens, -100 where the window is filled up."""
        raise NotImplementedError


def output(checked: CheckedGraph, name: str) -> tuple[Wire, Type]:
    """An output of a graph by name; raises AtinukeError where there is none."""
    if name not in checked.graph.outputs:
        raise fail(
            f"the graph has no output `{name}`",
            where=checked.graph.place("outputs"),
            fix=close(name, checked.graph.outputs) or "name one of its outputs in the recipe's objective",
        )
    return checked.graph.outputs[name], checked.body.outputs[name]


def sizes(shape: Sequence[Size]) -> tuple[str, ...]:
    """Sizes as a graph file writes them: axes and numbers."""
    for size in shape:
        if not size.is_Symbol and not size.is_Integer:
            raise fail(
                f"labels cannot have the size {dims.show(size)}", fix="let the graph give its losses: objective given"
            )
    return tuple(map(str, shape))


def node(use: str, feeds: Mapping[str, Wire], **settings: Any) -> Node:
    """A node with its settings."""
    return Node(use, frozen(feeds), frozen(settings))
