"""Every shipped graph, and a third party's, on every target in every precision: how near it comes, or why it cannot.

    python benchmarks/targets.py                    # writes docs/targets.md; about two hours on one core
    python benchmarks/targets.py --graph llama --target onnx

Graphs are small, with fresh weights; each cell is the certificate that `atinuke compile` writes. What was found is kept in
`docs/targets.jsonl` and is not tried again unless asked for by name, so it can be interrupted. A target that dies takes only
its own process with it.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atinuke.core.component import import_target
from atinuke.core.registry import Registry

ROOT = Path(__file__).parents[1]
PAGE, FOUND = ROOT / "docs" / "targets.md", ROOT / "docs" / "targets.jsonl"
SHOWN = ("fp32", "fp16", "bf16", "int8", "int8-weights", "int4-weights", "fp8")

SMALL = ("d_model=64", "heads=2", "batch=1..2")
TEXT = (*SMALL, "vocab_size=512", "layers=2", "sequence=1..24")
SOUND = (*SMALL, "rate=8000", "mels=16", "classes=5", "samples=1600..3200")
SEEN = ("channels=1", "patch=4", "height=16..24", "width=16..24")


@dataclass(frozen=True)
class Case:
    """A graph in a small form; those that can be stepped are compiled whole too."""

    graph: str
    sets: tuple[str, ...]
    swaps: tuple[str, ...] = ()
    steps: bool = False


CASES = {
    "atinuke": Case("atinuke", TEXT, steps=True),
    "gpt2": Case("gpt2", TEXT, steps=True),
    "llama": Case("llama", (*TEXT, "kv_heads=1"), steps=True),
    "experts": Case("experts", TEXT, steps=True),
    "encoder": Case("encoder", TEXT),
    "encoder-decoder": Case("encoder-decoder", (*TEXT, "decoder_layers=2", "source=1..16"), steps=True),
    "vit": Case("vit", (*SMALL, *SEEN, "layers=2", "rows=4", "columns=4")),
    "audio-encoder": Case("audio-encoder", (*SOUND, "layers=2")),
    "audio-ctc": Case("audio-ctc", (*SOUND, "layers=2")),
    "clip": Case(
        "clip",
        (*SMALL, *SEEN, "vocab_size=512", "sequence=1..24", "vision_layers=1", "text_layers=2", "rows=4", "columns=4"),
    ),
    "senses, reading": Case("senses", TEXT),
    "senses, hearing": Case("senses", SOUND, ("sense=hears",)),
    "senses, seeing": Case("senses", (*SMALL, *SEEN), ("sense=sees",)),
    "trimodal": Case("trimodal", (*SOUND, *SEEN, "vocab_size=512", "sequence=1..24", "layers=2")),
    "a third party's": Case(
        str(ROOT / "examples" / "atinuke-strided" / "pairs.yaml"),
        (*SMALL, "vocab_size=512", "layers=2", "sequence=2..24"),
    ),
}


def forms() -> Iterator[tuple[str, bool]]:
    """Each case with its step form, where it has one, and whole."""
    for name, case in CASES.items():
        if case.steps:
            yield name, True
        yield name, False


def precisions(target: str) -> tuple[str, ...]:
    """The precisions that a target knows."""
    found: tuple[str, ...] = import_target(Registry().backend(target).builder).precisions
    return found
