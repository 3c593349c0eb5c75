"""From a graph to a bundle that is proved, or to nothing but a report."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from atinuke.compile.builder import Builder, Work
from atinuke.compile.module import build
from atinuke.compile.proof import CLEAN
from atinuke.core.errors import AtinukeError
from atinuke.pipelines.deploy import OverBudgetError, Subject, compile_bundle, find_builders
from atinuke.runtime.parity import BUDGETS, FAILED, PASSED, read_parity
from tests.compile.faults import faulty

for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package)

WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
from atinuke.cli import main
sys.argv = ["atinuke", "verify", *sys.argv[1:]]
main()
"""


def subject(fault: str) -> Subject:
    torch.manual_seed(0)
    checked = faulty(fault)
    return Subject(checked, build(checked).eval())


def verify(*arguments: object) -> tuple[int, str]:
    command = [sys.executable, "-c", WITHOUT_TORCH, *map(str, arguments)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.returncode, found.stdout + found.stderr


def test_a_norm_that_overflows_is_deployed_as_an_island_and_verified_without_torch(tmp_path: Path) -> None:
    bundle = compile_bundle(subject("large"), ["onnx", "onnx/fp16"], tmp_path / "b")
    parity = read_parity(bundle.folder / "parity.json")
    assert [one.status for one in parity.builds] == [PASSED, PASSED]
    assert [[kept.node for kept in one.kept] for one in parity.builds] == [[], ["stack.*.N"]]
    assert {file.name for file in tmp_path.iterdir()} == {"b"}
    code, said = verify(bundle.folder, "--json", "-t", "onnx/fp16")
    assert code == 0
    (told,) = json.loads(said)["builds"]
    assert told["status"] == PASSED
    assert len(told["calls"]) == len(parity.samples["forward"])
    fp32, fp16 = (bundle.place(name) / "forward.onnx" for name in ("onnx/fp32", "onnx/fp16"))
    assert fp16.read_bytes() != fp32.read_bytes()


def test_what_is_wrong_at_one_length_leaves_a_report_alone(tmp_path: Path) -> None:
    with pytest.raises(OverBudgetError, match=r"stack\.0\.N \(faults:fault\.off\), faulty\.yaml:11: error"):
        compile_bundle(subject("off"), ["onnx/fp32"], tmp_path / "b")
    assert [file.name for file in tmp_path.iterdir()] == ["b.parity.json"]
    (told,) = read_parity(tmp_path / "b.parity.json").builds
    assert told.status == FAILED


def test_one_build_over_its_budget_and_nothing_is_deployed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atinuke.compile.backends.onnx.OnnxBuilder.islands", ())
    monkeypatch.setattr("atinuke.compile.proof._blame", lambda *_: None)
    monkeypatch.setitem(BUDGETS, "fp16", 1e-6)
    with pytest.raises(OverBudgetError, match=f"^onnx/fp16 is over its budget of 1e-06\n  {CLEAN}\n"):
        compile_bundle(subject("large"), ["onnx/fp32", "onnx/fp16"], tmp_path / "b")
    assert [file.name for file in tmp_path.iterdir()] == ["b.parity.json"]
    assert [one.status for one in read_parity(tmp_path / "b.parity.json").builds] == [PASSED, FAILED]


class Interrupted(Builder):
    precisions = ("fp32",)

    def build(self, work: Work, folder: Path) -> None:
        (folder / "half").write_text("")
        raise KeyboardInterrupt


def test_ctrl_c_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atinuke.compile.backends.onnx.OnnxBuilder", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        compile_bundle(subject("large"), ["onnx"], tmp_path / "b")
    assert not [*tmp_path.iterdir()]


def test_targets_are_told_by_name_and_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(find_builders(["onnx", "onnx/fp16"])) == ["onnx/fp32", "onnx/fp16"]
    with pytest.raises(AtinukeError, match="no target is called `onix`"):
        find_builders(["onix"])
    with pytest.raises(AtinukeError, match="has no precision `fp23`"):
        find_builders(["onnx/fp23"])
    with pytest.raises(AtinukeError, match="asked for twice"):
        find_builders(["onnx", "onnx/fp32"])
    builder = "atinuke.compile.backends.onnx.OnnxBuilder"
    with monkeypatch.context() as patch:
        patch.setattr(f"{builder}.packages", ("no_such_package",))
        with pytest.raises(
            AtinukeError, match=r"no_such_package must be installed .*\n.*pip install 'atinuke\[onnx\]'"
        ):
            find_builders(["onnx"])
    with monkeypatch.context() as patch:
        patch.setattr(f"{builder}.precisions", ("fp5",))
        with pytest.raises(AtinukeError, match="onnx/fp5  has a precision without a budget"):
            find_builders(["onnx"])
    monkeypatch.setattr(f"{builder}.refusal", lambda self, work: "too round")
    monkeypatch.setattr(f"{builder}.build", lambda self, work, folder: pytest.fail("was built"))
    with pytest.raises(AtinukeError, match="cannot be built\n  too round"):
        compile_bundle(subject("large"), ["onnx"], tmp_path / "b")
    assert not [*tmp_path.iterdir()]


def test_where_nothing_can_be_written_is_one_message_and_nothing_is_left(tmp_path: Path) -> None:
    def stop(what: str, done: int, of: int) -> None:
        if what == "asking the model":
            raise KeyboardInterrupt

    (tmp_path / "file").write_text("")
    with pytest.raises(AtinukeError, match="cannot be written"):
        compile_bundle(subject("large"), ["onnx"], tmp_path / "file" / "b")
    with pytest.raises(KeyboardInterrupt):
        compile_bundle(subject("large"), ["onnx"], tmp_path / "new" / "deep" / "b", tell=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_capabilities_are_for_targets_that_read_them(tmp_path: Path) -> None:
    with pytest.raises(AtinukeError, match="none of the targets is built for compute capabilities"):
        compile_bundle(subject("large"), ["onnx"], tmp_path / "b", capabilities=[86])
