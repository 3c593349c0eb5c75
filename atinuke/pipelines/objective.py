"""What a run makes smaller: how a graph becomes one that gives losses.

A graph file says what a model is; an objective adds the inputs, losses and figures of training, and leaves out what
they do not need. The names of the parameters stay as they are.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from atinuke.compile.front import check_graph
from atinuke.core import dims
from atinuke.core.checked import CheckedGraph
from atinuke.core.dims import Size
from atinuke.core.errors import fail
from atinuke.core.fit import Type
from atinuke.core.graph import Graph, Input, Node, Range, Wire, frozen
from atinuke.core.names import close
from atinuke.core.registry import Registry
from atinuke.core.rewrite import prune, rewrite
from atinuke.pipelines.section import Section

LOSS, ACCURACY, UNALIGNED = "loss", "accuracy", "unaligned"
TARGETS = "targets"  # the axis of labels that are sequences of their own
MOST_TARGETS = 4096


class Objective(Section):
    """`losses` are weights of further scalar outputs of the graph that are added to the objective's own loss."""

    own: ClassVar[tuple[str, ...]] = (LOSS,)
    losses: dict[str, float] = Field(default_factory=dict)

    def trained(self, checked: CheckedGraph) -> CheckedGraph:
        """The graph that is trained.

        Raises:
            AtinukeError: the graph does not give what the objective needs.
        """
        graph = self.rewritten(checked)
        known = [name for name in graph.outputs if name not in self.own]
        for name in self.losses:
            if name not in known:
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
        raise NotImplementedError

    def weights(self, trained: CheckedGraph) -> dict[str, float]:
        """The weights of the losses by output."""
        return {**dict.fromkeys(self.own, 1.0), **self.losses}

    def figures(self, trained: CheckedGraph) -> tuple[str, ...]:
        """The scalar outputs that are only logged."""
        scalars = (name for name, given in trained.body.outputs.items() if not given.shape)
        return tuple(name for name in scalars if name not in self.weights(trained))


class Causal(Objective):
    """Predict each next token."""

    name: Literal["causal"]

    def rewritten(self, checked: CheckedGraph) -> Graph:
        return rewrite(checked.graph, ["vocabulary_loss"], Registry())


class Given(Objective):
    """The graph gives its losses itself: outputs that are single numbers, summed with the weights of `losses`; where
    none are named, `loss` and all whose names end in `_loss`."""

    own: ClassVar[tuple[str, ...]] = ()
    name: Literal["given"]

    def rewritten(self, checked: CheckedGraph) -> Graph:
        if not self.weights(checked):
            raise fail(
                f"graph `{checked.graph.name}` gives no loss",
                "an output called `loss` or `..._loss`, a single number",
                where=checked.graph.place("outputs"),
                fix="add a loss to its outputs, or choose another objective",
            )
        return checked.graph

    def weights(self, trained: CheckedGraph) -> dict[str, float]:
        named = (name for name in trained.graph.outputs if name == LOSS or name.endswith("_loss"))
        return self.losses or dict.fromkeys(named, 1.0)


class Classification(Objective):
    """Cross-entropy of the output `scores` (its last axis are classes) against the input `labels`, and the accuracy."""

    name: Literal["classification"]
    scores: str = "logits"
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def rewritten(self, checked: CheckedGraph) -> Graph:
        wire, given = _output(checked, self.scores)
        *lead, classes = given.shape
        if not classes.is_Integer:
            raise fail(
                f"output `{self.scores}` has no fixed number of classes", f"got {given}", where="objective.scores"
            )
        labels = Input("int64", _sizes(lead))
        feeds = {"scores": wire, "labels": Wire("labels")}
        nodes = {
            LOSS: _node("loss.cross_entropy", feeds, classes=int(classes), smoothing=self.smoothing),
            ACCURACY: _node("metric.accuracy", feeds, classes=int(classes)),
        }
        return _with(checked.graph, nodes, {"labels": labels}, self.losses)


class Regression(Objective):
    """The mean squared error of the output `values` against the input `labels`."""

    name: Literal["regression"]
    values: str = "values"

    def rewritten(self, checked: CheckedGraph) -> Graph:
        wire, given = _output(checked, self.values)
        labels = Input("float", _sizes(given.shape))
        feeds = {"values": wire, "labels": Wire("labels")}
        return _with(checked.graph, {LOSS: _node("loss.regression", feeds)}, {"labels": labels}, self.losses)


class Contrastive(Objective):
    """Brings the two outputs of `pair` together row by row: `softmax` as CLIP, `sigmoid` as SigLIP."""

    name: Literal["contrastive"]
    pair: Annotated[tuple[str, str], Field(strict=False)]
    form: Literal["softmax", "sigmoid"] = "softmax"

    def rewritten(self, checked: CheckedGraph) -> Graph:
        (first, _), (second, _) = (_output(checked, name) for name in self.pair)
        use = {"softmax": "loss.contrastive", "sigmoid": "loss.sigmoid_contrastive"}[self.form]
        return _with(checked.graph, {LOSS: _node(use, {"first": first, "second": second})}, {}, self.losses)


class CTC(Objective):
    """Connectionist temporal classification (Graves et al., 2006) of the output `scores` `[batch, frames, classes]`,
    with its `mask` where the graph gives one, against the input `labels` `[batch, targets]`, filled up with -100.

    The blank is the last class where none is named, so the graph has one class more than there are labels. `unaligned`
    is the number of rows of a batch that have too few frames for their labels: they do not count in the loss.
    """

    name: Literal["ctc"]
    scores: str = "logits"
    mask: str | None = None
    blank: Annotated[int, Field(ge=0)] | None = None

    def rewritten(self, checked: CheckedGraph) -> Graph:
        wire, given = _output(checked, self.scores)
        batch, _, classes = given.shape if len(given.shape) == 3 else (None, None, None)
        if classes is None or not classes.is_Integer:
            raise fail(
                f"output `{self.scores}` must be [batch, frames, classes]", f"got {given}", where="objective.scores"
            )
        feeds = {"scores": wire, "labels": Wire("labels")}
        if self.mask:
            feeds["mask"] = _output(checked, self.mask)[0]
        graph = replace(checked.graph, axes=frozen({TARGETS: Range(1, MOST_TARGETS), **checked.graph.axes}))
        labels = Input("int64", (*_sizes([batch]), TARGETS))
        blank = int(classes) - 1 if self.blank is None else self.blank
        nodes = {LOSS: _node("loss.ctc", feeds, classes=int(classes), blank=blank)}
        wider = _with(graph, nodes, {"labels": labels}, self.losses)
        return replace(wider, outputs=frozen({**wider.outputs, UNALIGNED: Wire(LOSS, UNALIGNED)}))


AnyObjective = Annotated[Causal | Given | Classification | Regression | Contrastive | CTC, Field(discriminator="name")]


def _output(checked: CheckedGraph, name: str) -> tuple[Wire, Type]:
    if name not in checked.graph.outputs:
        raise fail(
            f"the graph has no output `{name}`",
            where=checked.graph.place("outputs"),
            fix=close(name, checked.graph.outputs) or "name one of its outputs in the recipe's objective",
        )
    return checked.graph.outputs[name], checked.body.outputs[name]


def _sizes(shape: Sequence[Size]) -> tuple[str, ...]:
    """Sizes as a graph file writes them: axes and numbers."""
    for size in shape:
        if not size.is_Symbol and not size.is_Integer:
            raise fail(
                f"labels cannot have the size {dims.show(size)}", fix="let the graph give its losses: objective given"
            )
    return tuple(map(str, shape))


def _node(use: str, feeds: dict[str, Wire], **settings: Any) -> Node:
    return Node(use, frozen(feeds), frozen(settings))


def _with(graph: Graph, nodes: dict[str, Node], inputs: dict[str, Input], kept: dict[str, float]) -> Graph:
    """The graph with more nodes, which are its outputs now, and with the further losses that it gives itself."""
    taken = [name for name in (*nodes, *inputs) if name in graph.nodes or name in graph.inputs]
    if taken:
        what = f"`{taken[0]}` is a name that training adds to the graph"
        raise fail(what, where=graph.place("nodes"), fix="rename it, or let the graph give its losses: objective given")
    outputs = {name: Wire(name) for name in nodes} | {
        name: graph.outputs[name] for name in kept if name in graph.outputs
    }
    wider = replace(
        graph,
        inputs=frozen({**graph.inputs, **inputs}),
        nodes=frozen({**graph.nodes, **nodes}),
        outputs=frozen(outputs),
        slots=frozen(),
    )
    return prune(wider)
