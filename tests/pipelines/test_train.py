import random
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import nn

from atinuke import graphs
from atinuke.compile.front import open_graph
from atinuke.compile.module import build
from atinuke.core.errors import AtinukeError
from atinuke.pipelines import checkpoint, feed_text, log, train
from atinuke.pipelines.loop import Loop, Outcome
from atinuke.pipelines.recipe import load_recipe

RECIPE = """\
graph: {use: experts, set: {vocab_size: 1000, d_model: 16, heads: 2, layers: 2, experts: 2}}
data: {train: [texts/*.txt], validation_fraction: 0.3, split: paragraph, context: 16}
tokenizer: {vocab_size: 280}
objective: {name: causal, losses: {balance_loss: 0.01}}
optimiser: {name: adamw, lr: 1e-2}
schedule: {name: wsd, warmup: 2}
steps: 12
batch: 4
evaluate_every: 4
save_every: 3
"""


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A folder with a recipe and a few texts of made-up words."""
    draw = random.Random(0)
    words = ["".join(draw.choices("aeioubdgklmnrst", k=draw.randint(2, 6))) for _ in range(40)]
    (tmp_path / "texts").mkdir()
    for name in ("one.txt", "two.txt"):
        paragraphs = (" ".join(draw.choices(words, k=30)) for _ in range(30))
        (tmp_path / "texts" / name).write_text("\n\n".join(paragraphs))
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    experts = graphs.path("experts").read_text()
    (tmp_path / "fixed.yaml").write_text(experts.replace("int64[batch, sequence]", "int64[batch, 8]"))
    stacked = experts.replace("balance_loss: balance}", "balance_loss: stack.balance_loss}")
    stacked = "".join(line for line in stacked.splitlines(keepends=True) if "use: mean" not in line)
    (tmp_path / "stacked.yaml").write_text(stacked)
    return tmp_path


def start(corpus: Path, name: str, *overrides: str) -> Outcome:
    return train.start(load_recipe(corpus / "recipe.yaml", overrides), corpus / name, Console(quiet=True))


def resume(corpus: Path, name: str, *overrides: str) -> Outcome:
    return train.resume(corpus / name, overrides, Console(quiet=True))


def weights(folder: Path) -> bytes:
    return (checkpoint.saved(folder / "checkpoints")[-1] / "model.safetensors").read_bytes()


def test_a_recipe_becomes_a_run(corpus: Path) -> None:
    assert start(corpus, "run") == Outcome(corpus / "run", 12)
    assert {path.name for path in (corpus / "run").iterdir()} == {
        *("recipe.yaml", "graph.yaml", "tokenizer.json"),
        *("log.jsonl", "tensorboard", "loss.png", "checkpoints"),
    }
    assert load_recipe(corpus / "run" / "recipe.yaml") == load_recipe(corpus / "recipe.yaml")
    records = log.read(corpus / "run" / "log.jsonl")
    assert {"loss", "balance_loss", "mfu", "tokens_per_second"} <= records[0].keys()
    assert {"validation_loss", "perplexity", "bits_per_byte"} <= records[-1].keys()
    assert records[-1]["validation_loss"] < records[0]["loss"] - 0.5


def test_its_weights_fit_the_graph_that_was_asked_for(corpus: Path) -> None:
    start(corpus, "run")
    module = build(open_graph(str(corpus / "run" / "graph.yaml")))
    file = checkpoint.saved(corpus / "run" / "checkpoints")[-1] / "model.safetensors"
    checkpoint.load_weights(module, file)
    assert load_file(file).keys() == checkpoint.weights(module).keys()
    assert module(torch.zeros(1, 5, dtype=torch.int64)).logits.isfinite().all()


def test_an_interrupted_run_ends_with_the_same_bits(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start(corpus, "whole")
    step: Callable[[Loop], None] = Loop._train
    monkeypatch.setattr(Loop, "_train", lambda loop: 1 / 0 if loop.step == 8 else step(loop))
    with pytest.raises(ZeroDivisionError):
        start(corpus, "cut")
    monkeypatch.undo()
    assert resume(corpus, "cut") == Outcome(corpus / "cut", 12)
    assert weights(corpus / "cut") == weights(corpus / "whole")


def test_what_was_cut_off_before_the_first_step_is_made_up_for(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start(corpus, "whole")
    monkeypatch.setattr(feed_text, "run_tokenizer", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        start(corpus, "cut")
    monkeypatch.undo()
    assert resume(corpus, "cut").step == 12
    assert weights(corpus / "cut") == weights(corpus / "whole")


def test_a_run_can_be_made_longer_but_not_another(corpus: Path) -> None:
    start(corpus, "run")
    assert resume(corpus, "run").step == 12
    assert resume(corpus, "run", "steps=14").step == 14
    assert resume(corpus, "run").step == 14
    with pytest.raises(AtinukeError, match="`graph` of a run cannot be changed"):
        resume(corpus, "run", "graph.set.layers=3")
    with pytest.raises(AtinukeError, match="unknown key `step`"):
        resume(corpus, "run", "step=3")
    with pytest.raises(AtinukeError, match="holds a run already"):
        start(corpus, "run")
    with pytest.raises(AtinukeError, match="holds no run"):
        resume(corpus, "elsewhere")


def test_what_would_not_be_the_same_run_is_refused(corpus: Path) -> None:
    start(corpus, "run", "steps=4")
    for override, message in (
        ("optimiser={name: sgd, lr: 1e-2}", "`optimiser.name` of a run cannot be changed"),
        ("steps=3", "the run is at step 4 already, beyond `steps` 3"),
    ):
        with pytest.raises(AtinukeError, match=message):
            resume(corpus, "run", override)
    assert load_recipe(corpus / "run" / "recipe.yaml").steps == 4


def test_changed_texts_are_refused(corpus: Path) -> None:
    start(corpus, "run")
    with (corpus / "texts" / "one.txt").open("a") as file:
        file.write("\n\nmore words that were not there before")
    with pytest.raises(AtinukeError, match="the position is not one in this data"):
        resume(corpus, "run", "steps=14")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("graph.use=atinukee", "no graph file `.*atinukee`\n(.|\n)*use `atinuke`"),
        ("graph.set.layer=3", "no dim or axis `layer`\n(.|\n)*use `layers`"),
        ("graph.set.vocab_size=270", "room for 270 tokens, but the tokenizer has 280"),
        ("graph.set.heads=3", "16 is not a multiple of heads 3"),
        ("graph.use=fixed.yaml", "the graph reads 8, but `data.context` is 16"),
        ("graph.use=stacked.yaml", "output `balance_loss` is no loss: it must be a single number"),
        ("objective.losses={balanced_loss: 1}", "no output `balanced_loss`(.|\n)*use `balance_loss`"),
        ("data.context=2000", r"axis `sequence` must be 1..1024\n  got 2000"),
        ("graph.set.d_model=200000", "weights, gradients, optimiser and batches need"),
        ("data.train=[nowhere/*.txt]", "there is no such file"),
        ("tokenizer.vocab_size=999", "these texts support a vocabulary of"),
        ("tokenizer={file: recipe.yaml}", "recipe.yaml"),
    ],
)
def test_what_does_not_fit_is_one_error_and_the_folder_can_be_used_again(
    corpus: Path, override: str, message: str
) -> None:
    with pytest.raises(AtinukeError, match=message) as caught:
        start(corpus, "run", override)
    assert len(caught.value.mistakes) == 1
    assert not list((corpus / "run").rglob("*.partial"))
    assert start(corpus, "run", "steps=3").step == 3


def test_progress_says_what_a_person_wants_to_know(corpus: Path) -> None:
    screen = StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    train.start(load_recipe(corpus / "recipe.yaml"), corpus / "run", console)
    text = screen.getvalue()
    for word in ("12/12", "loss", "lr", "tokens/s", "MFU", "validation loss", "bits per byte"):
        assert word in text


def test_blocks_are_checkpointed_in_a_real_graph(corpus: Path) -> None:
    start(corpus, "plain")
    start(corpus, "kept", "activation_checkpointing=true")
    assert weights(corpus / "plain") == weights(corpus / "kept")


def test_a_run_can_begin_with_the_weights_of_another(corpus: Path) -> None:
    start(corpus, "first")
    first = load_file(checkpoint.saved(corpus / "first" / "checkpoints")[-1] / "model.safetensors")
    shown = StringIO()
    same_tokens = (
        "tokenizer={file: first/tokenizer.json}",
        "graph.swap={layer.norm1: norm.rms}",
        "steps=1",
        "schedule.warmup=0",
    )
    recipe = load_recipe(corpus / "recipe.yaml", (*same_tokens, "optimiser.lr=1e-9", "schedule.decay=0"))
    train.start(recipe, corpus / "second", Console(file=shown, width=300), init=corpus / "first")
    second = load_file(checkpoint.saved(corpus / "second" / "checkpoints")[-1] / "model.safetensors")
    gone = {"stack.0.norm1.bias", "stack.1.norm1.bias"}
    assert first.keys() - second.keys() == gone
    assert all(torch.allclose(second[name], first[name], atol=1e-6) for name in second)
    assert f"kept {len(second)} tensors: E.weight" in shown.getvalue()
    assert "dropped 2 tensors: stack.0.norm1.bias, stack.1.norm1.bias" in shown.getvalue()
    assert "new 0 tensors" in shown.getvalue()
    before = weights(corpus / "second")
    resume(corpus, "second", "steps=2")  # goes on from its own checkpoint
    assert weights(corpus / "second") != before


@pytest.mark.parametrize(
    ("init", "overrides", "message"),
    [
        ("nowhere", (), "nowhere  has no checkpoint to begin from\n"),
        ("first", (), "first  the weights to begin with belong to another tokenizer\n  to fix: write into the recipe"),
    ],
)
def test_weights_that_cannot_be_begun_with(corpus: Path, init: str, overrides: tuple[str, ...], message: str) -> None:
    if init == "first":
        start(corpus, "first", "steps=3")
    with pytest.raises(AtinukeError) as caught:
        train.start(load_recipe(corpus / "recipe.yaml", overrides), corpus / "run", Console(quiet=True), corpus / init)
    assert message in str(caught.value)


def test_two_seeds_differ_and_one_does_not(corpus: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        start(corpus, name, f"seed={seed}")
    assert weights(corpus / "a") == weights(corpus / "b") != weights(corpus / "c")
    assert isinstance(build(open_graph(str(corpus / "a" / "graph.yaml"))), nn.Module)


@pytest.mark.slow
def test_a_compiled_run_follows_the_eager_one(corpus: Path) -> None:
    """With activation checkpoints; without dropout, whose draws the compiler makes differently."""
    same = ("graph.use=atinuke", "graph.set={vocab_size: 1000, d_model: 16, heads: 2, layers: 3, dropout: 0}")
    same = (*same, "objective={name: causal}", "activation_checkpointing=true")
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    start(corpus, "eager", *same)
    assert not torch._dynamo.utils.counters["stats"]
    start(corpus, "compiled", *same, "compile=blocks")
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 1
    assert not torch._dynamo.utils.counters["graph_break"]
    eager, compiled = (log.read(corpus / name / "log.jsonl") for name in ("eager", "compiled"))
    for left, right in zip(eager, compiled, strict=True):
        for name in {"loss", "gradient_norm", "validation_loss"} & left.keys():
            assert left[name] == pytest.approx(right[name], rel=1e-3)
