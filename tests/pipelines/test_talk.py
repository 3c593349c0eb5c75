"""Instruction tuning: only answers are learnt, and a trained run answers by its template, through the command line."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

from atinuke.cli import app
from atinuke.core.errors import AtinukeError
from atinuke.pipelines import train
from atinuke.pipelines.collate import collate
from atinuke.pipelines.fields import Chat, decode
from atinuke.pipelines.objective import Making
from atinuke.pipelines.objective_text import Answers
from atinuke.pipelines.recipe import load_recipe
from atinuke.pipelines.rows import Row
from atinuke.pipelines.run import open_run
from tests.pipelines import chats

PAIRS = {"sun": "day", "moon": "night", "hen": "egg", "bee": "honey"}
RECIPE = """
graph:
  use: llama
  set: {vocab_size: 263, d_model: 48, heads: 2, kv_heads: 2, d_ff: 96, layers: 2}
rows:
  train: {name: manifest, files: [talk.jsonl]}
  fields:
    input_ids: {name: chat, column: messages, file: chat_template.jinja, length: 80}
objective: {name: answers}
tokenizer: {file: tokenizer.json}
optimiser: {name: adamw, lr: 1e-2}
schedule: {name: cosine, final: 1.0}
steps: 60
batch: 4
save_every: 60
"""


def conversation(*said: str) -> list[dict[str, str]]:
    roles = ("user", "assistant") * len(said)
    return [{"role": role, "content": text} for role, text in zip(roles, said, strict=False)]


def field(**changes: object) -> Chat:
    return Chat.model_validate({"column": "messages", "template": chats.CHATML, "length": 200, **changes})


@settings(max_examples=20)
@given(st.lists(st.lists(st.text("ab ", max_size=6), min_size=2, max_size=5), min_size=1, max_size=3), st.booleans())
def test_labels_are_the_next_tokens_where_the_assistant_says_them(rows: list[list[str]], masked: bool) -> None:
    chat = field(multiple=8)
    examples = [
        {"input_ids": decode(chat, Row({"messages": conversation(*said)}, "row", Path()), chats.BYTES)} for said in rows
    ]
    inputs = {"input_ids", "labels", *(["input_ids_mask"] if masked else [])}
    making = Making(frozenset(inputs), {"input_ids": "input_ids_mask"}, chats.BYTES)
    objective = Answers(name="answers")
    batch = objective.batch(collate(examples, {"input_ids": chat}), range(len(rows)), making)
    given_ = {"input_ids": ("int64", 2), "input_ids_mask": ("bool", 2), "answers": ("int64", 2)}
    assert batch.keys() == inputs == objective.gives(given_, making).keys()
    for row, example in enumerate(examples):
        tokens, said = example["input_ids"]
        assert batch["input_ids"][row, : len(tokens)].tolist() == tokens.tolist()
        expected = [token if mine else -100 for token, mine in zip(tokens[1:], said[1:], strict=True)]
        rest = batch["labels"].shape[1] - len(expected)
        assert batch["labels"][row].tolist() == expected + [-100] * rest


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has learnt to answer four words."""
    folder = tmp_path_factory.mktemp("talk")
    rows = [{"messages": conversation(asked, said)} for asked, said in PAIRS.items()]
    (folder / "talk.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "chat_template.jinja").write_text(chats.CHATML)
    chats.BYTES.save(folder / "tokenizer.json")
    (folder / "recipe.yaml").write_text(RECIPE)
    train.start(load_recipe(folder / "recipe.yaml"), folder / "run", Console(quiet=True))
    (folder / "chat_template.jinja").unlink()  # the run has its own
    return folder / "run"


def said(run: Path, *arguments: str, stdin: str | None = None) -> str:
    most = ("--chat", "--temperature", "0", "--max-new-tokens", "12")
    result = CliRunner().invoke(app, ["generate", str(run), *most, *arguments], input=stdin)
    return result.stdout if result.exit_code == 0 else str(result.exception or result.output)


def test_a_run_answers(run: Path) -> None:
    assert [said(run, "-p", asked) for asked in PAIRS] == [f"{answer}\n" for answer in PAIRS.values()]
    found = json.loads(said(run, "-p", "sun", "-p", "hen", "--json"))
    assert [(one["prompt"], one["text"], one["reason"]) for one in found] == [
        ("sun", "day", "end_of_text"),
        ("hen", "egg", "end_of_text"),
    ]
    assert said(run, "-p", "bee", "--beams", "3") == "honey\n"


def test_a_conversation_line_by_line(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[list[dict[str, str]]] = []
    prompt = chats.Template.prompt
    monkeypatch.setattr(
        chats.Template, "prompt", lambda self, messages, t: heard.append([*messages]) or prompt(self, messages, t)
    )
    first, second = said(run, "--system", "Be brief", stdin="moon\n\nhen\n").splitlines()
    system = {"role": "system", "content": "Be brief"}
    assert heard == [[system, *conversation("moon")], [system, *conversation("moon", first, "hen")]]
    assert second is not None


def test_what_users_say_is_not_learnt(run: Path) -> None:
    """The loss of the first token of a question stays what it is for a model that never saw one."""
    found = open_run(run)
    assert found.begin == ()
    tokens = chats.ours("chatml").conversation(conversation("sun", "day"), chats.BYTES)
    with torch.inference_mode():
        likelihood = found.model(input_ids=torch.from_numpy(tokens[:1])).logits[0].log_softmax(-1)
    scores = likelihood[torch.arange(tokens.shape[1] - 1), torch.from_numpy(tokens[0, 1:])]
    mine = torch.from_numpy(tokens[1, 1:]) == 1
    assert scores[mine].mean() > -0.1
    assert scores[~mine].mean() < -2


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"length": 20}, "is too long\n  "),
        ({"length": 12, "cut": True}, "has no answer in its first 12 tokens"),
    ],
)
def test_conversations_that_do_not_fit(changes: dict[str, object], told: str) -> None:
    row = Row({"messages": conversation("What is it?", "It is this.")}, "row", Path())
    with pytest.raises(AtinukeError, match=told):
        decode(field(**changes), row, chats.BYTES)
    with pytest.raises(AtinukeError, match="which needs a tokenizer"):
        decode(field(), row)


def test_a_recipe_with_a_text_where_a_conversation_should_be(run: Path) -> None:
    changed = ["rows.fields.input_ids={name: text, column: messages, length: 80}"]
    (run.parent / "chat_template.jinja").write_text(chats.CHATML)
    recipe = load_recipe(run.parent / "recipe.yaml", changed)
    with pytest.raises(AtinukeError, match="objective answers needs a chat field `input_ids`"):
        train.start(recipe, run.parent / "other", Console(quiet=True))


def test_a_run_that_knows_no_conversations(run: Path) -> None:
    assert "is part of a conversation" in str(
        CliRunner().invoke(app, ["generate", str(run), "-p", "a", "--system", "b"]).exception
    )
    assert "is not written from anything else" in said(run, "-p", "a", "--given", "x=y")
