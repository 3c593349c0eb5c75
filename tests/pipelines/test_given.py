"""Texts that are written from a source: a small encoder-decoder learns to copy, and is used in every way there is."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import Result
from typer.testing import CliRunner

from atinuke.cli import app
from atinuke.compile.front import open_graph
from atinuke.compile.module import build
from atinuke.core.errors import AtinukeError
from atinuke.pipelines.fields import Text
from atinuke.pipelines.generate import generate
from atinuke.pipelines.given import answers, read_given
from atinuke.pipelines.recipe import GraphChoice, Recipe, RowsData
from atinuke.pipelines.recipe import Tokenizer as TokenizerChoice
from atinuke.pipelines.run import Run
from atinuke.pipelines.sampling import Muted, Settings
from atinuke.pipelines.tokenizer import Tokenizer

BYTES = Tokenizer.train([], 257)  # every token is a byte, and one more ends a text
WORDS = ("go", "day", "sun", "a", "moon", "river")
SIZES = ["vocab_size=257", "d_model=32", "heads=2", "layers=1", "dropout=0", "d_ff=64"]
GREEDY = Settings(temperature=0, max_new_tokens=12)


def batch(words: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """Sources and texts as training has them: the text behind the token that ends it."""
    tokens = [BYTES.encode(word) for word in words]
    pad = torch.nn.utils.rnn.pad_sequence
    source = pad([torch.tensor(row) for row in tokens], batch_first=True)
    mask = torch.arange(source.shape[1]) < torch.tensor([[len(row)] for row in tokens])
    text = pad([torch.tensor([BYTES.end_of_text, *row]) for row in tokens], batch_first=True)
    labels = pad([torch.tensor([*row, BYTES.end_of_text]) for row in tokens], batch_first=True, padding_value=-100)
    return {"source_ids": source, "source_mask": mask, "input_ids": text, "labels": labels}


@pytest.fixture(scope="module")
def run() -> Run:
    torch.manual_seed(0)
    checked = open_graph("encoder-decoder", SIZES)
    model, rows = build(checked), batch(WORDS)
    optimiser = torch.optim.AdamW(model.parameters(), 1e-2)
    labels = rows.pop("labels")
    for _ in range(150):
        loss = torch.nn.functional.cross_entropy(model(**rows).logits.flatten(0, 1), labels.flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.02
    fields = {"source_ids": Text(column="words", length=8), "labels": Text(column="words", length=8)}
    data = RowsData.model_construct(train=None, fields=fields)
    recipe = Recipe.model_construct(graph=GraphChoice(use="x"), rows=data, tokenizer=TokenizerChoice(vocab_size=257))
    end = recipe.tokenizer.end_of_text
    return Run(
        recipe,
        checked,
        model.eval(),
        "0",
        end,
        BYTES,
        1024,
        ("source_ids", "source_mask"),
        (BYTES.end_of_text,),
        BYTES.end_of_text,
        Muted(),
    )


def test_greedy_answers_are_what_was_learnt_whatever_the_batch(run: Run) -> None:
    assert answers(run, batch(WORDS), 12) == [*WORDS]
    assert answers(run, batch(WORDS[2:4]), 12) == [*WORDS[2:4]]
    with pytest.raises(AtinukeError, match="the model needs `source_ids`"):
        answers(run, {"source_mask": torch.ones(1, 2, dtype=torch.bool)}, 12)


@pytest.mark.parametrize("beams", [1, 3])
def test_prompts_are_gone_on_with(run: Run, beams: int) -> None:
    given = read_given(run, {"source_ids": "moon"}, 3)
    settings = replace(GREEDY, beams=beams)
    shown: list[tuple[int, str]] = []
    found = generate(
        run.model, BYTES, ["", "m", "moo"], settings, 1024, lambda *piece: shown.append(piece), given=given
    )
    assert [(one.text, one.reason) for one in found] == [(text, "end_of_text") for text in ("moon", "oon", "n")]
    assert "".join(text for row, text in shown if row == 1) == "oon"


def test_what_is_given_wrongly_says_so(run: Run) -> None:
    def message(values: dict[str, str]) -> str:
        with pytest.raises(AtinukeError) as caught:
            read_given(run, values, 1)
        return str(caught.value)

    assert "the run needs `source_ids`\n  it writes from: source_ids (text)\n  to fix: --given source_ids=" in message(
        {}
    )
    assert "the run writes nothing from `labels`\n  it reads: source_ids" in message({"labels": "a"})
    assert "--given  `source_ids` is too long" in message({"source_ids": "much too long"})
    assert "`source_ids` is an empty text" in message({"source_ids": ""})
    given = read_given(run, {"source_ids": "sun"}, 2)
    with pytest.raises(AtinukeError, match="`source_ids` has 2 rows for 1 prompts"):
        generate(run.model, BYTES, [""], GREEDY, 1024, given=given)
    with pytest.raises(AtinukeError, match="the model's text does not depend on `sound`"):
        generate(run.model, BYTES, [""], GREEDY, 1024, given={"sound": torch.ones(1, 2)})


def test_the_command(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atinuke.pipelines.run.open_run", lambda folder: run)

    def said(*arguments: str) -> str:
        result = CliRunner().invoke(app, ["generate", "run", "--temperature", "0", *arguments])
        return result.stdout if result.exit_code == 0 else str(result.exception or result.output)

    assert said("--given", "source_ids=river") == "river\n"
    assert said("--given", "source_ids=river", "-p", "ri", "--beams", "2") == "river\n"
    rows = json.loads(said("--given", "source_ids=sun", "-p", "s", "-p", "su", "--json"))
    assert [row["text"] for row in rows] == ["un", "n"]
    searched = ("--given", "source_ids=go", "--beams", "3", "--best", "2", "--length-penalty", "0")
    [row] = json.loads(said(*searched, "--json"))
    assert (row["text"], len(row["others"])) == ("go", 1)
    assert row["score"] > row["others"][0]["score"]
    assert said(*searched).startswith("go\n\n")
    alone = CliRunner().invoke(
        app, ["generate", "run", "--given", "source_ids=go", "--beams", "3"]
    )  # at no temperature
    assert (alone.stdout, alone.exit_code) == ("go\n", 0)
    assert "`beams` search for the likeliest text" in said(*searched, "--temperature", "0.8")


def test_the_command_within_a_language(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("llguidance", reason="needs atinuke[constrained]")
    monkeypatch.setattr("atinuke.pipelines.run.open_run", lambda folder: run)

    def said(*arguments: str) -> Result:
        most = ("--max-new-tokens", "9", "--temperature", "0", "--given", "source_ids=river")
        return CliRunner().invoke(app, ["generate", "run", *most, *arguments])

    assert said("--choices", "sun", "--choices", "moon").stdout in ("sun\n", "moon\n")
    (tmp_path / "schema.json").write_text('{"enum": ["river", "go"]}')
    assert said("--schema", str(tmp_path / "schema.json")).stdout == '"river"\n'
    (tmp_path / "schema.json").write_text("type: object\n")
    told = str(said("--schema", str(tmp_path / "schema.json")).exception)
    assert told.startswith(f"{tmp_path / 'schema.json'}  `schema` is not JSON\n  Expecting value: line 1 column 1")
    short = said("--regex", "riverbank!")
    assert (short.stdout, short.exit_code) == ("riverbank\n", 1)
    assert short.stderr == "out of tokens before the end of text 1\n"


def test_an_optional_field_may_be_missing_and_then_its_mask_says_so(run: Run) -> None:
    field = Text(column="words", length=8, mask="source_mask", optional=True)
    rows = run.recipe.rows.model_copy(update={"fields": {"source_ids": field}})
    optional = replace(run, made=run.recipe.model_copy(update={"rows": rows}))
    given = read_given(optional, {}, 2)
    assert given["source_ids"].shape == (2, 1)
    assert not given["source_mask"].any()
    assert read_given(optional, {"source_ids": "sun"}, 2)["source_mask"].all()
