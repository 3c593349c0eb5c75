"""`atinuke harness`: the harness's own command, whose mistakes are told as ours are."""

import json
from pathlib import Path

import pytest

pytest.importorskip("lm_eval")


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it logs would go on to the stream of this test when that is closed."""
    monkeypatch.setattr("lm_eval.__main__.setup_logging", lambda: None)


@pytest.mark.parametrize(("arguments", "said"), [("run=nowhere", "nowhere  holds no run"), ("", "no model is named")])
def test_a_mistake_is_one_message(run, tmp_path: Path, arguments: str, said: str) -> None:  # type: ignore[no-untyped-def]
    task = {"task": "sums", "dataset_path": "json", "test_split": "test", "output_type": "multiple_choice"}
    (tmp_path / "sums.yaml").write_text(json.dumps(task))
    named = ("--model_args", arguments) if arguments else ()
    code, _, err = run("harness", "run", "--model", "atinuke", *named, "--tasks", "sums", "--include_path", tmp_path)
    assert code == 2
    assert said in err


def test_its_help_is_its_own(run) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = run("harness", "--help")
    assert code == 0
    assert "Language Model Evaluation Harness" in out
    assert "validate" in out
