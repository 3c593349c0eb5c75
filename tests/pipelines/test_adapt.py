"""Runs that adapt another: what is trained, what is saved, and what it is put together with."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from atinuke.compile.front import open_graph
from atinuke.compile.lora import LoRALinear
from atinuke.compile.module import build
from atinuke.core.errors import AtinukeError
from atinuke.pipelines import checkpoint, train
from atinuke.pipelines.adapt import Adapt
from atinuke.pipelines.deploy import open_subject
from atinuke.pipelines.layers import heights
from atinuke.pipelines.loop import Outcome
from atinuke.pipelines.optimiser import build_optimiser
from atinuke.pipelines.recipe import SGD, load_recipe
from atinuke.pipelines.run import open_model

RECIPE = """\
graph: {use: gpt2, set: {vocab_size: 300, d_model: 16, heads: 2, layers: 2, dropout: 0}}
data: {train: [texts/*.txt], split: paragraph, context: 16}
tokenizer: {vocab_size: 280}
optimiser: {name: adamw, lr: 1e-2}
schedule: {name: wsd, warmup: 1}
steps: 4
batch: 2
"""
LORA = "adapt={lora: {rank: 2, alpha: 4, on: [stack.*.H.qkv], parts: [q, v]}, train: [norm.*], freeze: [norm.bias]}"
ALL = (
    "adapt={lora: {rank: 2, on: ['stack.*.F.*']}, adapters: {size: 3, after: [stack.*.F]},"
    " prefix: {length: 2, on: [stack.*.H]}}"
)
IDS = torch.arange(12).reshape(2, 6)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe, a run to begin from, and one that adapts it."""
    folder = tmp_path_factory.mktemp("adapt")
    draw = random.Random(0)
    words = ["".join(draw.choices("aeioubdgklmnrst", k=draw.randint(2, 6))) for _ in range(40)]
    (folder / "texts").mkdir()
    paragraphs = (" ".join(draw.choices(words, k=30)) for _ in range(40))
    (folder / "texts" / "one.txt").write_text("\n\n".join(paragraphs))
    (folder / "recipe.yaml").write_text(RECIPE)
    train.start(load_recipe(folder / "recipe.yaml"), folder / "base", Console(quiet=True))
    with (folder / "said.txt").open("w") as said:
        adapt(folder, "lora", LORA, "save_every=2", console=Console(file=said, width=200))
    return folder


def adapt(place: Path, name: str, *overrides: str, console: Console | None = None) -> Outcome:
    wanted = [f"tokenizer={{file: {place}/base/tokenizer.json}}", *overrides]
    recipe = load_recipe(place / "recipe.yaml", wanted)
    return train.start(recipe, place / name, console or Console(quiet=True), place / "base")


def newest(run: Path, file: str = "model.safetensors") -> dict[str, torch.Tensor]:
    return load_file(checkpoint.saved(run / "checkpoints")[-1] / file)


def test_only_what_is_trained_is_saved(place: Path) -> None:
    trained = {"norm.weight", *(f"stack.{i}.H.qkv.lora_{m}" for i in (0, 1) for m in "AB")}
    assert newest(place / "lora").keys() == trained
    states = {name.partition(".")[2] for name in newest(place / "lora", "optimiser.safetensors")}
    assert states == trained
    assert not (place / "lora" / "init.safetensors").exists()
    said = (place / "said.txt").read_text()
    assert f"training {16 + 2 * (4 * 16 + 32 * 2):,} of " in said
    assert "new 4 tensors: stack.0.H.qkv.lora_A" in said


def test_base_and_update_are_put_together(place: Path) -> None:
    adapt(place, "together", ALL)
    opened = open_model(place / "together")
    mine, base = checkpoint.weights(opened.model), newest(place / "base")
    assert all(mine[name].equal(base[name]) for name in base)
    changed = newest(place / "together")
    assert all(mine[name].equal(changed[name]) for name in changed)
    assert mine.keys() == base.keys() | changed.keys()
    assert {name.split(".")[2] for name in changed} == {"F", "F_adapter", "H"}
    assert any(tensor.any() for name, tensor in changed.items() if name.endswith("lora_B"))


def test_a_deployed_model_has_its_updates_merged(place: Path) -> None:
    run, subject = open_model(place / "lora"), open_subject(str(place / "lora"))
    assert any(isinstance(module, LoRALinear) for module in run.model.modules())
    assert not any(isinstance(module, LoRALinear) for module in subject.model.modules())
    assert not any(node.lora for node in subject.checked.graph.blocks["layer"].nodes.values())
    assert (subject.model(IDS).logits - run.model(IDS).logits).abs().max() < 1e-6


def test_it_goes_on_bit_for_bit(place: Path) -> None:
    shutil.copytree(place / "lora", place / "cut")
    shutil.rmtree(checkpoint.saved(place / "cut" / "checkpoints")[-1])
    train.resume(place / "cut", (), Console(quiet=True))
    whole, cut = newest(place / "lora"), newest(place / "cut")
    assert whole.keys() == cut.keys()
    assert all(tensor.equal(whole[name]) for name, tensor in cut.items())


def test_another_base_is_refused(place: Path) -> None:
    shutil.copytree(place / "lora", place / "moved")
    note = place / "moved" / "base.json"
    base = json.loads(note.read_text())
    other = place / "other.safetensors"
    other.write_bytes(Path(base["path"]).read_bytes()[:-1] + b"\1")
    note.write_text(json.dumps({**base, "path": str(other)}))
    with pytest.raises(AtinukeError, match="this is not the base of this run") as error:
        open_model(place / "moved")
    assert base["sha256"] in str(error.value)
    note.write_text(json.dumps({**base, "path": str(place / "gone.safetensors")}))
    with pytest.raises(AtinukeError, match="the base of this run is gone"):
        train.resume(place / "moved", ["steps=9"], Console(quiet=True))
    note.write_text("{}")
    with pytest.raises(AtinukeError, match="does not name a base"):
        open_model(place / "moved")


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ({}, "says nothing"),
        ({"freeze": ["E.*"]}, "has `freeze` without `train`"),
        ({"train": ["nose.*"]}, r"nothing is called `nose.\*`"),
        ({"train": ["*"], "freeze": ["nose.*"]}, r"nothing is called `nose.\*`"),
        ({"train": ["norm.*"], "freeze": ["norm.*"]}, "nothing would be trained"),
        ({"lora": {"rank": 2, "on": ["E.weight"]}}, r"nothing is called `E\.weight`"),
        (
            {"lora": {"rank": 2, "on": ["stack.*.F.up"]}, "train": ["E.*"], "freeze": ["stack.*.lora_A"]},
            r"`stack\.0\.F\.up\.lora_A` begins anew, so that it cannot be frozen",
        ),
    ],
)
def test_what_cannot_be_adapted_is_told(wanted: dict[str, Any], told: str) -> None:
    checked = open_graph("gpt2", ["vocab_size=64", "d_model=16", "heads=2", "layers=2"])

    def adapted() -> None:
        section = Adapt(**wanted)
        module = build(section.rewritten(checked))
        section.freeze_rest(module, [name for name, _ in module.named_parameters() if "lora" in name])

    with pytest.raises((AtinukeError, ValueError), match=told):
        adapted()


def test_there_must_be_a_whole_base(place: Path, tmp_path: Path) -> None:
    recipe = load_recipe(place / "recipe.yaml", [LORA, f"tokenizer={{file: {place}/base/tokenizer.json}}"])
    with pytest.raises(AtinukeError, match="there is nothing to adapt"):
        train.start(recipe, tmp_path / "run", Console(quiet=True))
    with pytest.raises(AtinukeError, match="is an adapted run, whose weights are not whole"):
        train.start(recipe, tmp_path / "run", Console(quiet=True), place / "lora")


def test_rates_decay_from_layer_to_layer() -> None:
    checked = open_graph("gpt2", ["vocab_size=64", "d_model=16", "heads=2", "layers=3"])
    module = build(checked)
    found = heights(checked, module)
    assert {name: found[name] for name in ("norm.weight", "P.weight", "E.weight")} == {
        "norm.weight": 0,
        "P.weight": 4,
        "E.weight": 4,
    }
    assert [found[f"stack.{i}.H.qkv.weight"] for i in range(3)] == [3, 2, 1]
    optimiser = build_optimiser(module, SGD(name="sgd", lr=1.0, layer_decay=0.5), found)
    scales = {id(p): group["scale"] for group in optimiser.param_groups for p in group["params"]}
    assert all(scales[id(p)] == 0.5 ** found[name] for name, p in module.named_parameters())


def test_heights_follow_the_longest_way() -> None:
    checked = open_graph("encoder-decoder", ["vocab_size=64", "d_model=16", "heads=2"])
    module = build(checked, device="meta")
    found = heights(checked, module)
    encoder = max(found[name] for name in found if name.startswith("encoder"))
    decoder = max(found[name] for name in found if name.startswith("decoder"))
    assert encoder > decoder > 0
    assert found.keys() == {name for name, _ in module.named_parameters()}


def test_the_loop_uses_the_scaled_rates(place: Path) -> None:
    overrides = ["optimiser={name: sgd, lr: 0.1, layer_decay: 1e-6}", "steps=2"]
    adapt(place, "decayed", "adapt={train: ['*']}", *overrides)
    before, after = newest(place / "base"), newest(place / "decayed")
    moved = {name: (after[name] - before[name]).abs().max().item() for name in after}
    assert moved["norm.weight"] > 1e-5
    assert moved["stack.0.F.up.weight"] < 1e-9
