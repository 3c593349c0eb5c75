"""The weights in a folder of theirs: safetensors, in one file or several, read one tensor at a time."""

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from atinuke.core.errors import fail
from atinuke.pipelines import checkpoint
from atinuke.pipelines.pretrained.config import read_json

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
SHARD = 5 * 10**9  # bytes of a file, unless one tensor is larger


@dataclass(frozen=True)
class Stored:
    """The tensors of a folder, by name, with their shapes; each is read when it is asked for."""

    shapes: Mapping[str, tuple[int, ...]]
    where: Mapping[str, Path]
    _files: Mapping[Path, Any]

    def tensor(self, name: str) -> Tensor:
        """One of them.

        Raises:
            AtinukeError: it cannot be read, or has values that are no numbers.
        """
        path = self.where[name]
        try:
            found: Tensor = self._files[path].get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise _damaged(path, error) from None
        checkpoint.require_finite({name: found}, path)
        return found


@contextmanager
def stored(folder: Path) -> Iterator[Stored]:
    """The weights in a folder.

    Raises:
        AtinukeError: there are none, they are pickles, a file is missing or damaged, or two have one tensor.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    where: dict[str, Path] = {}
    files: dict[Path, Any] = {}
    with ExitStack() as stack:
        for path in _files_of(folder):
            try:
                files[path] = file = stack.enter_context(safe_open(path, "pt"))
                names = list(file.keys())
                shapes |= {name: tuple(file.get_slice(name).get_shape()) for name in names}
            except (OSError, SafetensorError) as error:
                raise _damaged(path, error) from None
            for name in names:
                if (other := where.setdefault(name, path)) != path:
                    what = f"`{name}` is in {other.name} and in {path.name}"
                    raise fail(what, where=str(folder), fix="take out the file that is not meant, or save it again")
        yield Stored(shapes, where, files)


def write(tensors: Mapping[str, Tensor], folder: Path, shard: int = SHARD) -> None:
    """Writes tensors as `model.safetensors`, or as several files and their index where they have more bytes than
    `shard`. Tensors that share memory must be there once."""
    groups: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if groups[-1] and size + tensor.nbytes > shard:
            groups.append({})
            size = 0
        groups[-1][name] = tensor
        size += tensor.nbytes
    metadata = {"format": "pt"}  # transformers reads no others
    if len(groups) == 1:
        checkpoint.write(groups[0], folder / WEIGHTS, metadata)
        return
    index: dict[str, str] = {}
    for number, group in enumerate(groups, 1):
        name = f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        checkpoint.write(group, folder / name, metadata)
        index |= dict.fromkeys(group, name)
    total = sum(tensor.nbytes for tensor in tensors.values())
    text = json.dumps({"metadata": {"total_size": total}, "weight_map": index}, indent=2)
    (folder / INDEX).write_text(text + "\n", encoding="utf-8")


def _files_of(folder: Path) -> list[Path]:
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        named = read_json(folder / INDEX).get("weight_map")
        if not isinstance(named, dict) or not all(isinstance(name, str) for name in named.values()):
            raise fail("has no `weight_map` from names to files", where=str(folder / INDEX), fix="restore it")
        files = sorted(set(named.values()))
        for name in files:
            if Path(name).name != name or not (folder / name).is_file():
                raise fail(f"names the file `{name}`, which is not there", where=str(folder / INDEX), fix="add it")
        return [folder / name for name in files]
    if pickles := sorted(path.name for pattern in PICKLES for path in folder.glob(pattern)):
        raise fail(
            f"has its weights only as `{pickles[0]}`, a pickle, which can run code and is never read",
            where=str(folder),
            fix="where you trust it, save it with transformers: model.save_pretrained(folder) writes safetensors",
        )
    raise fail(f"has no weights: there is no `{WEIGHTS}`", where=str(folder), fix="name the folder of a model")


def _damaged(path: Path, error: Exception) -> Exception:
    return fail(f"is not a readable safetensors file: {error}", where=str(path), fix="restore it from a copy")
