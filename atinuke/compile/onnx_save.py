"""ONNX files of programs that share their weights: each array is on disk once."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DATA = "weights.bin"
LEAST = 1024
"""Bytes from which an array lies in the shared file."""
LARGEST = 2_000_000_000
"""Bytes of weights that one file may hold: Protocol Buffers end at 2 GiB."""
PAGE = 4096
"""Arrays begin at multiples of this, so that they can be mapped into memory."""


def save_shared(models: Mapping[str, Any], folder: Path) -> None:
    """Writes `<name>.onnx` for each `onnx.ModelProto`. Large arrays of several models, or of one above 2 GB, go into
    `weights.bin` beside them; equal arrays are one."""
    from onnx import TensorProto, external_data_helper, save

    held = sum(len(tensor.raw_data) for model in models.values() for tensor in model.graph.initializer)
    if len(models) == 1 and held < LARGEST:
        for name, model in models.items():
            save(model, folder / f"{name}.onnx")
        return
    places: dict[tuple[int, bytes], int] = {}
    with (folder / DATA).open("wb") as data:
        for name, model in models.items():
            for tensor in model.graph.initializer:
                raw = tensor.raw_data
                if len(raw) < LEAST:
                    continue
                key = (len(raw), hashlib.sha256(raw).digest())
                if key not in places:
                    data.write(bytes(-data.tell() % PAGE))
                    places[key] = data.tell()
                    data.write(raw)
                external_data_helper.set_external_data(tensor, DATA, places[key], len(raw))
                tensor.data_location = TensorProto.EXTERNAL
                tensor.ClearField("raw_data")
            save(model, folder / f"{name}.onnx")
