"""Runs as model folders: with low-rank updates beside their weights, or in them."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from atinuke.compile.merge import merged
from atinuke.core.checked import CheckedGraph
from atinuke.core.dump import dump
from atinuke.core.errors import fail
from atinuke.pipelines import checkpoint
from atinuke.pipelines.peft_names import folder_of
from atinuke.pipelines.pretrained import files
from atinuke.pipelines.pretrained.config import CONFIG
from atinuke.pipelines.pretrained.folder import FAMILY, GRAPH, carry, new_folder
from atinuke.pipelines.run import open_model


def merge_adapter(source: Path, out: Path) -> CheckedGraph:
    """Writes a run that went on from a model folder, adapting it or not, or a model folder with low-rank updates, as a
    model folder whose weights have all that was learnt in.

    Raises:
        AtinukeError: there is no model folder that it went on from.
    """
    opened = open_model(source)
    base = folder_of(source)
    if base is None:
        fix = "`atinuke compile` merges any run"
        raise fail("there is no model folder that it went on from", where=str(source), fix=fix)
    checked, model = merged(opened.checked, opened.model)
    stored = checkpoint.read(base / files.WEIGHTS)
    dtypes = {name: tensor.dtype for name, tensor in stored.items()}
    usual = next(iter(dtypes.values()))
    tensors = {name: tensor.to(dtypes.get(name, usual)) for name, tensor in checkpoint.weights(model).items()}
    write_folder(out, base, checked, tensors)
    return checked


def write_folder(out: Path, base: Path, checked: CheckedGraph, tensors: Mapping[str, Tensor]) -> None:
    """A model folder like `base` with another graph and weights."""
    with new_folder(out) as draft:
        for name in (CONFIG, FAMILY):
            (draft / name).write_bytes((base / name).read_bytes())
        (draft / GRAPH).write_text(dump(checked.graph), encoding="utf-8")
        files.write(tensors, draft, shard=2**63)
        carry(base, draft)
