"""Pretrained models of Hugging Face's transformers, from a folder and back into one."""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from atinuke.core.checked import CheckedGraph
from atinuke.core.dump import dump
from atinuke.core.errors import Mistake, fail, raise_all
from atinuke.core.names import close
from atinuke.pipelines import checkpoint
from atinuke.pipelines.pretrained import files
from atinuke.pipelines.pretrained.config import (
    CONFIG,
    PREPROCESSOR,
    meaning,
    read_json,
    rewritten,
    with_preprocessor,
)
from atinuke.pipelines.pretrained.family import Family, family_of, load_family
from atinuke.pipelines.pretrained.folder import (
    FAMILY,
    GRAPH,
    Config,
    carry,
    is_model_folder,
    new_folder,
    open_folder,
    require_new,
    structure,
    write_json,
)
from atinuke.pipelines.pretrained.graph import fresh, graph_of, weights_of
from atinuke.pipelines.pretrained.moves import Plan, matches, plan

LISTED = 10


@dataclass(frozen=True)
class Read:
    """A model of theirs as a graph of ours and its tensors, in the precision they are stored in; `left` are tensors
    that the family says are not read."""

    family: Family
    file: Path
    architecture: str
    config: dict[str, Any]
    checked: CheckedGraph
    tensors: dict[str, Tensor]
    left: tuple[str, ...]


def read(folder: Path, family: Path | None = None) -> Read:
    """The model in a folder that transformers wrote; `family` is a map file, or else the shipped one of its kind.

    Raises:
        AtinukeError: the folder holds no such model; its config.json has keys or values that the family does not know;
            tensors are missing, left over, of another shape, not finite or damaged; or its tokenizer has more tokens
            than the model.
    """
    where = folder / CONFIG
    if is_model_folder(folder):
        raise fail("is a model folder already", where=str(folder), fix="open it as it is")
    config = read_json(where)
    file = family or family_of(config, where)
    known = load_family(file)
    architecture = known.architecture(config, where)
    known = known.of(architecture)
    checked = graph_of(known, architecture, meaning(known, with_preprocessor(config, folder), where))
    _require_tokens_fit(folder, checked)
    with files.stored(folder) as stored:
        names = _by_new_names(known, stored.shapes, folder)
        prefixed = not known.prefix or any(name.startswith(known.prefix) for name in names)
        planned = plan(known, weights_of(checked), checked.dims, prefixed)
        left = _compared(known, architecture, planned, {new: stored.shapes[old] for new, old in names.items()}, folder)
        tensors = fresh(checked, planned.untouched)
        for move in planned.moves:
            tensors |= move.read({name: stored.tensor(names[name]) for name, _ in move.theirs if name})
        for name, move in planned.copies.items():
            if name in names:
                copied = move.read({name: stored.tensor(names[name])})
                if not all(tensor.equal(tensors[ours]) for ours, tensor in copied.items()):
                    what = f"`{name}` must be equal to the tensor that it is tied to, but is not"
                    raise fail(what, where=str(folder), fix="check `tie_word_embeddings` in config.json")
    return Read(known, file, architecture, config, checked, tensors, left)


def convert(folder: Path, out: Path, family: Path | None = None) -> Read:
    """Writes a model of theirs as a model folder; see `read` for what is raised."""
    require_new(out)
    found = read(folder, family)
    with new_folder(out) as draft:
        config = Config(
            format="atinuke.model",
            version=1,
            family=found.family.name,
            architecture=found.architecture,
            structure=structure(found.checked),
            huggingface=found.config,
        )
        write_json(draft / CONFIG, config.model_dump())
        (draft / GRAPH).write_text(dump(found.checked.graph), encoding="utf-8")
        shutil.copyfile(found.file, draft / FAMILY)
        files.write(found.tensors, draft, shard=2**63)
        carry(folder, draft)
    return found


def to_huggingface(folder: Path, out: Path, shard: int = files.SHARD) -> None:
    """Writes a model folder as transformers reads it, in files of at most `shard` bytes.

    Raises:
        AtinukeError: it is no model folder; its graph is no longer one of its family; or its sizes cannot be said in
            their config.json, or its weights are not finite.
    """
    opened = open_folder(folder)
    if structure(opened.checked) != opened.config.structure:
        raise fail(
            f"has a graph that transformers' {opened.config.architecture} is not",
            "nodes or their settings have changed since it was converted",
            where=str(folder / GRAPH),
            fix="go on with it here, or begin again with the unchanged graph",
        )
    family = load_family(folder / FAMILY).of(opened.config.architecture)
    said = with_preprocessor(opened.config.huggingface, folder)
    config = rewritten(family, said, opened.checked.dims, folder / CONFIG)
    preprocessor = config.pop("preprocessor", None)
    prefixed = family.architectures[opened.config.architecture].prefix
    planned = plan(family, weights_of(opened.checked), opened.checked.dims, prefixed)
    tensors = checkpoint.read_finite(folder / files.WEIGHTS)
    found: dict[str, Tensor] = {}
    for move in planned.moves:
        if missing := [name for name, _ in move.ours if name not in tensors]:
            raise fail(f"`{missing[0]}` is missing", where=str(folder / files.WEIGHTS), fix="restore it from a copy")
        found |= move.write(tensors)
    with new_folder(out) as draft:
        write_json(draft / CONFIG, config)
        files.write(found, draft, shard)
        carry(folder, draft)
        if preprocessor != said.get("preprocessor"):
            write_json(draft / PREPROCESSOR, preprocessor)


def _by_new_names(family: Family, names: Iterable[str], folder: Path) -> dict[str, str]:
    """Names of tensors in a file, by what they are called today."""
    found: dict[str, str] = {}
    for name in names:
        before, _, last = name.rpartition(".")
        new = f"{before}.{family.renames[last]}" if last in family.renames else name
        if new in found:
            what = f"has both `{found[new]}` and `{name}`, two names of one tensor"
            raise fail(what, where=str(folder), fix="take out the one that is not meant")
        found[new] = name
    return found


def _compared(
    family: Family, architecture: str, planned: Plan, found: dict[str, tuple[int, ...]], folder: Path
) -> tuple[str, ...]:
    """What there is beyond what is read; raises AtinukeError where that is not known, or anything is missing."""
    wanted = planned.theirs()
    shapes = {name: shape for copied in planned.copies.values() for name, shape in copied.theirs if name}
    known = (*family.buffers, *family.architectures[architecture].ignored)
    patterns = (*known, *(pattern.removeprefix(family.prefix) for pattern in known))
    rest = [name for name in found if name not in wanted and name not in planned.copies]
    left = set(matches(patterns, rest))
    mistakes = []

    def wrong(names: list[str], what: str, fix: str) -> None:
        if names:
            more = [f"and {len(names) - LISTED} more"] if len(names) > LISTED else []
            mistakes.append(Mistake(what, str(folder), (*names[:LISTED], *more), fix))

    missing = [name for name in wanted if name not in found]
    unknown = [name for name in rest if name not in left]
    hint = f"check that it is a {architecture} of the family `{family.name}`"
    wrong([f"`{name}` of shape {list(wanted[name])}" for name in missing], "tensors are missing", hint)
    fix = f"{hint}; what is not to be read belongs under `buffers` or `ignored` in the family's file"
    wrong(
        [f"`{name}` of shape {list(found[name])}" + _nearest(name, missing) for name in unknown],
        "tensors are left over, which the family does not know",
        fix,
    )
    wrong(
        [
            f"`{name}` has shape {list(found[name])}, but config.json says {list(shape)}"
            for name, shape in {**shapes, **wanted}.items()
            if name in found and found[name] != shape
        ],
        "tensors have another shape",
        "check the sizes in config.json",
    )
    raise_all(mistakes)
    return tuple(sorted(left))


def _nearest(name: str, missing: list[str]) -> str:
    hint = close(name, missing) if len(missing) > 12 else None
    return f" ({hint.replace('use', 'missing is')})" if hint else ""


def _require_tokens_fit(folder: Path, checked: CheckedGraph) -> None:
    """Refuses a tokenizer whose tokens the embedding does not have."""
    file, size = folder / "tokenizer.json", checked.dims.get("vocab_size")
    if size is None or not file.is_file():
        return
    import tokenizers

    try:
        vocabulary = tokenizers.Tokenizer.from_file(str(file)).get_vocab(with_added_tokens=True)
    except Exception as error:  # the library's own type
        raise fail(f"is not a readable tokenizer: {error}", where=str(file), fix="restore it from a copy") from None
    if vocabulary and max(vocabulary.values()) >= size:
        token = max(vocabulary, key=lambda one: vocabulary[one])
        raise fail(
            "has tokens that the model has no embedding for",
            f"its last token `{token}` is number {vocabulary[token]:,}",
            f"the model has embeddings of the tokens 0 to {size - 1:,}",
            where=str(file),
            fix="use the tokenizer that belongs to the model",
        )
