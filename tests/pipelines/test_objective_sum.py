"""Several objectives at once: distinct names, each its own mean, and BERT's two together on pairs of sentences."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from rich.console import Console

from atinuke import graphs
from atinuke.compile.front import check_graph, open_graph
from atinuke.compile.module import build
from atinuke.core.errors import AtinukeError
from atinuke.core.spec import loads
from atinuke.pipelines import log, train
from atinuke.pipelines.objective import Objective
from atinuke.pipelines.objective_sum import Sum
from atinuke.pipelines.recipe import load_recipe
from tests.pipelines.corpora import TEXTS

HEADS = """
atinuke: 1
axes: {batch: 1..8}
inputs: {x: "float[batch, 4]"}
nodes:
  A: {use: head.classification, in: x, with: {d_model: 4, classes: 3}}
  B: {use: head.classification, in: x, with: {d_model: 4, classes: 2}}
outputs: {a: A, b: B}
"""
TWO = [
    {"name": "classification", "scores": "a", "labels": "a_labels"},
    {"name": "classification", "scores": "b", "labels": "b_labels", "weight": 0.5},
]


def objective(*parts: dict[str, object], **more: object) -> Sum:
    made = Objective.model_validate({"name": "sum", "of": list(parts or TWO), **more})
    assert isinstance(made, Sum)
    return made


def test_each_part_has_names_of_its_own_and_its_own_labels() -> None:
    summed = objective()
    trained = summed.trained(check_graph(loads(HEADS)))
    assert summed.weights(trained) == {"classification_loss": 1.0, "classification2_loss": 0.5}
    assert summed.figures(trained) == ("classification_accuracy", "classification2_accuracy")
    assert summed.counted() == {
        "classification_loss": "a_labels",
        "classification_accuracy": "a_labels",
        "classification2_loss": "b_labels",
        "classification2_accuracy": "b_labels",
    }
    torch.manual_seed(0)
    module = build(trained)
    x, a, b = torch.randn(4, 4), torch.tensor([0, 1, -100, 2]), torch.tensor([-100, 1, -100, -100])
    found = module(x, a_labels=a, b_labels=b)
    torch.testing.assert_close(found.classification_loss, F.cross_entropy(module.A(x), a))
    torch.testing.assert_close(found.classification2_loss, F.cross_entropy(module.B(x)[1:2], b[1:2]))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([{**TWO[0], "labels": "labels"}, {**TWO[1], "labels": "labels"}], "two parts of the sum are about `labels`"),
        ([TWO[0], {"name": "given"}], "`given` cannot be a part of a sum"),
    ],
)
def test_parts_that_do_not_go_together(parts: list[dict[str, object]], message: str) -> None:
    with pytest.raises(AtinukeError, match=message):
        objective(*parts).trained(check_graph(loads(HEADS)))


RECIPE = """
graph:
  use: bert.yaml
  set: {vocab_size: 400, d_model: 16, heads: 2, layers: 1, length: 48, sequence: 1..48, dropout: 0}
rows:
  train: {name: sentences, files: [a.txt], by: line}
  validation: {name: sentences, files: [b.txt], by: line, seed: 1}
  fields:
    input_ids: {name: text, column: first, pair: second, length: 48, cut: true, mask: attention_mask}
    next_labels: {name: class, column: next}
tokenizer: {vocab_size: 400}
objective:
  name: sum
  of:
    - {name: masked}
    - {name: classification, scores: next, labels: next_labels, weight: 0.5}
optimiser: {name: adamw, lr: 1e-2}
schedule: {name: cosine}
steps: 2
batch: 4
accumulate: 2
evaluate_every: 2
evaluate_batches: 2
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    bert = graphs.path("encoder").read_text()
    heads = (
        "  pool: {use: pool.first, in: stack}\n  N: {use: head.classification, in: pool, with: "
        "{d_model: $d_model, classes: 2}}\noutputs: {next: N, "
    )
    (tmp_path / "bert.yaml").write_text(bert.replace("outputs: {logits", heads + "logits"))
    for name, texts in (("a", TEXTS[:20]), ("b", TEXTS[20:25])):
        (tmp_path / f"{name}.txt").write_text("\n\n".join(texts))
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


def test_masked_tokens_and_next_sentences_together(folder: Path) -> None:
    train.start(load_recipe(folder / "recipe.yaml"), folder / "run", Console(quiet=True))
    first, *_, last = log.read(folder / "run" / "log.jsonl")
    assert first["loss"] == pytest.approx(first["masked_loss"] + 0.5 * first["classification_loss"], rel=1e-5)
    assert {"validation_masked_loss", "validation_classification_loss", "validation_classification_accuracy"} <= set(
        last
    )
    assert open_graph(str(folder / "run" / "graph.yaml")).graph.outputs.keys() == {
        "next",
        "logits",
        "last_hidden_state",
    }


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "objective.of=[{name: maskd}, {name: masked}]",
            "`objective.of.0.name`: no objective is called `maskd`\n  to fix: use `masked`",
        ),
        ("objective.of=[{name: masked, shre: 1}, {name: masked}]", "`objective.of.0.shre`\n  to fix: use `share`"),
        ("objective={name: summ}", "no objective is called `summ`\n  to fix: use `sum`"),
        ("objective={of: []}", "`objective.name` is missing"),
        ("objective=masked", "`objective` must have a key `name`"),
        ("rows.train={name: sentenses}", "no source is called `sentenses`\n  to fix: use `sentences`"),
        ("rows.train={name: sentences, file: [x]}", "`rows.train.files` is missing"),
        ("rows.validation={name: sentences, file: [x]}", "unknown key `rows.validation.file`\n  to fix: use `files`"),
    ],
)
def test_mistakes_are_said_with_what_to_try(folder: Path, override: str, message: str) -> None:
    with pytest.raises(AtinukeError, match=message):
        load_recipe(folder / "recipe.yaml", [override])
