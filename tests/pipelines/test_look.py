"""What a node gives, against the model itself, and its picture."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from atinuke.core.errors import AtinukeError
from atinuke.pipelines.drawing import components, draw
from atinuke.pipelines.look import View, look
from atinuke.pipelines.run import open_model
from tests.pipelines import senses


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return senses.make(tmp_path_factory.mktemp("look"), "classification", "steps=4")


def words(run: Path, row: int) -> torch.Tensor:
    line = json.loads((run.parent / "test.jsonl").read_text().splitlines()[row - 1])
    return torch.tensor(list(line["read"].encode()))


def test_an_inner_value_is_that_of_the_trained_model(run: Path) -> None:
    model = open_model(run).model
    found = look(run, "W", 2)
    expected = model.get_submodule("W")(words(run, 2)[None])[0]
    assert np.array_equal(found.value, expected.detach().numpy())
    assert found.axes == ("words", "d_model")
    assert [sense.text for sense in found.senses] == [bytes(words(run, 2).tolist()).decode()]
    mean = look(run, "read", 2)
    assert mean.value == pytest.approx(found.value.mean(0), abs=1e-6)


def test_a_recipe_gives_the_weights_of_its_seed(run: Path) -> None:
    recipe = run.parent / "recipe.yaml"
    fresh = look(recipe, "W", 2)
    assert np.array_equal(fresh.value, look(recipe, "W", 2).value)
    assert not np.array_equal(fresh.value, look(run, "W", 2).value)
    assert (fresh.weights, look(run, "W", 2).weights) == ("fresh weights", "step-000004")


def test_the_scores_carry_the_names_of_the_classes(run: Path) -> None:
    found = look(run, "C", 1)
    assert found.classes == ("one", "three", "two")
    assert found.right == "one"
    assert [sense.name for sense in found.senses] == ["heard", "words", "pixel_values"]
    assert look(run, "all", 1).classes is None


@pytest.mark.parametrize(
    ("node", "axes"),
    [
        ("W", ("words", "d_model")),
        ("pixels", ("channels", "height", "width")),
        ("V", ("12", "d_model")),
        ("V.grid", ("4", "3", "d_model")),
        ("hear.mask", ()),
        ("C", ("classes",)),
    ],
)
def test_every_kind_of_value_becomes_a_picture(run: Path, tmp_path: Path, node: str, axes: tuple[str, ...]) -> None:
    found = look(run, node, 2)
    assert found.axes == axes
    draw(found, tmp_path / "seen.png")
    assert Image.open(tmp_path / "seen.png").width > 1000
    assert [path.name for path in tmp_path.iterdir()] == ["seen.png"]


def test_the_colours_of_a_grid_are_its_principal_components() -> None:
    """Vectors of two independent directions: two colours vary, and together they are all of it."""
    random = np.random.default_rng(0)
    a, b = random.normal(size=(2, 5, 4))
    u, v = np.linalg.qr(random.normal(size=(7, 2)))[0].T
    colours, kept = components(3 * a[..., None] * u + b[..., None] * v + 5)
    assert kept == pytest.approx(1)
    assert np.ptp(colours[..., 0]) == np.ptp(colours[..., 1]) == 1
    assert np.all(colours[..., 2] == 0.5)
    assert abs(np.corrcoef(colours[..., 0].ravel(), a.ravel())[0, 1]) > 0.9


def test_too_many_axes_are_refused(tmp_path: Path) -> None:
    view = View("N", "add", {}, np.zeros((2, 2, 2, 2)), ("a", "b", "c", "d"), None, (), None, None, "x", "row 1")
    with pytest.raises(AtinukeError, match="`N` gives 4 axes for each row: a, b, c, d"):
        draw(view, tmp_path / "seen.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("node", "row", "message"),
    [
        ("X", 1, "the graph has no node `X`"),
        ("read.grid", 1, "`read` has no output `grid`\n  it gives: output, mask"),
        ("words", 1, "the graph has no node `words`"),
        ("C", 24, "there is no row 24\n  there are 23"),
    ],
)
def test_what_cannot_be_looked_at_is_one_error(run: Path, node: str, row: int, message: str) -> None:
    with pytest.raises(AtinukeError, match=message):
        look(run, node, row)


BLOCKS = """
atinuke: 1
name: blocks
dims: {d_model: 8, classes: 3}
axes: {batch: 1..64, words: 1..16}
inputs: {words: "int64[batch, words]", words_mask: "bool[batch, words]"}
blocks:
  layer:
    inputs: {x: "float[batch, words, d_model]"}
    nodes:
      F: {use: feedforward.gelu, in: x, with: {d_model: $d_model, d_ff: 16}}
      add: {use: add, in: [x, F]}
    outputs: add
nodes:
  E: {use: text.embedding, in: words, with: {vocab_size: 256, d_model: $d_model}}
  stack: {use: layer, repeat: 2, in: E}
  pool: {use: pool.mean, in: {x: stack, mask: words_mask}}
  C: {use: head.classification, in: pool, with: {d_model: $d_model, classes: $classes}}
outputs: {logits: C}
"""


def test_blocks_are_looked_at_whole(run: Path, tmp_path: Path) -> None:
    (tmp_path / "blocks.yaml").write_text(BLOCKS)
    text = senses.recipe("classification").replace("graph.yaml", "blocks.yaml")
    text = text.replace("[train.jsonl]", f"[{run.parent}/train.jsonl]").replace(
        "[test.jsonl]", f"[{run.parent}/test.jsonl]"
    )
    lines = [line for line in text.splitlines() if not line.lstrip().startswith(("heard:", "pixel_values:"))]
    (tmp_path / "recipe.yaml").write_text("\n".join(lines))
    found = look(tmp_path / "recipe.yaml", "stack", 2)
    assert (found.use, found.axes) == ("layer", ("words", "d_model"))
    assert look(tmp_path / "recipe.yaml", "E", 2).value.shape == found.value.shape  # without the block
    with pytest.raises(AtinukeError, match=r"`stack\.0\.F` is within a block, and only nodes of the graph itself"):
        look(tmp_path / "recipe.yaml", "stack.0.F")
