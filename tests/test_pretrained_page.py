"""docs/pretrained.md says what works: its files are written, its commands and its Python run, on small models."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import nn

from atinuke.pipelines import tokenizer
from atinuke.pipelines.run import open_run
from tests.cli.conftest import run  # noqa: F401 - a fixture
from tests.pipelines.pretrained.models import BERT, GPT2
from tests.test_imports import ROOT

PAGE = ROOT / "docs" / "pretrained.md"
SMALL = ["steps=2", "batch=2", "schedule.warmup=0", "data.context=16"]
TEXTS = ["the cat sat on the mat", "A man plays the guitar. Someone makes music. Stocks fell on Tuesday."]


def save(model: nn.Module, folder: str) -> None:
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)


@pytest.fixture
def models_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folders that the page begins with."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    bytelevel = tokenizer.Tokenizer.train(TEXTS, 260)
    ends = {"bos_token_id": bytelevel.end_of_text, "eos_token_id": bytelevel.end_of_text}
    save(transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=260, **ends, **GPT2)), "gpt2")
    small = {"hidden_size": 24, "word_embed_proj_dim": 24, "num_attention_heads": 3, "ffn_dim": 20}
    opt = transformers.OPTConfig(vocab_size=260, num_hidden_layers=2, max_position_embeddings=30, **ends, **small)
    save(transformers.OPTForCausalLM(opt), "opt-125m")
    for folder in ("gpt2", "opt-125m"):
        bytelevel.save(Path(folder, "tokenizer.json"))
    Path("sums").mkdir()
    lines = (json.dumps({"sum": "1 + 1 =", "answers": [" 2", " 3"], "right": right}) for right in (0, 0, 1))
    Path("sums/sums.jsonl").write_text("\n".join(lines))
    Path("novels").mkdir()
    Path("novels/one.txt").write_text("\n\n".join(f"{n} {TEXTS[0]}" for n in range(40)))
    words = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    words.train_from_iterator(TEXTS, trainers.WordPieceTrainer(vocab_size=60, special_tokens=special))
    save(transformers.BertModel(transformers.BertConfig(vocab_size=60, **BERT)), "minilm")
    words.save("minilm/tokenizer.json")


def test_the_page_works(models_of_the_page: None, run, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]  # noqa: F811
    blocks = re.findall(r"^```(\w+)\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    done = []
    for language, text in blocks:
        if language == "yaml":
            path = Path(text.splitlines()[0].removeprefix("# "))
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        elif language == "python":
            exec(compile(text, str(PAGE), "exec"), {})
            assert re.search(r"tensor\(\[-?\d\.\d+, -?\d\.\d+\]\)", capsys.readouterr().out)
        else:
            assert language == "sh"
            for line in text.splitlines():
                program, *arguments = shlex.split(line, comments=True)
                assert program == "atinuke"
                if arguments[0] == "harness":
                    there = os.environ | {"PYTHONPATH": str(ROOT), "HF_DATASETS_CACHE": "cache"}
                    command = [sys.executable, "-c", "from atinuke.cli import main; main()", *arguments]
                    subprocess.run(command, env=there, check=True, timeout=300)
                    (results,) = Path("found").rglob("results*.json")
                    assert json.loads(results.read_text())["results"]["sums"]["acc,none"] in (1 / 3, 2 / 3)
                    continue
                if arguments[0] == "train":
                    arguments += [f"--set={one}" for one in SMALL]
                code, out, err = run(*arguments)
                assert code == 0, f"{line}\n{err}"
                assert "generate" not in arguments or out.startswith("the cat")
                done.append(arguments[0])
    assert (done.count("convert"), done.count("train"), done.count("generate")) == (5, 1, 3)
    gpt2 = transformers.GPT2LMHeadModel
    for folder, cls in (("gpt2-again", gpt2), ("gpt2-novels", gpt2), ("opt-again", transformers.OPTForCausalLM)):
        report = cls.from_pretrained(folder, output_loading_info=True)[1]
        assert not any(report.values()), report
    tokens = torch.arange(12)[None]
    with torch.no_grad():
        wanted = open_run(Path("runs/novels")).model(tokens).logits
        torch.testing.assert_close(gpt2.from_pretrained("gpt2-novels")(tokens).logits, wanted, rtol=0, atol=1e-5)
        assert (gpt2.from_pretrained("gpt2-again")(tokens).logits - wanted).abs().max() > 1e-3
