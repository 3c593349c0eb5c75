"""Each objective adds its loss to a graph and leaves the model as it is."""

import pytest

from atinuke.compile.front import check_graph
from atinuke.compile.module import build
from atinuke.core.checked import CheckedGraph
from atinuke.core.errors import AtinukeError
from atinuke.core.spec import loads
from atinuke.pipelines.objective import Objective
from atinuke.pipelines.objective_labels import CTC, Classification, Contrastive, Given, Regression

GRAPH = """
atinuke: 1
dims: {d_model: 8}
axes: {batch: 1..8, frames: 2..40}
inputs: {x: "float[batch, frames, d_model]", z: "float[batch, d_model]"}
nodes:
  norm: {use: norm.layer, in: x, with: {d_model: $d_model}}
  C: {use: head.classification, in: norm, with: {d_model: $d_model, classes: 5}}
  pool: {use: pool.mean, in: norm}
  D: {use: head.classification, in: pool, with: {d_model: $d_model, classes: 3}}
  R: {use: head.regression, in: pool, with: {d_model: $d_model}}
  one: {use: head.projection, in: pool, with: {d_model: $d_model, projection_dim: 4}}
  two: {use: head.projection, in: z, with: {d_model: $d_model, projection_dim: 4}}
  size: {use: mean, in: norm}
outputs: {frames: C, logits: D, values: R, one: one, two: two, size_loss: size}
"""


def graph(text: str = GRAPH) -> CheckedGraph:
    return check_graph(loads(text))


@pytest.mark.parametrize(
    ("objective", "inputs", "outputs"),
    [
        (Classification(name="classification"), {"labels": "int64[batch]"}, ["loss", "accuracy"]),
        (
            Classification(name="classification", scores="frames", losses={"size_loss": 0.1}),
            {"labels": "int64[batch, frames]"},
            ["loss", "accuracy", "size_loss"],
        ),
        (Regression(name="regression"), {"labels": "float[batch]"}, ["loss"]),
        (Contrastive(name="contrastive", pair=("one", "two")), {}, ["loss"]),
        (Contrastive(name="contrastive", pair=("one", "two"), form="sigmoid"), {}, ["loss"]),
        (CTC(name="ctc", scores="frames"), {"labels": "int64[batch, targets]"}, ["loss", "unaligned"]),
    ],
)
def test_the_training_graph(objective: Objective, inputs: dict[str, str], outputs: list[str]) -> None:
    trained = objective.trained(graph())
    added = {name: str(given) for name, given in trained.graph.inputs.items() if name not in ("x", "z")}
    assert added == inputs
    assert list(trained.graph.outputs) == outputs
    assert objective.weights(trained) == {"loss": 1.0, **objective.losses}
    assert objective.figures(trained) == tuple({"accuracy", "unaligned"}.intersection(outputs))
    theirs, ours = build(trained).state_dict(), build(graph()).state_dict()
    assert {name for name in theirs if not name.startswith("loss.")} <= set(ours)


def test_a_graph_may_give_its_losses_itself() -> None:
    assert Given(name="given").weights(graph()) == {"size_loss": 1.0}
    assert Given(name="given", losses={"size_loss": 0.5}).weights(graph()) == {"size_loss": 0.5}
    with pytest.raises(AtinukeError, match="output `logits` is no loss: it must be a single number"):
        Given(name="given", losses={"logits": 1.0}).trained(graph())


def test_the_blank_is_the_last_class_unless_another_is_named() -> None:
    blanks = [
        CTC(name="ctc", scores="frames", blank=blank).trained(graph()).graph.nodes["loss"].settings["blank"]
        for blank in (None, 0, 3)
    ]
    assert blanks == [4, 0, 3]


def test_names_that_training_adds_may_not_be_taken() -> None:
    text = GRAPH.replace("  size: ", "  loss: ").replace("size_loss: size", "size_loss: loss")
    with pytest.raises(AtinukeError, match="`loss` is a name that training adds to the graph"):
        Classification(name="classification").trained(graph(text))
