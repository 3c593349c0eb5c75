"""Low-rank updates in the format of PEFT: `adapter_config.json` and `adapter_model.safetensors`.

Their modules are called as in the model that the base was converted from, by the map of its family; where that keeps
queries, keys and values in one matrix and we do not, or the other way round, updates are parted or put together so that
the same is added to every number of the weights. The base of a run that no family knows is called as we call it.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from atinuke.compile.front import check_graph
from atinuke.compile.lora import LoRALinear, part_ranges
from atinuke.compile.meta import MetaProbe
from atinuke.compile.module import build
from atinuke.core.adapt import add_lora
from atinuke.core.checked import CheckedGraph
from atinuke.core.errors import fail
from atinuke.core.names import close
from atinuke.pipelines import checkpoint
from atinuke.pipelines.merging import write_folder
from atinuke.pipelines.peft_names import WEIGHT, Names, Place, names_of
from atinuke.pipelines.pretrained import files
from atinuke.pipelines.pretrained.config import read_json
from atinuke.pipelines.pretrained.folder import is_model_folder, new_folder, open_folder, write_json
from atinuke.pipelines.run import open_model

ADAPTER_CONFIG, ADAPTER = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
Piece = tuple[Place, Tensor, Tensor, float]  # outputs of a map, with the A and B of their update and its scale
TENSOR = re.compile(r"(.+)\.(lora_A|lora_B)\.weight")
PATTERN = re.compile(r"\^?(\w|-|\\\.|\.\*?)+(\|\^?(\w|-|\\\.|\.\*?)+)*")
OTHER_WAYS = (
    *("use_dora", "lora_bias", "layer_replication", "trainable_token_indices"),
    *("target_parameters", "alora_invocation_tokens"),
)
"""Keys of adapter_config.json that ask for another kind of update."""


def export_adapter(source: Path, out: Path) -> list[str]:
    """Writes what a run has trained, or the low-rank updates of a model folder, as PEFT reads them; the names of the
    modules. What is trained whole becomes `modules_to_save`.

    Raises:
        AtinukeError: it has no low-rank updates, or has trained what the format has no name for.
    """
    opened = open_model(source)
    updates = {name: module for name, module in opened.model.named_modules() if isinstance(module, LoRALinear)}
    if not updates:
        raise fail("has no low-rank updates", where=str(source), fix="train with `adapt: {lora: ...}`")
    names = names_of(source, opened.checked)
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    for name, module in updates.items():
        for theirs, place in names.places(name):
            down, up = _at(module, place)
            if len(down):
                ranks[theirs], alphas[theirs] = len(down), module.scale * len(down)
                tensors |= {f"{PREFIX}{theirs}.lora_A.weight": down, f"{PREFIX}{theirs}.lora_B.weight": up}
    saved = _whole_modules(source, names)
    rank, alpha = (Counter(found.values()).most_common(1)[0][0] for found in (ranks, alphas))
    config = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": names.name,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": max(module.dropout for module in updates.values()),
        "target_modules": sorted(ranks),
        "rank_pattern": {name: found for name, found in ranks.items() if found != rank},
        "alpha_pattern": {name: found for name, found in alphas.items() if found != alpha},
        "fan_in_fan_out": names.transposed,
        "bias": "none",
        "modules_to_save": sorted({name.rpartition(".")[0] for name in saved}) or None,
    }
    with new_folder(out) as draft:
        write_json(draft / ADAPTER_CONFIG, config)
        whole = {**tensors, **{f"{PREFIX}{name}": tensor for name, tensor in saved.items()}}
        checkpoint.write({name: tensor.detach() for name, tensor in whole.items()}, draft / ADAPTER)
    return sorted(ranks)


def import_adapter(model: Path, adapter: Path, out: Path) -> CheckedGraph:
    """Writes a model folder with the low-rank updates that PEFT has saved for its model, beside its own weights.

    Raises:
        AtinukeError: `model` is no model folder, `adapter` is none of PEFT's or another kind of it, names modules
            that the model does not have, or has weights that are not finite.
    """
    folder = open_folder(model)
    config = _read_config(adapter / ADAPTER_CONFIG)
    names = names_of(model, folder.checked)
    found, whole = _parted(checkpoint.read_finite(adapter / ADAPTER), names, adapter)
    places = {
        _short(theirs, names): place
        for ours in _maps(folder.checked)
        if f"{ours}{WEIGHT}" in names.moves
        for theirs, place in names.places(ours)
    }
    updates: dict[str, list[Piece]] = {}
    for theirs, pair in found.items():
        if theirs not in places:
            what = f"adapts `{theirs}`, which is no linear map of this model"
            raise fail(what, where=str(adapter), fix=close(theirs, places))
        place, (down, up) = places[theirs], (pair["lora_A"], pair["lora_B"])
        if (*up.shape, *down.shape) != (place.stop - place.start, len(down), len(down), place.inputs):
            what, told = f"the update of `{theirs}` does not fit its map", f"{list(down.shape)}, {list(up.shape)}"
            raise fail(what, f"got lora_A and lora_B of {told}", where=str(adapter), fix="use its own base")
        updates.setdefault(place.ours, []).append(
            (place, down, up, _scale(config, (theirs, names.prefix + theirs), len(down)))
        )
    checked = _with_updates(folder.checked, updates)
    module = build(checked)
    mine = checkpoint.weights(module)
    base = checkpoint.read_finite(model / files.WEIGHTS)
    with torch.no_grad():
        for name, tensor in {**base, **whole}.items():
            mine[name].copy_(tensor)
        for ours, pieces in updates.items():
            _fill(module.get_submodule(ours), pieces)
    dtype = next(iter(base.values())).dtype
    stored = {name: tensor.to(base[name].dtype if name in base else dtype) for name, tensor in mine.items()}
    write_folder(out, model, checked, stored)
    return checked


def _at(module: LoRALinear, place: Place) -> tuple[Tensor, Tensor]:
    """The A and B by which the outputs of a place are updated: those of all parts in it, one behind the other."""
    downs, ups, start = [], [], 0
    pieces = iter(zip(module.downs(), module.ups(), strict=True))
    for size, updated in zip(module.sizes, module.updated, strict=True):
        low, high = max(start, place.start), min(start + size, place.stop)
        if updated:
            down, up = next(pieces)
            if low < high:
                rows = up.new_zeros(place.stop - place.start, up.shape[1])
                rows[low - place.start : high - place.start] = up[low - start : high - start]
                downs.append(down)
                ups.append(rows)
        start += size
    if not downs:
        return module.lora_A.new_zeros(0, module.in_features), module.lora_B.new_zeros(0, 0)
    return torch.cat(downs), torch.cat(ups, 1)


def _whole_modules(source: Path, names: Names) -> dict[str, Tensor]:
    """What a run has trained that is no update, by their names."""
    if is_model_folder(source):
        return {}
    newest = checkpoint.saved(source / "checkpoints")[-1]
    trained = {
        name: tensor
        for name, tensor in checkpoint.read(newest / checkpoint.WEIGHTS).items()
        if not name.endswith((".lora_A", ".lora_B"))
    }
    found: dict[str, Tensor] = {}
    for name in trained:
        move = names.moves.get(name)
        if move is None or any(ours not in trained for ours, _ in move.ours):
            what = f"has trained `{name}`, which PEFT's format cannot hold: {names.name} has no such module"
            raise fail(what, where=str(source), fix="merge it instead: `atinuke adapter merge`")
        found |= move.write(trained)
    modules = {name.rpartition(".")[0] for name in found}
    theirs = [name for move in names.moves.values() for name, _ in move.theirs if name]
    missing = [name for name in theirs if name.rpartition(".")[0] in modules and name not in found]
    if missing:
        what = f"has trained a part of a module, but not `{missing[0]}`: PEFT's format holds whole modules"
        raise fail(what, where=str(source), fix="train the module as a whole, or merge: `atinuke adapter merge`")
    return found


def _read_config(file: Path) -> dict[str, Any]:
    config = read_json(file)
    if config.get("peft_type") != "LORA":
        raise fail("is no LoRA of PEFT", f"got `peft_type` {json.dumps(config.get('peft_type'))}", where=str(file))
    other = [key for key in OTHER_WAYS if config.get(key)]
    if config.get("bias", "none") != "none":
        other.append("bias")
    if other:
        what = f"asks for `{other[0]}: {json.dumps(config[other[0]])}`, which is not supported"
        raise fail(what, where=str(file), fix="merge it with PEFT, save the model and convert that")
    if not isinstance(config.get("r"), int) or not isinstance(config.get("lora_alpha"), int | float):
        raise fail("has no `r` and `lora_alpha`", where=str(file), fix="restore it from a copy")
    alphas = config.get("alpha_pattern") or {}
    if not isinstance(alphas, dict) or not all(isinstance(alpha, int | float) for alpha in alphas.values()):
        raise fail("has no numbers by names in `alpha_pattern`", where=str(file), fix="restore it from a copy")
    for key in alphas:
        if not PATTERN.fullmatch(key):
            what = f"`{key}` in `alpha_pattern` is not supported"
            told = "names of modules, `.`, `\\.`, `.*`, `|` and a first `^` are read, and no other regular expressions"
            raise fail(what, told, where=str(file), fix="write the names of the modules out")
    return config


def called_like(name: str, key: str) -> bool:
    """Whether PEFT finds a module of this name by a key of `alpha_pattern`: `re.match(rf"(.*\\.)?({key})$", name)`, for
    keys that are `PATTERN`, in time linear in both."""
    for one in key.split("|"):
        like = one.removeprefix("^").replace("\\.", "\0").replace(".*", "*").replace(".", "?").replace("\0", ".")
        if fnmatchcase(name, like) or (not one.startswith("^") and fnmatchcase(name, f"*.{like}")):
            return True
    return False


def _scale(config: Mapping[str, Any], called: tuple[str, ...], rank: int) -> float:
    """What B A is multiplied by, as PEFT works it out, for a module of these names."""
    alpha = config["lora_alpha"]
    for key, found in (config.get("alpha_pattern") or {}).items():
        if any(called_like(name, key) for name in called):
            alpha = found
            break
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _short(name: str, names: Names) -> str:
    return name.removeprefix(names.prefix)


def _parted(
    tensors: Mapping[str, Tensor], names: Names, adapter: Path
) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor]]:
    """The A and B of each module, and whole tensors by our names."""
    found: dict[str, dict[str, Tensor]] = {}
    whole: dict[str, Tensor] = {}
    by_theirs = {_short(name, names): move for move in names.moves.values() for name, _ in move.theirs if name}
    rest: dict[str, Tensor] = {}
    for full, tensor in tensors.items():
        name = _short(full.removeprefix(PREFIX), names)
        if match := TENSOR.fullmatch(name):
            found.setdefault(match[1], {})[match[2]] = tensor
        elif name in by_theirs:
            rest[name] = tensor
        else:
            what = f"has the tensor `{full}`, which this model does not know"
            raise fail(what, where=str(adapter), fix=close(name, by_theirs))
    for name, pair in found.items():
        if len(pair) < 2:
            raise fail(f"has only `{next(iter(pair))}` of `{name}`", where=str(adapter), fix="restore it from a copy")
    for name in rest:
        move = by_theirs[name]
        missing = [one for one, _ in move.theirs if one and _short(one, names) not in rest]
        if missing:
            raise fail(f"has `{name}`, but not `{missing[0]}`", where=str(adapter), fix="restore it from a copy")
        for one, shape in move.theirs:
            if one and (got := tuple(rest[_short(one, names)].shape)) != shape:
                told = f"got {list(got)}, expected {list(shape)}"
                raise fail(f"`{one}` has another shape", told, where=str(adapter), fix="use its own base")
        whole |= move.read({one: rest[_short(one, names)] for one, _ in move.theirs if one})
    return found, whole


def _maps(checked: CheckedGraph) -> list[str]:
    """The names of the linear maps in a graph's module."""
    model = build(checked, device="meta")
    return [name for name, module in model.named_modules() if type(module).forward is nn.Linear.forward]


def _with_updates(checked: CheckedGraph, updates: Mapping[str, list[Piece]]) -> CheckedGraph:
    """The graph with updates of these maps, alike in all layers: as wide as the widest of them."""
    alike: dict[str, list[Piece]] = {}
    for ours, pieces in updates.items():
        alike.setdefault(re.sub(r"\.[0-9]+\.", ".*.", ours), []).extend(pieces)
    for pattern, pieces in alike.items():
        module = build(checked, device="meta").get_submodule(pieces[0][0].ours)
        assert isinstance(module, nn.Linear)
        ranges = part_ranges(module)
        parts: set[str] = set()
        for place, *_ in pieces:
            part = next((name for name, found in ranges.items() if found == (place.start, place.stop)), None)
            if part is None:
                raise fail(f"outputs {place.start} to {place.stop} of `{place.ours}` are no part of it")
            parts.add(part)
        rank = max(len(down) for _, down, _, _ in pieces)
        scales = {scale for *_, scale in pieces}
        alpha = rank * scales.pop() if len(scales) == 1 else float(rank)
        graph = add_lora(checked, [pattern], {"rank": rank, "alpha": alpha}, sorted(parts - {""}), MetaProbe(), pattern)
        checked = check_graph(graph)
    return checked


def _fill(module: nn.Module, pieces: list[Piece]) -> None:
    """Writes updates into a map; where there are none, or narrower ones, B stays zero."""
    assert isinstance(module, LoRALinear)
    downs, ups = module.downs(), module.ups()
    for place, down, up, scale in pieces:
        at = module.ranges.index((place.start, place.stop))
        downs[at][: len(down)] = down
        ups[at][:, : len(down)] = up if scale == module.scale else up * (scale / module.scale)
