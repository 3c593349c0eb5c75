"""Ejected source runs with torch alone, loads the same weights and gives the same numbers, bit for bit."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_model

from atinuke.compile.eject import eject
from atinuke.compile.front import open_graph
from atinuke.compile.module import build
from tests.compile.test_module import SHIPPED, SMALL

RUN = """
import sys
for name in ("atinuke", "jaxtyping", "pluggy", "sympy", "yaml", "pydantic"):
    sys.modules[name] = None  # importing it would fail
import importlib, torch
from safetensors.torch import load_model, save_file
sys.path.insert(0, ".")
module = importlib.import_module("ejected")
model = getattr(module, sys.argv[1])().eval()
load_model(model, "model.safetensors")
ids = torch.arange(14).reshape(2, 7)
with torch.no_grad():
    step, _ = model.step(ids, torch.zeros(2, dtype=torch.int64), model.state(2, 9))
    save_file({"logits": model(ids).logits, "step": step.logits}, "out.safetensors")
"""


@pytest.mark.parametrize("name", SHIPPED)
def test_ejected_source_gives_identical_logits(name: str, tmp_path: Path) -> None:
    checked = open_graph(name, [*SMALL, *SHIPPED[name]])
    model = build(checked).eval()
    (tmp_path / "ejected.py").write_text(eject(checked))
    save_model(model, str(tmp_path / "model.safetensors"))
    subprocess.run([sys.executable, "-c", RUN, type(model).__name__], cwd=tmp_path, check=True)
    ids = torch.arange(14).reshape(2, 7)
    with torch.no_grad():
        output, _ = model.step(ids, torch.zeros(2, dtype=torch.int64), model.state(2, 9))
        expected = {"logits": model(ids).logits, "step": output.logits}
    for key, value in load_file(tmp_path / "out.safetensors").items():
        assert torch.equal(value, expected[key])


def test_an_ejected_file_runs_as_a_script(tmp_path: Path) -> None:
    (tmp_path / "ejected.py").write_text(eject(open_graph("atinuke", SMALL)))
    result = subprocess.run([sys.executable, "ejected.py"], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert "(stack): ModuleList" in result.stdout
