"""A tiny tokenizer, a tiny encoder and runs of them."""

import json
from pathlib import Path

import yaml

from atinuke.pipelines.tokenizer_files import read_tokenizer

WORDS = (
    "good bad film not very the is was on in of what who where yes no . , ? ##s ##ly".split()  # noqa: SIM905 - shorter
)
LETTERS = [chr(code) for code in range(ord("a"), ord("z") + 1)] + list("0123456789")
VOCABULARY = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *dict.fromkeys(WORDS + LETTERS),
    *(f"##{c}" for c in LETTERS),
]
GRAPH = {"use": "encoder", "set": {"vocab_size": 160, "d_model": 32, "heads": 2, "layers": 1, "dropout": 0.0}}


def vocabulary(folder: Path, lower: bool = True) -> Path:
    """A `vocab.txt` with its `tokenizer_config.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": lower}))
    file = folder / "vocab.txt"
    file.write_text("\n".join(dict.fromkeys(VOCABULARY)) + "\n", encoding="utf-8")
    return file


def table(file: Path, *rows: tuple[object, ...]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join("\t".join(map(str, row)) + "\n" for row in rows), encoding="utf-8")
    return file


def recipe(folder: Path, task: dict[str, object], **changes: object) -> Path:
    settings = {
        "graph": GRAPH,
        "tokenizer": {"file": str(vocabulary(folder))},
        "task": task,
        "optimiser": {"name": "adamw", "lr": 3e-3},
        "schedule": {"name": "cosine", "warmup": 2},
        "steps": 20,
        "batch": 8,
    }
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump({**settings, **changes}))
    return file


def tiny_bert(folder: Path) -> None:
    """A BERT of transformers with the tiny vocabulary, at random."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=160,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=512,
    )
    BertModel(config).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(read_tokenizer(vocabulary(folder)), encoding="utf-8")
