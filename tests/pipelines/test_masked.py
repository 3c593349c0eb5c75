"""BERT's objective: the shares that are chosen, what becomes of them, that only they count, that all is repeated."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from rich.console import Console

from atinuke.compile.front import open_graph
from atinuke.compile.module import build
from atinuke.core.errors import AtinukeError
from atinuke.pipelines import log, train
from atinuke.pipelines.loop import Loop
from atinuke.pipelines.objective import Making
from atinuke.pipelines.objective_text import MASK, Masked
from atinuke.pipelines.recipe import load_recipe
from atinuke.pipelines.tokenizer import Tokenizer
from tests.pipelines.corpora import TEXTS, trained

MASKED = Masked(name="masked", mask_token=1000)
INPUTS = frozenset({"input_ids", "attention_mask", "segment_ids", "labels"})
SMALL = ["vocab_size=1001", "d_model=16", "heads=2", "layers=1", "length=32", "sequence=1..32", "dropout=0"]


def making(seed: int = 0, training: bool = True) -> Making:
    return Making(INPUTS, {"input_ids": "attention_mask"}, trained(), seed, training)


def windows(rows: int, length: int) -> dict[str, torch.Tensor]:
    """Texts without special tokens, the last quarter of each row padding."""
    tokens = torch.randint(1, 1000, (rows, length), generator=torch.Generator().manual_seed(3))
    return {"input_ids": tokens, "labels": tokens.where(torch.arange(length) < 3 * length // 4, -100)}


def test_the_shares() -> None:
    batch = windows(400, 200)
    made = MASKED.windows(batch, range(400), making())
    chosen, tokens = made["labels"] != -100, batch["input_ids"]
    assert set(made) == INPUTS
    assert made["attention_mask"].equal(batch["labels"] != -100)
    assert not made["segment_ids"].any()
    assert (chosen.sum(1) == round(0.15 * 150)).all()
    assert not (chosen & ~made["attention_mask"]).any()
    assert made["labels"][chosen].equal(tokens[chosen])
    assert made["input_ids"][~chosen].equal(tokens[~chosen])
    count, given = int(chosen.sum()), made["input_ids"][chosen]
    hidden, stays = int((given == 1000).sum()) / count, int((given == tokens[chosen]).sum()) / count
    deviation = lambda share: 5 * (share * (1 - share) / count) ** 0.5  # noqa: E731
    assert abs(hidden - 0.8) < deviation(0.8)
    assert abs(stays - 0.1) < deviation(0.1) + 1e-3
    swapped = given[(given != 1000) & (given != tokens[chosen])]
    assert swapped.unique().numel() > 500  # of the whole vocabulary
    places = chosen.sum(0)[:150].double()
    assert (places.mean() * 0.5 < places).all()
    assert (places < places.mean() * 1.6).all()


def test_special_tokens_are_never_chosen_and_one_token_always_is() -> None:
    end = trained().end_of_text
    tokens = torch.tensor([[end, 5, end], [end, end, end]])
    batch = {"input_ids": tokens, "attention_mask": torch.ones(2, 3, dtype=torch.bool)}
    made = MASKED.batch(batch, [0, 1], making())
    assert made["labels"].tolist() == [[-100, 5, -100], [-100] * 3]
    assert batch["input_ids"].equal(tokens)


def test_what_is_chosen_follows_from_seed_and_number_alone() -> None:
    batch = windows(6, 40)
    whole = MASKED.windows(batch, range(10, 16), making())
    part = MASKED.windows({name: tensor[2:4] for name, tensor in batch.items()}, [12, 13], making())
    for name, tensor in part.items():
        assert tensor.equal(whole[name][2:4])
    for other in (making(seed=1), making(training=False)):
        assert not MASKED.windows(batch, range(10, 16), other)["labels"].equal(whole["labels"])
    assert not MASKED.windows(batch, range(20, 26), making())["labels"].equal(whole["labels"])


def test_only_what_is_chosen_counts() -> None:
    checked = open_graph("encoder", SMALL)
    torch.manual_seed(0)
    module, plain = build(MASKED.trained(checked)).eval(), build(checked).eval()
    plain.load_state_dict(module.state_dict())
    made = MASKED.windows(windows(4, 20), range(4), making())
    logits = plain(**{name: tensor for name, tensor in made.items() if name != "labels"}).logits
    chosen = made["labels"] != -100
    expected = F.cross_entropy(logits[chosen], made["labels"][chosen])
    torch.testing.assert_close(module(**made).loss, expected)


RECIPE = f"""
graph: {{use: encoder, set: {{{", ".join(SMALL).replace("=", ": ")}}}}}
data: {{train: [texts.jsonl], validation_fraction: 0.3, context: 16}}
tokenizer: {{vocab_size: 1000}}
objective: {{name: masked}}
optimiser: {{name: adamw, lr: 1e-2}}
schedule: {{name: cosine, warmup: 1}}
steps: 6
batch: 4
evaluate_every: 3
save_every: 2
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [json.dumps({"text": text}) + "\n" for text in TEXTS[:60]]
    (tmp_path / "texts.jsonl").write_text("".join(rows))
    short = [json.dumps({"text": " ".join(text.split()[:5])}) + "\n" for text in TEXTS[:40]]
    (tmp_path / "rows.jsonl").write_text("".join(short))
    trained().save(tmp_path / "tokenizer.json")
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


def start(folder: Path, name: str, *overrides: str) -> list[dict[str, float]]:
    train.start(load_recipe(folder / "recipe.yaml", overrides), folder / name, Console(quiet=True))
    return log.read(folder / name / "log.jsonl")


def weights(folder: Path) -> bytes:
    return (sorted((folder / "checkpoints").iterdir())[-1] / "model.safetensors").read_bytes()


ROWS = (
    "data=null",
    "rows={train: {name: manifest, files: [rows.jsonl]}, validation: {name: manifest, files: [rows.jsonl]}, fields: "
    "{input_ids: {name: text, column: text, length: 32, cut: true, mask: attention_mask, segments: segment_ids}}}",
)


@pytest.mark.parametrize("data", [(), ROWS])
def test_a_resumed_run_ends_with_the_same_bits(
    folder: Path, data: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    more = (*data, "tokenizer={file: tokenizer.json}", "objective.mask_token=1000")
    records = start(folder, "whole", *more)
    assert {"loss", "tokens_per_second" if not data else "rows_per_second"} <= records[0].keys()
    assert "perplexity" not in records[-1]
    step = Loop._train
    monkeypatch.setattr(Loop, "_train", lambda loop: 1 / 0 if loop.step == 5 else step(loop))
    with pytest.raises(ZeroDivisionError):
        start(folder, "cut", *more)
    monkeypatch.undo()
    train.resume(folder / "cut", (), Console(quiet=True))
    assert weights(folder / "cut") == weights(folder / "whole")


def test_a_tokenizer_of_the_run_has_the_mask_token_and_others_must(folder: Path) -> None:
    start(folder, "run", "steps=2", "schedule.warmup=0")
    assert MASK in Tokenizer.load(folder / "run" / "tokenizer.json").special
    with pytest.raises(AtinukeError, match=r"no special token `<\|mask\|>` to hide others with\n.*<\|endoftext\|>"):
        start(folder, "file", "tokenizer={file: tokenizer.json}")
    with pytest.raises(AtinukeError, match="room for 1,001 tokens, but the tokenizer has 1,002"):
        start(folder, "beyond", "tokenizer={file: tokenizer.json}", "objective.mask_token=1001")
    with pytest.raises(AtinukeError, match=r"the number 999 is that of a token.*\n.*let it be 1000 or more"):
        start(folder, "within", "tokenizer={file: tokenizer.json}", "objective.mask_token=999")


def test_numbers_are_not_those_of_the_order_of_an_epoch() -> None:
    assert making().random(0).random() != np.random.default_rng([0, 0]).random()
