"""What `atinuke compile` and `atinuke verify` print, and the code that they leave with."""

import os
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atinuke.cli.deploy import HERE, THERE, _say_parity
from atinuke.core.errors import Mistake
from atinuke.runtime.bundle import PARITY
from atinuke.runtime.comparison import save_sample
from atinuke.runtime.parity import SAMPLES, Build, Call, Difference, Parity, write_parity
from atinuke.runtime.runner import NotHereError
from atinuke.runtime.seal import seal
from tests.runtime.bundles import MADE, forward_bundle

CALL = Call("forward", "corner", {"batch": 1}, (Difference("scores", 1e-6, 1.2e-6, 0.99),))
LEFT = Call("forward", "corner", {"batch": 4}, reason="would take about 9 s, 1 s are left")
TINY = [word for size in ("d_model=32", "d_ff=32", "heads=2", "layers=1", "vocab_size=64") for word in ("--set", size)]


def certified(folder: Path, samples: Mapping[str, tuple[Call, ...]], off: float = 0.0) -> Path:
    """A bundle whose answers are `off`."""
    bundle = forward_bundle(folder)
    write_parity(folder / PARITY, Parity("drawn", (Build("onnx/fp32", 1e-4, (CALL, LEFT)),), samples))
    if samples:
        feeds = {"x": np.ones((1, 3), np.float32), "sound": np.ones((1, 160), np.float32)}
        answers = bundle.runner("onnx/fp32").run("forward", feeds)
        (folder / SAMPLES).mkdir()
        answers = {name: (array + off).astype(array.dtype) for name, array in answers.items()}
        save_sample(folder / SAMPLES / "forward.npz", [(feeds, answers)])
    seal(bundle, MADE)
    return folder


def test_no_minutes_are_refused(run: Any, tmp_path: Path) -> None:
    code, _, err = run("compile", "llama", "--minutes", "0", "-o", tmp_path / "b")
    assert code == 2
    assert "--minutes" in err
    assert not [*tmp_path.iterdir()]


def test_sigterm_leaves_nothing(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")

    def terminate(*_: object) -> None:
        assert [*tmp_path.iterdir()]
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("atinuke.compile.backends.onnx.OnnxBuilder.build", terminate)
    before = signal.getsignal(signal.SIGTERM)
    code, _, _ = run("compile", "encoder", *TINY, "-t", "onnx", "-o", tmp_path / "b")
    assert signal.getsignal(signal.SIGTERM) is before
    assert code == 128 + signal.SIGTERM
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(("off", "left"), [(0.0, 0), (1.0, 1)])
def test_verify_leaves_with_1_over_the_budget(run: Any, tmp_path: Path, off: float, left: int) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    code, out, err = run("verify", certified(tmp_path / "b", {"forward": (CALL,)}, off))
    assert (code, err) == (left, "")
    if not off:
        assert "worst is" in out
        assert "1 of 2 calls not run here, such as forward at batch=4: would take" in out
        assert "--set" not in out
        assert "--minutes" not in out


def test_what_has_no_samples_is_not_verified(run: Any, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    code, out, _ = run("verify", certified(tmp_path / "b", {}))
    assert code == 3
    assert "onnx/fp32: not run here: the bundle holds no samples of it" in out


def test_verify_leaves_with_3_without_the_engine(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = certified(tmp_path / "b", {})

    def refuse(*_: object) -> None:
        raise NotHereError(Mistake("there is no GPU"))

    monkeypatch.setattr("atinuke.runtime.bundle.Bundle.runner", refuse)
    code, out, _ = run("verify", folder)
    assert code == 3
    assert "onnx/fp32: not run here: there is no GPU\n" in out


def test_the_table_fits_80_columns_and_says_why_nothing_was_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    whole = Build("tensorrt/int8-weights", 5e-2, (replace(CALL, sizes={"batch": 128, "sequence": 2048}), LEFT))
    _say_parity(Parity("drawn", (whole, Build("onnx/fp32", 1e-4, (LEFT,))), {}), HERE)
    head, first, second, _, worst, *_ = out = capsys.readouterr().out.splitlines()
    assert head.split() == ["build", "status", "budget", "worst", "error", "same", "best", "texts"]
    assert first.split() == ["tensorrt/int8-weights", "passed", "in", "part", "5e-02", "1.2e-06", "99.0%", "-"]
    assert second.split() == ["onnx/fp32", "not", "run", "here", "1e-04", "-", "-", "-"]
    assert worst == "tensorrt/int8-weights: worst is scores of forward (corner) at batch=128, sequence=2048"
    assert any("allow more --minutes" in line for line in out)
    assert any(line.startswith(f"onnx/fp32: not run here: {LEFT.reason}; go on") for line in out)
    _say_parity(Parity("drawn", (whole,), {}), THERE)
    assert "--minutes" not in capsys.readouterr().out
