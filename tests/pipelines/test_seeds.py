"""Runs of several seeds as one result, and GLUE's average."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from atinuke.core.errors import AtinukeError
from atinuke.pipelines import seeds
from atinuke.pipelines.evaluate_task import Scored
from atinuke.pipelines.evaluations import read
from atinuke.pipelines.recipe import load_recipe
from atinuke.pipelines.scores.glue import AVERAGED, METRICS
from atinuke.pipelines.seeds import Seeds, evaluate_runs
from atinuke.pipelines.significance import Interval, bootstrap
from atinuke.pipelines.train import start
from tests.cli.conftest import run  # noqa: F401 - a fixture
from tests.pipelines.tasks.toys import recipe, table

ROWS = [("good film", 1), ("very good", 1), ("bad film", 0), ("very bad", 0), ("the good film", 0), ("a bad film", 1)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seeds of one task and one run of another."""
    folder = tmp_path_factory.mktemp("runs")
    table(folder / "files/train.tsv", ("sentence", "label"), *ROWS)
    for name, task, seed in (("a", "sst2", 0), ("b", "sst2", 1), ("deep/c", "sst2", 2), ("d", "cola", 0)):
        made = {"name": task, "train": "train.tsv", "validation": "train.tsv", "length": 16}
        start(
            load_recipe(recipe(folder / "files", made, seed=seed, steps=2, schedule={"name": "cosine"})), folder / name
        )
    return folder


def test_seeds_are_one_result(run, runs: Path) -> None:  # type: ignore[no-untyped-def]  # noqa: F811
    code, out, err = run("evaluate", runs, "--json")
    assert code == 0, err
    told = json.loads(out)
    assert json.loads((runs / "summary.json").read_text()) == told
    sst2, cola = sorted(told["results"], key=lambda one: -len(one["runs"]))
    where = [runs / name / "evaluations/sst2/train" for name in ("a", "b", "deep/c")]
    assert (sst2["task"], sst2["items"], sst2["runs"]) == ("sst2", 6, list(map(str, where)))
    alone = [read(one).scores[0] for one in where]
    wanted = bootstrap(alone)
    assert sst2["scores"]["accuracy"]["value"] == pytest.approx(np.mean([one.value for one in alone]))
    assert [sst2["scores"]["accuracy"][end] for end in ("low", "high")] == [wanted.low, wanted.high]
    assert sst2["scores"]["accuracy"]["runs"] == 3
    assert (cola["task"], len(cola["runs"]), told["glue"]) == ("cola", 1, None)
    code, out, err = run("evaluate", runs)
    assert code == 0, err
    assert [line.split()[:2] for line in out.splitlines()[1:3]] == [["sst2", "accuracy"], ["cola", "matthews"]]


def test_what_is_no_folder_of_runs(run, runs: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]  # noqa: F811
    with pytest.raises(AtinukeError, match="holds no runs"):
        evaluate_runs(tmp_path)
    for name in ("a", "z"):
        (tmp_path / name).mkdir()
        for file in ("recipe.yaml", "graph.yaml", "tokenizer.json"):
            shutil.copyfile(runs / "a" / file, tmp_path / name / file)
    shutil.copytree(runs / "a/checkpoints", tmp_path / "a/checkpoints")
    with pytest.raises(AtinukeError, match="z  has no checkpoint yet\n  to fix: go on with `atinuke resume"):
        evaluate_runs(tmp_path)
    shutil.copytree(runs / "a/checkpoints", tmp_path / "z/checkpoints")
    recipe_file = tmp_path / "z/recipe.yaml"
    recipe_file.write_text(recipe_file.read_text().replace("steps: 2\n", "steps: 5\n"))
    with pytest.raises(AtinukeError, match="z  stands at step 2 of 5, and is no seed of a finished run"):
        evaluate_runs(tmp_path)
    assert not (tmp_path / "a/evaluations").exists()  # told before the first is measured
    assert "--output is for one run" in run("evaluate", runs, "-o", tmp_path / "x")[2]


def test_the_average_of_glue() -> None:
    """MNLI's two files count as one task, and figures that are not GLUE's do not count."""
    values = {task: 0.1 * place for place, task in enumerate(AVERAGED)}

    def result(task: str, value: float) -> Seeds:
        names = (*METRICS[task], "other")
        made = [Scored(name, "mean", Interval(1.0 if name == "other" else value, 0, 1, 9)) for name in names]
        return Seeds(task, {}, (), 9, tuple(made))

    found = [result(task, value) for task, value in values.items()]
    assert seeds._average(found) == pytest.approx(0.4)
    assert seeds._average([*found, result("mnli", values["mnli"] + 0.18)]) == pytest.approx(0.41)
    assert seeds._average(found[1:]) is None
    assert seeds._average([*found, result("rte", 0.5)]) is None
