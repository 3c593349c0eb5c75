"""Objectives whose labels stand in the rows, or that need none."""

from typing import Annotated, Literal

from pydantic import Field

from atinuke.core.checked import CheckedGraph
from atinuke.core.errors import fail
from atinuke.core.graph import Graph, Input, Range, Wire
from atinuke.pipelines.objective import LOSS, Added, Objective, node, output, sizes

ACCURACY, UNALIGNED, LABELS = "accuracy", "unaligned", "labels"
TARGETS = "targets"  # the axis of labels that are sequences of their own
MOST_TARGETS = 4096


class Given(Objective):
    """The graph gives its losses itself: outputs that are single numbers, summed with the weights of `losses`; where
    none are named, `loss` and all whose names end in `_loss`."""

    name: Literal["given"]

    def own(self, prefix: str = "") -> dict[str, float]:
        return {}

    def added(self, checked: CheckedGraph, prefix: str = "") -> Added:
        raise fail(
            "`given` cannot be a part of a sum", where="objective", fix="name the graph's losses in `losses` of the sum"
        )

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
        weights = self.losses or dict.fromkeys(named, 1.0)
        return {name: self.weight * weight for name, weight in weights.items()}


class Classification(Objective):
    """Cross-entropy of the output `scores` (its last axis are classes) against the input `labels`, and the accuracy.
    Labels of -100 do not count."""

    name: Literal["classification"]
    scores: str = "logits"
    labels: str = LABELS
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def added(self, checked: CheckedGraph, prefix: str = "") -> Added:
        wire, given = output(checked, self.scores)
        *lead, classes = given.shape
        if not classes.is_Integer:
            what = f"output `{self.scores}` has no fixed number of classes"
            raise fail(what, f"got {given}", where="objective.scores")
        feeds = {"scores": wire, "labels": Wire(self.labels)}
        loss, accuracy = f"{prefix}{LOSS}", f"{prefix}{ACCURACY}"
        nodes = {
            loss: node("loss.cross_entropy", feeds, classes=int(classes), smoothing=self.smoothing),
            accuracy: node("metric.accuracy", feeds, classes=int(classes)),
        }
        return Added(nodes, {self.labels: Input("int64", sizes(lead))}, {name: Wire(name) for name in nodes})

    def counted(self, prefix: str = "") -> dict[str, str]:
        return {f"{prefix}{LOSS}": self.labels, f"{prefix}{ACCURACY}": self.labels}


class Regression(Objective):
    """The mean squared error of the output `values` against the input `labels`."""

    name: Literal["regression"]
    values: str = "values"
    labels: str = LABELS

    def added(self, checked: CheckedGraph, prefix: str = "") -> Added:
        wire, given = output(checked, self.values)
        loss = f"{prefix}{LOSS}"
        nodes = {loss: node("loss.regression", {"values": wire, "labels": Wire(self.labels)})}
        return Added(nodes, {self.labels: Input("float", sizes(given.shape))}, {loss: Wire(loss)})


class Span(Objective):
    """Minus the logarithm of the probability of the right positions: the output `scores` `[batch, sequence, points]`
    against the input `labels`, whole numbers like it that are 1 where a point is right. The input `mask` `[batch,
    sequence]` says what is a position."""

    name: Literal["span"]
    scores: str = "span"
    labels: str = LABELS
    mask: str = "attention_mask"

    def added(self, checked: CheckedGraph, prefix: str = "") -> Added:
        wire, given = output(checked, self.scores)
        if len(given.shape) != 3 or not given.shape[2].is_Integer:
            what = f"output `{self.scores}` must be [batch, sequence, points]"
            raise fail(what, f"got {given}", where="objective.scores")
        feeds = {"scores": wire, "labels": Wire(self.labels), "mask": Wire(self.mask)}
        inputs = {self.labels: Input("int64", sizes(given.shape))}
        if self.mask not in checked.graph.inputs:
            inputs[self.mask] = Input("bool", sizes(given.shape[:2]))
        loss = f"{prefix}{LOSS}"
        return Added({loss: node("loss.span", feeds, points=int(given.shape[2]))}, inputs, {loss: Wire(loss)})


class Contrastive(Objective):
    """Brings the two outputs of `pair` together row by row: `softmax` as CLIP, `sigmoid` as SigLIP."""

    name: Literal["contrastive"]
    pair: Annotated[tuple[str, str], Field(strict=False)]
    form: Literal["softmax", "sigmoid"] = "softmax"

    @property
    def needs_whole_rows(self) -> bool:
        return True  # what is missing would be trained as half of a pair

    def added(self, checked: CheckedGraph, prefix: str = "") -> Added:
        (first, _), (second, _) = (output(checked, name) for name in self.pair)
        use = {"softmax": "loss.contrastive", "sigmoid": "loss.sigmoid_contrastive"}[self.form]
        loss = f"{prefix}{LOSS}"
        return Added({loss: node(use, {"first": first, "second": second})}, {}, {loss: Wire(loss)})


class SupervisedContrastive(Objective):
    """Brings rows of the output `vectors` `[batch, width]` together whose input `labels` `[batch]` are equal, and parts
    all others. A batch has to hold rows that belong together. Labels of -100 do not count."""

    name: Literal["supervised_contrastive"]
    vectors: str = "vectors"
    labels: str = LABELS
    temperature: Annotated[float, Field(gt=0)] = 0.05

    def added(self, checked: CheckedGraph, prefix: str = "") -> Added:
        wire, given = output(checked, self.vectors)
        if len(given.shape) != 2:
            raise fail(f"output `{self.vectors}` must be [batch, width]", f"got {given}", where="objective.vectors")
        feeds = {"vectors": wire, "labels": Wire(self.labels)}
        loss = f"{prefix}{LOSS}"
        nodes = {loss: node("loss.supervised_contrastive", feeds, temperature=self.temperature)}
        return Added(nodes, {self.labels: Input("int64", sizes(given.shape[:1]))}, {loss: Wire(loss)})


class CTC(Objective):
    """Connectionist temporal classification (Graves et al., 2006) of the output `scores` `[batch, frames, classes]`,
    with its `mask` where the graph gives one, against the input `labels` `[batch, targets]`, filled up with -100.

    The blank is the last class where none is named, so the graph has one class more than there are labels. `unaligned`
    is the number of rows of a batch that have too few frames for their labels: they do not count in the loss.
    """

    name: Literal["ctc"]
    scores: str = "logits"
    mask: str | None = None
    labels: str = LABELS
    blank: Annotated[int, Field(ge=0)] | None = None

    def added(self, checked: CheckedGraph, prefix: str = "") -> Added:
        wire, given = output(checked, self.scores)
        batch, _, classes = given.shape if len(given.shape) == 3 else (None, None, None)
        if classes is None or not classes.is_Integer:
            what = f"output `{self.scores}` must be [batch, frames, classes]"
            raise fail(what, f"got {given}", where="objective.scores")
        feeds = {"scores": wire, "labels": Wire(self.labels)}
        if self.mask:
            feeds["mask"] = output(checked, self.mask)[0]
        loss, blank = f"{prefix}{LOSS}", int(classes) - 1 if self.blank is None else self.blank
        return Added(
            {loss: node("loss.ctc", feeds, classes=int(classes), blank=blank)},
            {self.labels: Input("int64", (*sizes([batch]), TARGETS))},
            {loss: Wire(loss), f"{prefix}{UNALIGNED}": Wire(loss, UNALIGNED)},
            {TARGETS: Range(1, MOST_TARGETS)},
        )
