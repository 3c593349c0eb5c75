"""`atinuke bench` and `atinuke export triton` of a bundle."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from atinuke.cli.bench import _milliseconds
from atinuke.runtime import bench
from atinuke.runtime.limits import Limits
from atinuke.runtime.seal import seal
from tests.runtime.bundles import MADE
from tests.runtime.programs import ROWS, STEPS, bundle_of


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither limits nor work are measured: the bundles here have no graph."""
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "torch" else real(name, *rest))
    monkeypatch.setattr(bench, "measure", lambda threads: Limits(threads, 1e9, 1e9))


def sealed(folder: Path, *builds: str) -> None:
    bundle = bundle_of(folder, ROWS, *builds)
    for build in builds[1:]:
        (bundle.place(build) / "forward.onnx").write_bytes(b"damaged")
    seal(bundle, MADE)


def test_bench_prints_json_of_every_build_without_torch(run: Any, tmp_path: Path, quick: None) -> None:
    sealed(tmp_path / "b", "onnx/fp32", "onnx/fp16")
    code, out, err = run("bench", str(tmp_path / "b"), "--at", "batch=2", "--rounds", "2", "--threads", "1", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert [way["name"] for way in told["ways"] if way["why"] is None] == ["onnx/fp32"]
    assert told["sizes"]["batch"] == 2
    assert {"p50", "p95", "p99", "rate", "ratio", "limit"} <= told["figures"][0].keys()


def test_bench_prints_tables_and_says_what_cannot_run(run: Any, tmp_path: Path, quick: None) -> None:
    sealed(tmp_path / "b", "onnx/fp32", "onnx/fp16")
    picture = tmp_path / "bench.png"
    code, out, err = run("bench", str(tmp_path / "b"), "--rounds", "2", "--threads", "1", "-o", str(picture))
    assert code == 0, err
    for word in ("forward, 2 rounds", "p99 ms", "rows/s", "peak memory", "onnx/fp16 cannot run here: ONNX Runtime"):
        assert word in out
    assert picture.is_file()


def test_bench_leaves_with_3_where_no_build_runs(run: Any, tmp_path: Path, quick: None) -> None:
    sealed(tmp_path / "b", "onnx/fp32", "onnx/fp16")
    picture = tmp_path / "bench.png"
    code, out, _ = run("bench", str(tmp_path / "b"), "-t", "onnx/fp16", "--rounds", "2", "-o", str(picture))
    assert code == 3
    assert "onnx/fp16 cannot run here" in out
    assert not picture.exists()


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--at", "batch=9"), "axis `batch` must be 1..4"),
        (("--target", "onnx/int8"), "no `onnx/int8`"),
        (("--set", "batch=1"), "a bundle cannot be changed"),
    ],
)
def test_bench_refuses_what_the_bundle_has_not(
    run: Any, tmp_path: Path, quick: None, more: tuple[str, ...], told: str
) -> None:
    sealed(tmp_path / "b", "onnx/fp32")
    code, _, err = run("bench", str(tmp_path / "b"), *more)
    assert code == 2
    assert told in err


def test_export_triton_says_what_it_wrote_and_whose_loop_it_is(run: Any, tmp_path: Path) -> None:
    seal(bundle_of(tmp_path / "b", STEPS), MADE)
    code, out, err = run("export", "triton", str(tmp_path / "b"), str(tmp_path / "models"), "--instances", "2", "--cpu")
    assert code == 0, err
    assert "little_begin: prepare, then prefill, up to 4 rows a call" in out
    assert "have no loops" in out
    assert "count: 2 kind: KIND_CPU" in (tmp_path / "models" / "little_decode" / "config.pbtxt").read_text()
    code, _, err = run("export", "triton", str(tmp_path / "b"), str(tmp_path / "models"))
    assert code == 2
    assert "is there already" in err


@pytest.mark.parametrize(
    ("value", "told"),
    [(0.0, "0"), (0.0798, "0.0798"), (0.5, "0.500"), (12.34, "12.3"), (123.4, "123"), (4321, "4,321")],
)
def test_times_have_three_significant_digits(value: float, told: str) -> None:
    assert _milliseconds(value) == told
