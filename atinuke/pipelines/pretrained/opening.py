"""Pretrained models, opened for use."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from atinuke import families
from atinuke.compile.module import build
from atinuke.core.checked import CheckedGraph
from atinuke.core.errors import fail
from atinuke.pipelines import checkpoint
from atinuke.pipelines.pretrained.files import WEIGHTS
from atinuke.pipelines.pretrained.folder import is_model_folder, open_folder
from atinuke.pipelines.pretrained.huggingface import read


@dataclass(frozen=True)
class Pretrained:
    """A model with its weights, ready for evaluation; its graph; and what transformers calls it."""

    model: nn.Module
    checked: CheckedGraph
    architecture: str


def from_pretrained(
    folder: str | Path, family: str | Path | None = None, dtype: torch.dtype | None = None
) -> Pretrained:
    """The model in a folder of Hugging Face's transformers, or in a model folder that `atinuke convert` wrote.

    `family` is the map file of a family, or the name of one that ships; else it is the shipped one that knows the
    `model_type` of config.json. Weights are kept as `dtype` (float32 unless given), whatever they are stored as.

    Raises:
        AtinukeError: there is no such model, or it is not what its family says (see `huggingface.read`).
    """
    folder = Path(folder)
    if is_model_folder(folder):
        if family:
            raise fail("is a model folder, which has its own family file", where=str(folder), fix="leave out `family`")
        opened = open_folder(folder)
        model = build(opened.checked, dtype or torch.float32).eval()
        checkpoint.load_weights(model, folder / WEIGHTS)
        return Pretrained(model, opened.checked, opened.config.architecture)
    found = read(folder, families.path(str(family)) if family else None)
    model = build(found.checked, dtype or torch.float32).eval()
    for name, tensor in checkpoint.weights(model).items():
        tensor.copy_(found.tensors[name])
    return Pretrained(model, found.checked, found.architecture)
