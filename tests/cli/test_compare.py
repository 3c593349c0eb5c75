"""Which of two systems is better, from the folders that evaluations wrote."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

N = 300


def write(folder: Path, right: Sequence[float], task: str = "rte", order: int = 1, **more: object) -> Path:
    folder.mkdir(parents=True)
    scores = {"accuracy": {"value": float(np.mean(right)), "kind": "mean"}}
    (folder / "evaluation.json").write_text(json.dumps({"task": {"name": task}, "data": {}, "scores": scores}))
    items = [{"id": str(i), **more, "prediction": "x", "scores": {"accuracy": [one, 1]}} for i, one in enumerate(right)]
    (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items[::order]))
    return folder


def answers(share: float, seed: int = 0) -> list[float]:
    return (np.random.default_rng(seed).random(N) < share).astype(float).tolist()


def test_the_better_one_is_named(run, tmp_path: Path) -> None:
    a, b = write(tmp_path / "a", answers(0.7, 1)), write(tmp_path / "b", answers(0.9, 2), order=-1)
    code, out, _ = run("compare", a, b)
    assert (code, out.splitlines()[-1]) == (0, "accuracy: B is better")
    assert out.startswith(f"rte: A is {a}, B is {b}; 300 items\n")
    code, out, _ = run("compare", a, b, "--json")
    (score,) = json.loads(out)["scores"]
    assert score["better"] == "B"
    assert score["difference"]["low"] < score["difference"]["value"] < score["difference"]["high"] < 0
    assert score["p"] < 0.001
    assert run("compare", a, b, "--json")[1] == out


def test_nobody_may_say(run, tmp_path: Path) -> None:
    a, b = write(tmp_path / "a", answers(0.80, 1)), write(tmp_path / "b", answers(0.81, 2))
    assert run("compare", a, b)[1].splitlines()[-1] == "accuracy: nobody may say which is better"
    assert run("compare", a, a)[1].splitlines()[-1] == "accuracy: nobody may say which is better"


def test_items_of_one_text_are_one_piece_of_evidence(run, tmp_path: Path) -> None:
    """Three hundred questions about one text: a single draw, whatever the lead."""
    a, b = write(tmp_path / "a", answers(0.9, 1), group="t"), write(tmp_path / "b", answers(0.5, 2), group="t")
    code, out, _ = run("compare", a, b)
    assert code == 0
    assert "300 items in 1 groups" in out
    assert out.splitlines()[-1] == "accuracy: nobody may say which is better"
    (score,) = json.loads(run("compare", a, b, "--json")[1])["scores"]
    assert (score["difference"]["low"], score["difference"]["high"]) == (None, None)


def test_several_seeds(run, tmp_path: Path) -> None:
    for seed in range(3):
        write(tmp_path / "a" / str(seed), answers(0.9, seed))
        write(tmp_path / "b" / str(seed), answers(0.7, 10 + seed))
    code, out, _ = run("compare", tmp_path / "a", tmp_path / "b")
    assert (code, out.splitlines()[-1]) == (0, "accuracy: A is better")
    assert "300 items, 3 runs each" in out
    code, _, err = run("compare", tmp_path / "a", tmp_path / "b" / "0")
    assert (code, "both sides need as many runs" in err) == (2, True)


def test_an_evaluation_without_scores_is_left_out(run, tmp_path: Path) -> None:
    for side, share in (("a", 0.9), ("b", 0.7)):
        write(tmp_path / side / "dev", answers(share, 1))
        blind = write(tmp_path / side / "a-test", [0.0])
        (blind / "evaluation.json").write_text(json.dumps({"task": {"name": "rte"}, "data": {}, "scores": {}}))
    code, out, _ = run("compare", tmp_path / "a", tmp_path / "b")
    assert (code, out.splitlines()[-1]) == (0, "accuracy: A is better")
    code, _, err = run("compare", tmp_path / "a", blind)
    assert (code, "a-test/evaluation.json  has no scores" in err) == (2, True)


def spoiled(folder: Path, line: str) -> Path:
    write(folder, [1.0])
    (folder / "items.jsonl").write_text((folder / "items.jsonl").read_text() + line + "\n")
    return folder


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda p: write(p, [1.0], task="wnli"), ["is of another task", "only there: 'rte'", "only here: 'wnli'"]),
        (lambda p: write(p, [1.0]), ["has other items", "only there: '1'"]),
        (lambda p: write(p, [1.0, 0.0, 1.0]), ["has other items", "only here: '2'"]),
        (lambda p: write(p, [1.0, 0.0], group="g"), ["has other items", "'0' is '' there, 'g' here"]),
        (lambda p: spoiled(p, '{"id": "0", "scores": {"accuracy": [1, 1]}}'), ["jsonl:2  has the id '0' twice"]),
        (lambda p: spoiled(p, '{"id": "1", "scores": {"f1": [1, 1]}}'), ["jsonl:2  has other scores"]),
        (lambda p: spoiled(p, '{"id": "1", "scores": {"accuracy": [1]}}'), ["has 1 numbers, where others have 2"]),
        (lambda p: spoiled(p, '{"id": "1", "scores": {"accuracy": ["1", 1]}}'), ["is no list of numbers"]),
        (lambda p: spoiled(p, '{"id": "1", "scores": {"accuracy": [NaN, 1]}}'), ["row 2 is no number"]),
        (lambda p: spoiled(p, '{"id": 1}'), ["jsonl:2  is no item"]),
        (lambda p: p, ["holds no evaluation of a task"]),
    ],
)
def test_what_cannot_be_compared_is_refused(run, tmp_path: Path, make, told: list[str]) -> None:
    a = write(tmp_path / "a", [1.0, 0.0])
    code, out, err = run("compare", a, make(tmp_path / "b"))
    assert (code, out) == (2, "")
    assert [text for text in told if text not in err] == []
