"""Measuring and looking from the command line."""

import json
import sys
from pathlib import Path

import pytest

from atinuke.cli import main
from tests.pipelines import senses


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return senses.make(tmp_path_factory.mktemp("cli"), "classification", "steps=40")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Calls the command line; gives the exit code, what was printed and what was complained about."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["atinuke", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "200")
        try:
            main()
            code = 0
        except SystemExit as leave:
            code = leave.code if isinstance(leave.code, int) else 0
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_evaluate_says_what_it_writes(run, trained: Path) -> None:
    code, out, _ = run("evaluate", trained, "--subsets")
    assert code == 0
    written = json.loads((trained / "evaluation.json").read_text())
    assert f"accuracy  {written['figures']['accuracy']['value']:.1%} (95 % interval " in out
    assert "heard + words + pixel_values" in out
    assert f"wrote {trained / 'subsets.png'}" in out
    code, out, _ = run("evaluate", trained, "--subsets", "--json")
    assert (code, json.loads(out)) == (0, written)
    code, out, err = run("evaluate", trained, "--set", "batch=3")
    assert (code, out) == (2, "")
    assert "`batch` of a run cannot be changed" in err


def test_look_draws(run, trained: Path, tmp_path: Path) -> None:
    code, out, err = run("look", trained, "V.grid", "--row", "2", "-o", tmp_path / "seen.png")
    assert (code, out, err) == (0, f"wrote {tmp_path / 'seen.png'}\n", "")
    assert (tmp_path / "seen.png").read_bytes().startswith(b"\x89PNG")
    code, _, err = run("look", trained, "V.grit", "-o", tmp_path / "no.png")
    assert (code, "use `grid`" in err) == (2, True)
    assert not (tmp_path / "no.png").exists()
