"""Pretrained models on the command line: converted, checked, written with, made ready for a bundle."""

from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from atinuke.pipelines.deploy import open_subject
from atinuke.pipelines.tokenizer import Tokenizer
from tests.pipelines.pretrained.models import ENCODERS, GPT2

PROMPT = "the cat"


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small GPT-2 of transformers with a tokenizer."""
    folder = tmp_path_factory.mktemp("gpt2")
    tokenizer = Tokenizer.train(["the cat sat on the mat", "the cat sat on the hat"], 262)
    tokenizer.save(folder / "tokenizer.json")
    torch.manual_seed(0)
    end = {"bos_token_id": tokenizer.end_of_text, "eos_token_id": tokenizer.end_of_text}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=262, **end, **GPT2))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def model(gpt2: Path, tmp_path: Path, run) -> Path:  # type: ignore[no-untyped-def]
    code, out, err = run("convert", gpt2, tmp_path / "model")
    assert code == 0, err
    assert "GPT2LMHeadModel as graph gpt2" in out
    assert "takes input_ids: int64[batch, sequence]" in out
    return tmp_path / "model"


def test_goes_on_as_transformers_does(gpt2: Path, model: Path, run) -> None:  # type: ignore[no-untyped-def]
    theirs = transformers.GPT2LMHeadModel.from_pretrained(gpt2).eval()
    tokenizer = Tokenizer.load(gpt2 / "tokenizer.json")
    ids = torch.tensor([tokenizer.encode(PROMPT)])
    wanted = theirs.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)
    wanted = wanted[0, ids.shape[1] :].tolist()
    assert tokenizer.end_of_text not in wanted
    arguments = ("-p", PROMPT, "--temperature", "0", "--max-new-tokens", "8")
    code, out, err = run("generate", model, *arguments)
    assert code == 0, err
    assert out == PROMPT + tokenizer.decode(wanted) + "\n"


def test_is_checked_and_ready_for_a_bundle(model: Path, run) -> None:  # type: ignore[no-untyped-def]
    code, out, err = run("check", model)
    assert code == 0, err
    assert "gives logits: float[batch, sequence, 262]" in out
    code, _, err = run("evaluate", model)
    assert code == 2
    assert "was not trained on a task" in err
    assert "name one with --task" in err
    subject = open_subject(str(model), ["batch=1..2"])
    assert subject.text is not None
    assert (subject.text.end_of_text, subject.text.context, subject.text.begins) == ("<|endoftext|>", 30, False)
    assert subject.tokenizer == model / "tokenizer.json"


def test_only_runs_have_a_recipe(model: Path, run) -> None:  # type: ignore[no-untyped-def]
    code, _, err = run("look", model, "E")
    assert code == 2
    assert err == "is a pretrained model, which has no recipe\n  to fix: name the folder of a run\n"


def test_says_what_is_not_read(tmp_path: Path, run) -> None:  # type: ignore[no-untyped-def]
    ENCODERS["bert masked"].save(tmp_path / "bert")
    file = tmp_path / "bert" / "model.safetensors"
    save_file({**load_file(file), "cls.seq_relationship.bias": torch.ones(2)}, file)
    code, out, err = run("convert", tmp_path / "bert", tmp_path / "model")
    assert code == 0, err
    assert "not read: cls.seq_relationship.bias" in out
    code, _, err = run("convert", tmp_path / "model", tmp_path / "b", "--to", "huggingface", "--family", "bert")
    assert code == 2
    assert "a model folder has its own family file" in err
