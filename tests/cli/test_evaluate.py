"""Measuring and looking from the command line."""

import json
from pathlib import Path

import pytest

from tests.pipelines import senses


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return senses.make(tmp_path_factory.mktemp("cli"), "classification", "steps=40")


def test_evaluate_says_what_it_writes(run, trained: Path) -> None:
    code, out, _ = run("evaluate", trained, "--subsets")
    assert code == 0
    written = json.loads((trained / "evaluation.json").read_text())
    assert f"accuracy  {written['figures']['accuracy']['value']:.1%} (95 % interval " in out
    assert "heard + words + pixel_values" in out
    assert f"wrote {trained / 'subsets.png'}" in out
    code, out, _ = run("evaluate", trained, "--subsets", "--json")
    assert (code, json.loads(out)) == (0, written)
    assert run("compare", trained, trained)[1].endswith("accuracy: nobody may say which is better\n")
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
