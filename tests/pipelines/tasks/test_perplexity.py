"""The perplexity of a decoder against transformers' own model on the same windows."""

import json
import math
from pathlib import Path

import pytest
import torch

from atinuke.core.errors import AtinukeError
from atinuke.pipelines.evaluate_task import evaluate_task
from atinuke.pipelines.pretrained.huggingface import convert
from atinuke.pipelines.recipe import load_recipe
from tests.cli.conftest import run  # noqa: F401 - a fixture
from tests.pipelines import gpt2
from tests.pipelines.tasks.toys import recipe, table, tiny_bert

TEXTS = ["the cat sat on the mat. " * 9, "Ọ̀rọ̀ yìí gùn", "a"]
END = gpt2.BYTES.end_of_text


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder that reads 128 tokens, each of them a byte, as a model folder."""
    folder = tmp_path_factory.mktemp("gpt2")
    gpt2.pair()[0].save_pretrained(folder / "theirs")
    gpt2.BYTES.save(folder / "theirs/tokenizer.json")
    convert(folder / "theirs", folder / "model")
    return folder / "model"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    file = tmp_path / "held.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS), encoding="utf-8")
    return file


def nats(text: str, window: int, stride: int) -> float:
    """One token after another, each behind what its window has of the text."""
    whole, total = [END, *text.encode()], 0.0
    whole[1:] = gpt2.BYTES.encode(text)
    for at in range(1, len(whole)):
        last = window if at <= window else window + stride * math.ceil((at - window) / stride)
        read = torch.tensor([whole[max(0, min(last, len(whole) - 1) - window) : at]])
        with torch.inference_mode():
            total -= gpt2.pair()[0](read).logits[0, -1].log_softmax(-1)[whole[at]].item()
    return total


@pytest.mark.parametrize(("settings", "window", "stride"), [((), 128, 64), (("length=40", "stride=10"), 40, 10)])
def test_every_token_counts_once(
    model: Path, data: Path, tmp_path: Path, settings: tuple[str, ...], window: int, stride: int
) -> None:
    found = evaluate_task(model, "perplexity", [data], [f"task.{one}" for one in settings], output=tmp_path / "out")
    wanted = [nats(text, window, stride) for text in TEXTS]
    items = [json.loads(line) for line in (tmp_path / "out/items.jsonl").read_text().splitlines()]
    assert [one["prediction"]["nats"] for one in items] == pytest.approx(wanted, rel=1e-5)
    sizes = [len(text.encode()) for text in TEXTS]
    values = {one.name: one.interval.value for one in found.scores}
    assert values["bits per byte"] == pytest.approx(sum(wanted) / math.log(2) / sum(sizes), rel=1e-5)
    assert values["perplexity per token"] == pytest.approx(math.exp(sum(wanted) / sum(sizes)), rel=1e-5)
    words = sum(len(text.split()) for text in TEXTS)
    assert values["perplexity per word"] == pytest.approx(math.exp(sum(wanted) / words), rel=1e-5)


def test_through_the_command_line_and_compared(run, model: Path, data: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]  # noqa: F811
    for name, setting in (("a", "task.length=128"), ("b", "task.length=8")):
        code, out, err = run(
            "evaluate", model, "--task", "perplexity", "--data", data, "--set", setting, "-o", tmp_path / name
        )
        assert code == 0, err
        assert "bits per byte" in out
    code, out, err = run("compare", tmp_path / "a", tmp_path / "b")
    assert code == 0, err
    assert out.startswith("perplexity: A is")


def test_what_was_read_of_a_folder_is_told(run, model: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]  # noqa: F811
    places = [tmp_path / "texts" / name for name in ("a.txt", "deep/b.txt", ".hidden.txt", "deep/er/c.txt", "d.md")]
    for place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("the cat")
    code, out, err = run("evaluate", model, "--task", "perplexity", "--data", tmp_path / "texts")
    assert code == 0, err
    assert f"perplexity over 3 items\n  read {places[0]}, {places[1]}, {places[3]}\n\n" in out


def test_what_cannot_be_measured(model: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(AtinukeError, match="there is nothing to measure it on"):
        evaluate_task(model, "perplexity")
    with pytest.raises(AtinukeError, match=r"`task` `stride` 9 must not be more than `length` 8"):
        evaluate_task(model, "perplexity", [data], ["task.length=8", "task.stride=9"])
    with pytest.raises(AtinukeError, match="a pretrained model cannot answer sst2 before it is trained\n"):
        evaluate_task(model, "sst2", [data])
    tiny_bert(tmp_path / "theirs")
    convert(tmp_path / "theirs", tmp_path / "bert")
    with pytest.raises(AtinukeError, match="writes no texts"):
        evaluate_task(tmp_path / "bert", "perplexity", [data])


def test_nothing_is_trained_for_it(tmp_path: Path) -> None:
    table(tmp_path / "train.txt", ("a",))
    with pytest.raises(AtinukeError, match="perplexity trains nothing: `atinuke evaluate RUN --task perplexity`"):
        load_recipe(recipe(tmp_path, {"name": "perplexity", "train": "train.txt"}))
