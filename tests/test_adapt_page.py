"""docs/adapt.md says what works: its recipes are trained for two steps on small models, its commands are run."""

import re
import shlex
from pathlib import Path

import pytest
import torch
import yaml

from atinuke.pipelines import tokenizer
from atinuke.pipelines.pretrained.huggingface import convert
from atinuke.pipelines.recipe import load_recipe
from atinuke.pipelines.train import start
from tests.cli.conftest import run  # noqa: F401 - a fixture
from tests.pipelines.pretrained.models import GPT2
from tests.pipelines.tasks.toys import table, tiny_bert
from tests.test_imports import ROOT

PAGE = ROOT / "docs" / "adapt.md"
TEXT = "the cat sat on the mat " * 20


def files() -> None:
    """What the page begins with, small."""
    import transformers

    tiny_bert(Path("bert"))
    convert(Path("bert"), Path("models/minilm"))
    torch.manual_seed(0)
    bytelevel = tokenizer.Tokenizer.train([TEXT], 260)
    ends = {"bos_token_id": bytelevel.end_of_text, "eos_token_id": bytelevel.end_of_text}
    transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=260, **ends, **GPT2)).save_pretrained("gpt2")
    bytelevel.save(Path("gpt2/tokenizer.json"))
    convert(Path("gpt2"), Path("models/gpt2"))
    Path("texts").mkdir()
    Path("texts/a.txt").write_text(TEXT)
    Path("yoruba.txt").write_text("ile wa dara\nile won dara\nawa lo ile\n")
    for name in ("train", "dev"):
        table(Path(f"SST-2/{name}.tsv"), ("sentence", "label"), ("good film", 1), ("bad film", 0))
        table(Path(f"menyo20k/{name}.tsv"), ("en", "yo"), ("good film", "ile wa dara"), ("bad film", "awa lo"))


def test_the_page_works(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]  # noqa: F811
    monkeypatch.chdir(tmp_path)
    files()
    small = ["steps=2", "batch=2", "schedule.warmup=0"]
    done: list[str] = []
    for language, text in re.findall(
        r"^```(\w+)\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    ):
        if language == "yaml" and text.startswith("# "):
            Path(text.partition("\n")[0].removeprefix("# ")).write_text(text)
        elif language == "yaml":  # a part of the graph of a run
            graph = yaml.safe_load(Path("runs/lora/graph.yaml").read_text())
            (block,) = graph["blocks"].values()
            assert block["nodes"]["H"]["lora"] == yaml.safe_load(text)["H"]["lora"]
        else:
            for line in text.splitlines():
                program, command, *arguments = shlex.split(line, comments=True)
                assert program == "atinuke"
                done.append(command)
                if command == "train":
                    cut = ["data.context=16"] if arguments[0] == "gpt2.yaml" else []
                    start(load_recipe(Path(arguments[0]), [*small, *cut]), Path("runs") / Path(arguments[0]).stem)
                    continue
                code, _, err = run(command, *(one.replace("2000", "3") for one in arguments))
                assert code == 0, f"{line}\n{err}"
    assert [done.count(one) for one in ("train", "evaluate", "adapter", "convert", "extend")] == [3, 3, 3, 1, 1]
    for name in ("adapter/adapter_config.json", "theirs/config.json", "models/minilm-yor/graph.yaml"):
        assert Path(name).is_file()
