"""docs/tasks.md says what works: its recipes are trained for two steps on small cuts, its commands are run."""

import json
import re
import shlex
from pathlib import Path

import pytest

from atinuke.pipelines.pretrained.huggingface import convert
from atinuke.pipelines.recipe import load_recipe
from atinuke.pipelines.train import start
from tests.cli.conftest import run  # noqa: F401 - a fixture
from tests.pipelines.tasks.toys import table, tiny_bert
from tests.test_imports import ROOT

PAGE = ROOT / "docs" / "tasks.md"
ROWS = [("sentence", "label"), ("good film", 1), ("very good", 1), ("bad film", 0), ("very bad", 0)]


def files() -> None:
    """What the page begins with, small."""
    tiny_bert(Path("bert"))
    convert(Path("bert"), Path("models/minilm"))
    for name in ("train", "dev"):
        table(Path(f"SST-2/{name}.tsv"), *ROWS)
    table(Path("SST-2/test.tsv"), ("index", "sentence"), (0, "good film"))
    for name in ("train", "dev"):
        Path("tweets").mkdir(exist_ok=True)
        Path(f"tweets/{name}.csv").write_text("mood,tweet\npositive,good film\nnegative,bad film\nneutral,film\n")
        table(Path(f"pairs/{name}.tsv"), ("en", "yo"), ("good film", "a b"), ("bad film", "c d"))
    qa = {"id": "q", "question": "what?", "answers": [{"text": "film", "answer_start": 5}]}
    data = {"data": [{"title": "T", "paragraphs": [{"context": "good film is on", "qas": [qa]}]}]}
    Path("squad").mkdir()
    for name in ("train", "dev"):
        Path(f"squad/{name}-v1.1.json").write_text(json.dumps(data))
    columns = "#begin document (a)\na 0 0 film (0)\na 0 1 is -\na 0 2 film (0)\n#end document\n"
    Path("litbank").mkdir()
    for name in ("train", "dev"):
        Path(f"litbank/{name}.conll").write_text(columns)
    head = "ID\tText\tPronoun\tPronoun-offset\tA\tA-offset\tA-coref\tB\tB-offset\tB-coref\tURL\n"
    Path("gap-development.tsv").write_text(f"{head}d\tgood film is her\ther\t13\tfilm\t5\tTRUE\tgood\t0\tFALSE\tx\n")


def test_the_page_works(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]  # noqa: F811
    monkeypatch.chdir(tmp_path)
    files()
    small = ["steps=2", "batch=2", "schedule.warmup=0"]
    evaluated = 0
    for language, text in re.findall(
        r"^```(\w+)\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    ):
        match language:
            case "yaml":
                Path(text.partition("\n")[0].removeprefix("# ")).write_text(text)
            case "python":
                exec(compile(text, str(PAGE), "exec"), {})
            case _:
                for line in text.splitlines():
                    program, command, *arguments = shlex.split(line)
                    assert program == "atinuke"
                    if command == "train":
                        start(load_recipe(Path(arguments[0]), small), Path("runs") / Path(arguments[0]).stem)
                        continue
                    code, _, err = run(command, *arguments)
                    assert code == 0, f"{line}\n{err}"
                    evaluated += 1
    assert evaluated == 10
    (result,) = [one for one in json.loads(Path("runs/summary.json").read_text())["results"] if one["task"] == "sst2"]
    assert len(result["runs"]) == 2
    for path in ("sst2/evaluations/sst2/dev/evaluation.json", "squad/evaluations/squad/dev-v1.1/predictions.json"):
        assert Path("runs", path).is_file()
