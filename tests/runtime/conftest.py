"""Small models with random weights, each with its bundle, which is made once for all workers."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from torch import nn

from atinuke.compile.front import open_graph
from atinuke.compile.module import build
from atinuke.pipelines.deploy import Subject, compile_bundle
from atinuke.pipelines.tokenizer import Tokenizer
from atinuke.runtime.bundle import Text
from atinuke.runtime.tokenizer import END_OF_TEXT

CONTEXT = 160
BYTES = Tokenizer.train([], 257)  # every token is a byte, and one more ends a text
SMALL = ("batch=1..8", "d_model=32", "heads=2", "layers=1")
TEXT = {"name": "text", "length": 64, "cut": False, "multiple": 1, "optional": False, "pair": False}
TEXT |= {"mask": "source_mask", "segments": None, "end_of_text": END_OF_TEXT}
IMAGE = {"name": "image", "size": [8, 8], "channels": 1, "mask": None, "optional": False}


@dataclass(frozen=True)
class Deployed:
    """A model and the folder of its bundle."""

    model: nn.Module
    folder: Path


def deploy(
    folders: pytest.TempPathFactory,
    graph: str,
    sets: Sequence[str],
    begins: bool | None = None,
    fields: Mapping[str, Any] | None = None,
    classes: Mapping[str, tuple[str, ...]] | None = None,
) -> Deployed:
    """A graph with random weights as a bundle; `begins` where it writes texts. Fixtures of two modules are two, even if
    one is imported, and so are those of two workers: what they share is on disk."""
    base = folders.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / graph
    torch.manual_seed(0)
    checked = open_graph(graph, [*SMALL, *sets])
    model = build(checked).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)  # so that texts are not all alike
    text = None if begins is None else Text(END_OF_TEXT, CONTEXT, begins)
    subject = Subject(checked, model, text, folder / "tokenizer.json", fields, classes)
    with FileLock(f"{folder}.lock"):
        if not (folder / "bundle").is_dir():
            folder.mkdir(exist_ok=True)
            BYTES.save(folder / "tokenizer.json")
            compile_bundle(subject, ["onnx/fp32"], folder / "bundle", seconds=1)
    return Deployed(model, folder / "bundle")


@pytest.fixture(scope="session")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    sets = ("kv_heads=1", "vocab_size=257", f"sequence=1..{CONTEXT}")
    return deploy(tmp_path_factory, "llama", sets, begins=False)


@pytest.fixture(scope="session")
def translator(tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    sets = ("vocab_size=257", "d_ff=64", f"sequence=1..{CONTEXT}", "source=1..64")
    return deploy(tmp_path_factory, "encoder-decoder", sets, True, {"source_ids": TEXT})


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    sets = ("channels=1", "patch=4", "height=8..8", "width=8..8", "classes=3")
    classes = {"logits": ("owl", "fox", "bee")}
    return deploy(tmp_path_factory, "vit", sets, None, {"pixel_values": IMAGE}, classes)
