"""A run of a task as a bundle: it takes texts as the task does, and says the task's labels."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atinuke.pipelines.encoding import Texts
from atinuke.pipelines.evaluate_task import evaluate_task
from atinuke.pipelines.pretrained.huggingface import convert
from atinuke.pipelines.recipe import load_recipe
from atinuke.pipelines.run import open_model
from atinuke.pipelines.task import Item, Task
from atinuke.pipelines.train import start
from atinuke.runtime import fields
from atinuke.runtime.bundle import open_bundle
from atinuke.runtime.config import read_fields
from atinuke.runtime.interface import Interface, Port
from atinuke.runtime.strict import Value
from atinuke.runtime.tokenizer import Tokenizer
from tests.cli.conftest import run  # noqa: F401 - a fixture
from tests.pipelines import gpt2
from tests.pipelines.tasks.toys import recipe, table, tiny_bert

ROWS = [("good film", "very good", "entailment"), ("bad film", "good", "not_entailment")] * 3
WORD = st.sampled_from("good bad film very not a b c".split())  # noqa: SIM905 - shorter
TEXT = st.lists(WORD, min_size=1, max_size=12).map(" ".join)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    tiny_bert(folder / "theirs")
    convert(folder / "theirs", folder / "model")
    return folder / "model"


@pytest.mark.parametrize("task", ["rte", "sst2"])
def test_a_bundle_reads_texts_and_names_labels(run, bert: Path, tmp_path: Path, task: str) -> None:  # type: ignore[no-untyped-def]  # noqa: F811
    pair = task == "rte"
    rows = [("index", "sentence1", "sentence2", "label"), *((i, *row) for i, row in enumerate(ROWS))]
    if not pair:
        rows = [("sentence", "label"), *((first, int(label == "entailment")) for first, _, label in ROWS)]
    table(tmp_path / "train.tsv", *rows)
    settings = {"name": task, "train": "train.tsv", "validation": "train.tsv", "length": 12}
    changes = {"graph": None, "pretrained": str(bert), "tokenizer": None, "steps": 6}
    folder = start(load_recipe(recipe(tmp_path, settings, **changes)), tmp_path / "run").folder
    evaluate_task(folder)
    said = [json.loads(line) for line in (folder / f"evaluations/{task}/train/items.jsonl").read_text().splitlines()]
    code, _, err = run("compile", folder, "-o", tmp_path / "bundle", "--minutes", "0.05")
    assert code == 0, err
    assert json.loads((tmp_path / "bundle/parity.json").read_text())["inputs"].startswith("the first")
    for row, one in zip(ROWS[:2], said, strict=False):
        texts = [part for text in row[: 1 + pair] for part in ("--text", text)]
        code, out, err = run("run", tmp_path / "bundle", *texts, "--json")
        assert code == 0, err
        (shares,) = json.loads(out)["outputs"]["logits"]
        assert sorted(shares) == (["entailment", "not_entailment"] if pair else ["0", "1"])
        assert next(iter(shares)) == one["prediction"]
    ids = open_bundle(tmp_path / "bundle").fields["input_ids"]
    assert (ids["pair"], ids["mask"], ids["segments"]) == (pair, "attention_mask", "segment_ids")


def test_a_bundle_of_retrieval_gives_vectors_of_texts(run, bert: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]  # noqa: F811
    table(tmp_path / "train.tsv", ("en", "yo"), *((first, second) for first, second, _ in ROWS[:2]))
    task = {"name": "retrieval", "texts": ["en", "yo"], "train": "train.tsv", "validation": "train.tsv", "length": 12}
    changes = {"graph": None, "pretrained": str(bert), "tokenizer": None, "steps": 2, "batch": 2}
    changes["schedule"] = {"name": "wsd"}
    folder = start(load_recipe(recipe(tmp_path, task, **changes)), tmp_path / "run").folder
    code, _, err = run("compile", folder, "-o", tmp_path / "bundle", "--minutes", "0.05")
    assert code == 0, err
    code, out, err = run("run", tmp_path / "bundle", "--text", "good film", "--json")
    assert code == 0, err
    opened, texts = open_model(folder), Texts.load(folder / "tokenizer.json")
    ids = torch.tensor([texts.join(texts.pieces("good film")).ids.tolist()])
    with torch.no_grad():
        vectors = opened.model(ids, torch.zeros_like(ids), torch.ones_like(ids, dtype=torch.bool)).vectors
    np.testing.assert_allclose(json.loads(out)["outputs"]["vectors"], vectors.numpy(), atol=1e-4)


@settings(max_examples=60)
@given(TEXT, TEXT, st.integers(6, 16), st.sampled_from(["rte", "sst2"]), st.booleans())
def test_texts_are_framed_as_the_task_frames_them(
    first: str, second: str, length: int, name: str, decoder: bool
) -> None:
    """Also where the tokenizer puts nothing around texts, and the task names what stands between."""
    content = gpt2.BYTES.content if decoder else BERT
    texts = Texts(content, "tokenizer.json")
    between = {"between": "<|endoftext|>"} if decoder else {}
    task = Task.named(name).model_validate({"name": name, "length": length, **between})
    given_ = (first, second) if name == "rte" else (first,)
    (window,) = task.encode(Item("x", "here", given_), texts)
    field = task.reads(texts)["input_ids"]
    program = Interface((Port("input_ids", "int64", ("batch", "sequence")),), (), {})
    told = json.loads(json.dumps({"input_ids": field}))
    assert read_fields(Value(told, "config.json"), {"forward": program}) == {"input_ids": field}
    tokenizer = Tokenizer(content, field["end_of_text"])
    ids, segments = fields.read(field, list(given_) if len(given_) > 1 else first, tokenizer)
    np.testing.assert_array_equal(ids, window.inputs["input_ids"])
    np.testing.assert_array_equal(segments, window.inputs["segment_ids"])


BERT = json.dumps(
    {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": number,
                "content": name,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for number, name in enumerate(["[UNK]", "[CLS]", "[SEP]"])
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
            ],
            "pair": [
                {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
                {"Sequence": {"id": "B", "type_id": 1}},
                {"SpecialToken": {"id": "[SEP]", "type_id": 1}},
            ],
            "special_tokens": {
                name: {"id": name, "ids": [number], "tokens": [name]}
                for number, name in enumerate(["[UNK]", "[CLS]", "[SEP]"])
            },
        },
        "decoder": None,
        "model": {
            "type": "WordLevel",
            "vocab": {
                word: number
                for number, word in enumerate(["[UNK]", "[CLS]", "[SEP]", *"good bad film very not a b c".split()])  # noqa: SIM905
            },
            "unk_token": "[UNK]",
        },
    }
)
"""A tokenizer of words, with BERT's template."""
