"""docs/deploy.md says what works: every command and every piece of Python on it is run, but those of other machines."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from atinuke.pipelines.recipe import load_recipe
from atinuke.pipelines.train import start
from tests.cli.conftest import run  # noqa: F401 - a fixture
from tests.test_imports import ROOT

PAGE = ROOT / "docs" / "deploy.md"
RECIPE = """
graph: {use: atinuke, set: {vocab_size: 280, d_model: 32, heads: 2, layers: 1, sequence: 1..64}}
data: {train: [text.txt], validation_fraction: 0.3, split: paragraph, context: 16}
tokenizer: {vocab_size: 280}
optimiser: {name: adamw, lr: 1e-2}
schedule: {name: cosine}
steps: 2
batch: 2
"""
NEEDED = {"tensorrt": "tensorrt_rtx", "openvino": "openvino"}


def blocks() -> Iterator[tuple[str, str]]:
    """The languages and texts of the page's blocks of code; commands of other machines have no language."""
    yield from re.findall(r"^```(\w+)\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_the_page_works(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]  # noqa: F811
    monkeypatch.chdir(tmp_path)
    texts = (f"The import statement number {n} finds a module and binds it." for n in range(60))
    Path("text.txt").write_text("\n\n".join(texts))
    Path("recipe.yaml").write_text(RECIPE)
    start(load_recipe(Path("recipe.yaml")), Path("runs/demo/run"))
    done = 0
    for language, text in blocks():
        if language == "python":
            exec(compile(text, str(PAGE), "exec"), {})
            continue
        assert language == "sh"
        for line in text.splitlines():
            program, *arguments = shlex.split(line, comments=True)
            assert program == "atinuke"
            package = next((NEEDED[name] for name in NEEDED if any(name in argument for argument in arguments)), None)
            if package:
                pytest.importorskip(package)
            code, _, err = run(*arguments)
            assert code == 0, f"{line}\n{err}"
            done += 1
    assert done >= 7
