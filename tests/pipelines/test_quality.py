"""The table of a bundle with a quantised build: size, speed and the run's own figure."""

import copy
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from atinuke.compile.programs import programs
from atinuke.pipelines import train
from atinuke.pipelines.collate import collate
from atinuke.pipelines.deploy import Subject, compile_bundle, open_subject
from atinuke.pipelines.deployed_model import DeployedModel
from atinuke.pipelines.quality import NO_RUN, with_quality
from atinuke.pipelines.recipe import load_recipe
from atinuke.pipelines.tokenizer import Tokenizer
from atinuke.pipelines.validation import open_validation
from atinuke.runtime.bundle import Bundle
from atinuke.runtime.parity import Parity, read_parity
from atinuke.runtime.quality import Measured
from tests.pipelines import senses
from tests.pipelines.test_real import TEXTS

for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package)

BUILDS = ["onnx/fp32", "onnx/int8"]
SAID = "Quite another text, which goes on and on and on. "
WINDOW = 16


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Subject, Bundle]:
    folder = tmp_path_factory.mktemp("rows")
    run = senses.make(folder, "classification", "steps=20")
    subject = open_subject(str(run), ["batch=1..3"])
    return run, subject, compile_bundle(subject, BUILDS, folder / "bundle", seconds=0.5)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Bundle]:
    folder = tmp_path_factory.mktemp("texts")
    (folder / "train.txt").write_text("One word after another, and so on. " * 40)
    (folder / "held-out.txt").write_text(SAID * 4)
    (folder / "recipe.yaml").write_text(TEXTS)
    train.start(load_recipe(folder / "recipe.yaml"), folder / "run", Console(quiet=True))
    subject = open_subject(str(folder / "run"), ["batch=1..2", f"sequence=1..{WINDOW}"])
    return folder / "run", compile_bundle(subject, BUILDS, folder / "bundle", seconds=0.5)


def told(bundle: Bundle) -> tuple[Parity, dict[str, Measured]]:
    parity = read_parity(bundle.folder / "parity.json")
    return parity, {build.name: build.quality for build in parity.builds if build.quality}


def test_the_accuracy_of_a_build_is_that_of_its_runner(rows: tuple[Path, Subject, Bundle]) -> None:
    run, _, bundle = rows
    parity, measured = told(bundle)
    assert parity.quality is not None
    assert (parity.quality.metric, parity.quality.said) == ("accuracy", "23 of 23 validation rows")
    assert list(measured) == BUILDS
    held = open_validation(run, (), Console(quiet=True))
    for name, one in measured.items():
        runner, right = bundle.runner(name), 0
        ports = [port.name for port in runner.programs["forward"].inputs]
        for at in range(len(held.examples)):
            batch = collate([held.examples[at]], held.examples.fields)
            scores = runner.run("forward", {port: batch[port].numpy() for port in ports})["logits"]
            right += int(scores.argmax()) == int(batch["labels"])
        assert one.value == pytest.approx(right / 23)
        assert one.low is not None
        assert one.low < right / 23
        assert one.size == sum(file.stat().st_size for file in bundle.place(name).iterdir())
        assert min(one.milliseconds, one.faster) > 0
    card = (bundle.folder / "README.md").read_text()
    assert "| build | size | a call | speed | accuracy |" in card
    assert "| model, float32 |" in card


def test_the_bits_of_a_token_are_those_of_its_runner(texts: tuple[Path, Bundle]) -> None:
    run, bundle = texts
    parity, measured = told(bundle)
    assert parity.quality is not None
    assert parity.quality.metric == "bits per token"
    tokenizer = Tokenizer.load(run / "tokenizer.json", "<|endoftext|>")
    tokens = [*tokenizer.encode(SAID * 4), tokenizer.end_of_text]
    ring = [tokens[-1], *tokens]  # the first token follows the last one
    for name, one in measured.items():
        runner, bits = bundle.runner(name), []
        for at, label in enumerate(tokens):
            piece = ring[at - at % WINDOW : at + 1]
            feeds = {
                "input_ids": np.array([piece]),
                "position": np.array([0]),
                "last": np.array([len(piece) - 1]),
            }
            memory = runner.begin("prefill", {"batch": 1, "capacity": WINDOW})
            scores = torch.from_numpy(runner.step("prefill", feeds, memory)["logits"][0, 0]).double()
            bits.append(-float(scores.log_softmax(0)[label]) / math.log(2))
        # int8 measures the range of all that is read at once: a token alone and a whole piece are rounded otherwise
        assert one.value == pytest.approx(np.mean(bits), rel=1e-4 if name == "onnx/fp32" else 1e-2)
    assert parity.quality.model.value == pytest.approx(measured["onnx/fp32"].value, rel=1e-5)


def test_a_ruined_build_has_a_worse_figure(rows: tuple[Path, Subject, Bundle], tmp_path: Path) -> None:
    from atinuke.compile.backends.onnx import OnnxBuilder
    from atinuke.compile.builder import Work
    from atinuke.compile.samples import draw, example

    _, subject, bundle = rows
    parity, before = told(bundle)
    noise = copy.deepcopy(subject.model)
    torch.manual_seed(0)
    for weight in noise.parameters():
        torch.nn.init.normal_(weight)
    made = programs(subject.checked, noise)
    inputs = {name: draw(subject.checked, one, example(one.axes)) for name, one in made.items()}
    ruined = Bundle(tmp_path, *(value for name, value in vars(bundle).items() if name != "folder"))
    (tmp_path / "model.safetensors").write_bytes((bundle.folder / "model.safetensors").read_bytes())
    for name in BUILDS:
        ruined.place(name).mkdir(parents=True)
        OnnxBuilder().build(Work(made, inputs, name.split("/")[1]), ruined.place(name))
    assert subject.run is not None
    sound = programs(subject.checked, subject.model)
    after = with_quality(parity, ruined, sound, (*subject.run, subject.checked), lambda *_: None)
    assert after.quality is not None
    assert after.quality.model.value == parity.quality.model.value  # type: ignore[union-attr]
    for build in after.builds:
        assert build.quality.value < before[build.name].value - 0.1  # type: ignore[union-attr, operator]


def test_what_has_no_figure_says_why(rows: tuple[Path, Subject, Bundle]) -> None:
    _, subject, bundle = rows
    parity, _ = told(bundle)
    made = programs(subject.checked, subject.model)
    fresh = with_quality(parity, bundle, made, None, lambda *_: None)
    assert fresh.quality is not None
    assert (fresh.quality.metric, fresh.quality.said) == (None, NO_RUN)
    assert all(build.quality and build.quality.value is None for build in fresh.builds)
    assert subject.run is not None
    trained, folder = subject.run
    assert trained.recipe.rows is not None
    lacking = trained.recipe.rows.model_copy(update={"validation": None})
    without = replace(trained, made=trained.recipe.model_copy(update={"rows": lacking}))
    said = with_quality(parity, bundle, made, (without, folder, subject.checked), lambda *_: None)
    assert said.quality is not None
    assert "comes without a figure; to have it, name rows in `rows.validation` of" in said.quality.said


def test_any_number_of_rows_goes_through_a_build(rows: tuple[Path, Subject, Bundle]) -> None:
    """The bundle takes three rows at once; each of seven has the answer that it has alone."""
    run, _, bundle = rows
    held = open_validation(run, (), Console(quiet=True))
    batch = collate([held.examples[at] for at in range(7)], held.examples.fields)
    model = DeployedModel(bundle.runner("onnx/fp32"))
    whole = model(**batch).logits
    alone = [model(**{name: tensor[at : at + 1] for name, tensor in batch.items()}).logits for at in range(7)]
    assert whole.shape == (7, 3)
    torch.testing.assert_close(whole, torch.cat(alone))
