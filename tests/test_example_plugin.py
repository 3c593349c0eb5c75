"""A third party's plugin works as installed, and a broken or clashing one beside it hurts only graphs that name it.

`make test` installs examples/atinuke-strided; the others are made here as packages that are found on `sys.path`.
"""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from atinuke import graphs
from atinuke.compile.meta import MetaProbe
from atinuke.compile.module import build
from atinuke.core import spec
from atinuke.core.check import CheckedGraph, check
from atinuke.core.errors import AtinukeError
from atinuke.core.graph import Graph, Range, frozen
from atinuke.core.registry import Registry
from atinuke.pipelines import log, train
from atinuke.pipelines.evaluate_task import evaluate_task
from atinuke.pipelines.recipe import load_recipe
from tests.pipelines.tasks import toys

PAIRS = Path(__file__).parents[1] / "examples" / "atinuke-strided" / "pairs.yaml"


def checked(graph: Graph) -> CheckedGraph:
    return check(graph, Registry(), MetaProbe())


def install(folder: Path, package: str, plugin: str, module: str, source: str) -> None:
    """Lays out a package as pip does: a module, and metadata with an entry point."""
    (folder / f"{module}.py").write_text(source)
    info = folder / f"{package.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[atinuke]\n{plugin} = {module}\n")


@pytest.fixture
def bad_neighbours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on `sys.path` with a plugin that cannot be imported and two of one name."""
    install(tmp_path, "atinuke-broken", "broken", "atinuke_broken", "import a_module_that_is_not_there\n")
    install(tmp_path, "atinuke-mel", "sound", "atinuke_mel", "raise RuntimeError('must not be imported')\n")
    install(tmp_path, "atinuke-wave", "sound", "atinuke_wave", "raise RuntimeError('must not be imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def using(component: str) -> Graph:
    """The example's graph with another component for its embedding."""
    text = PAIRS.read_text().replace("strided:text.embedding", component)
    return spec.loads(text, "pairs.yaml")


def test_the_graph_checks_builds_and_runs() -> None:
    model = build(checked(spec.load(PAIRS))).eval()
    for length, pairs in ((2, 1), (7, 3), (8, 4)):
        logits = model(torch.randint(8192, (3, length))).logits
        assert logits.shape == (3, pairs, 16)


def test_the_component_joins_each_group_of_embeddings() -> None:
    module = Registry().load("strided:text.embedding")(vocab_size=11, d_model=5, stride=3).double()
    ids = torch.randint(11, (2, 10))
    table, weight, bias = (p.detach().numpy() for p in (module.embedding.weight, module.join.weight, module.join.bias))
    groups = table[ids.numpy()][:, :9].reshape(2, 3, 3, 5)  # batch, group, token, channel
    expected = np.einsum("bgkc,ock->bgo", groups, weight) + bias
    np.testing.assert_allclose(module(ids).detach().numpy(), expected, rtol=1e-12)


def test_a_stride_that_leaves_nothing_is_found_before_anything_runs() -> None:
    graph = spec.load(PAIRS)
    graph = replace(graph, axes=frozen({**graph.axes, "sequence": Range(1, 8)}))
    with pytest.raises(AtinukeError, match=r"E: axis 1 of its output would be 0 at sequence = 1"):
        checked(graph)


def test_a_constructors_objection_has_the_place_in_the_graph() -> None:
    with pytest.raises(
        AtinukeError, match=r"pairs\.yaml:21  E: .* refuses its settings\n  stride must be at least 1, but is 0"
    ):
        checked(spec.loads(PAIRS.read_text().replace("stride: 2", "stride: 0"), "pairs.yaml"))


@pytest.mark.usefixtures("bad_neighbours")
def test_bad_neighbours_do_not_touch_other_graphs() -> None:
    assert {"strided", "broken", "sound"} <= Registry().plugins().keys()
    checked(spec.load(PAIRS))
    checked(spec.load(graphs.path("gpt2")))


@pytest.mark.usefixtures("bad_neighbours")
def test_a_broken_plugin_stops_the_graph_that_names_it() -> None:
    with pytest.raises(AtinukeError) as error:
        checked(using("broken:text.embedding"))
    assert str(error.value) == (
        "pairs.yaml:21  E: plugin `broken` cannot be imported\n"
        "  ModuleNotFoundError: No module named 'a_module_that_is_not_there'\n"
        "  it is atinuke_broken of package atinuke-broken 1.0\n"
        "  to fix: repair or uninstall it; what does not name it is not affected"
    )


@pytest.mark.usefixtures("bad_neighbours")
def test_two_plugins_of_one_name_stop_the_graph_that_names_it() -> None:
    with pytest.raises(AtinukeError) as error:
        checked(using("sound:text.embedding"))
    first, *providers, last = str(error.value).splitlines()
    assert first == "pairs.yaml:21  E: two plugins are called `sound`"
    assert sorted(providers) == [
        "  one is atinuke_mel of package atinuke-mel 1.0",
        "  one is atinuke_wave of package atinuke-wave 1.0",
    ]
    assert last == "  to fix: uninstall one of them"


def test_a_plugin_that_is_not_installed() -> None:
    with pytest.raises(AtinukeError) as error:
        checked(using("stride:text.embedding"))
    assert str(error.value) == ("pairs.yaml:21  E: no plugin called `stride` is installed\n  to fix: use `strided:`")


def test_the_command_line_says_it_without_a_traceback(bad_neighbours: Path) -> None:
    def run(file: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from atinuke.cli import main; main()", "check", str(file)]
        environment = {**os.environ, "PYTHONPATH": str(bad_neighbours)}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    broken = bad_neighbours / "broken.yaml"
    broken.write_text(PAIRS.read_text().replace("strided:text.embedding", "broken:text.embedding"))
    refused, taken = run(broken), run(PAIRS)
    assert (refused.returncode, taken.returncode) == (2, 0)
    assert refused.stderr.startswith(f"{broken}:21  E: plugin `broken` cannot be imported\n")
    assert "Traceback" not in refused.stderr
    assert "atinuke_broken" not in taken.stdout + taken.stderr


RECIPE = """
graph: {use: twins.yaml}
rows:
  train: {name: "strided:counting", count: 8}
  fields: {input_ids: {name: text, column: text, length: 8, mask: mask}}
objective: {name: "strided:agreement", pair: [one, two]}
optimiser: {name: adamw, lr: 1e-2}
schedule: {name: cosine}
steps: 20
batch: 4
"""
TWINS = """
atinuke: 1
axes: {batch: 1..8, sequence: 1..8}
inputs: {input_ids: "int64[batch, sequence]", mask: "bool[batch, sequence]"}
nodes:
  E: {use: text.embedding, in: input_ids, with: {vocab_size: 256, d_model: 8, scale: 50}}
  pool: {use: pool.mean, in: {x: E, mask: mask}}
  A: {use: head.regression, in: pool, with: {d_model: 8}}
  B: {use: head.regression, in: pool, with: {d_model: 8}}
outputs: {one: A, two: B}
"""


@pytest.fixture
def twins(tmp_path: Path) -> Path:
    (tmp_path / "twins.yaml").write_text(TWINS)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path / "recipe.yaml"


def test_its_objective_trains_on_its_source_of_rows(twins: Path) -> None:
    train.start(load_recipe(twins), twins.parent / "run", Console(quiet=True))
    losses = [record["loss"] for record in log.read(twins.parent / "run" / "log.jsonl")]
    assert losses[-1] < 0.1 * losses[0]
    assert load_recipe(twins.parent / "run" / "recipe.yaml").rows == load_recipe(twins).rows


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("objective.pairs=[one]", "unknown key `objective.pairs`\n  to fix: use `pair`"),
        ("objective.name=strided:agrement", "no objective is called `strided:agrement`\n  to fix: use `strided:agree"),
        ("rows.train.count=0", "`rows.train.count` must be greater than 0"),
        ("rows.train.name=stride:counting", "no plugin called `stride` is installed\n  to fix: use `strided:`"),
    ],
)
def test_its_settings_are_read_like_those_of_built_ins(twins: Path, override: str, message: str) -> None:
    with pytest.raises(AtinukeError, match=message):
        load_recipe(twins, [override])


def test_its_task_goes_from_files_to_a_score(tmp_path: Path) -> None:
    rows = ["good film\t2", "bad\t1", "a very good film\t4", "the film is\t3"]
    (tmp_path / "train.tsv").write_text("".join(f"{row}\n" for row in rows))
    task = {"name": "strided:lengths", "train": "train.tsv", "validation": "train.tsv", "length": 8}
    recipe = load_recipe(toys.recipe(tmp_path, task, steps=60, schedule={"name": "wsd"}))
    run = train.start(recipe, tmp_path / "run", Console(quiet=True)).folder
    found = evaluate_task(run)
    assert [(one.name, one.interval.value) for one in found.scores] == [("right", 1.0)]
    assert json.loads((found.folder / "lengths.json").read_text()) == {"1": 2, "2": 1, "3": 4, "4": 3}
    assert found.folder == run / "evaluations/strided-lengths/train"
    (tmp_path / "train.tsv").write_text("good film\ttwo\n")
    with pytest.raises(AtinukeError, match=r"train\.tsv:1  is not a text, a tab and a number"):
        evaluate_task(run)
