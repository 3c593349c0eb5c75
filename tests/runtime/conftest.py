"""Small models with random weights, each with its bundle."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
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


MADE: dict[str, Deployed] = {}
"""The bundles of this process by graph: fixtures of two modules are two, even if one is imported."""


def deploy(
    folders: pytest.TempPathFactory,
    graph: str,
    sets: Sequence[str],
    begins: bool | None = None,
    fields: Mapping[str, Any] | None = None,
    classes: Mapping[str, tuple[str, ...]] | None = None,
) -> Deployed:
    """A graph with random weights as a bundle; `begins` where it writes texts."""
    if graph in MADE:
        return MADE[graph]
    folder = folders.mktemp(graph)
    torch.manual_seed(0)
    checked = open_graph(graph, [*SMALL, *sets])
    model = build(checked).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)  # so that texts are not all alike
    BYTES.save(folder / "tokenizer.json")
    text = None if begins is None else Text(END_OF_TEXT, CONTEXT, begins)
    subject = Subject(checked, model, text, folder / "tokenizer.json", fields, classes)
    compile_bundle(subject, ["onnx/fp32"], folder / "bundle", seconds=1)
    return MADE.setdefault(graph, Deployed(model, folder / "bundle"))


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
