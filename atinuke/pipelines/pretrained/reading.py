"""How a deployed pretrained model reads what people have, and what its classes are called.

A model folder says no fields, as a recipe does; but what its inputs are follows from their sizes, and what stands
around a text from its tokenizer.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from atinuke.core import dims
from atinuke.core.checked import CheckedGraph
from atinuke.core.errors import fail
from atinuke.core.fit import Type
from atinuke.pipelines.encoding import Texts
from atinuke.pipelines.pretrained.config import CONFIG
from atinuke.pipelines.pretrained.folder import TOKENIZER, open_folder

SEGMENTS = "segment_ids"
LOGITS = "logits"

Fields = dict[str, dict[str, Any]]


def fields(folder: Path, checked: CheckedGraph, written: str | None) -> Fields:
    """How the inputs of the model in a folder are read, in the words of a bundle's fields (`atinuke.runtime.fields`):
    one text, or one recording. None where anything else has to be given too. `written` is the input that the model
    writes itself.

    Texts have the special tokens of the tokenizer around them, and are not cut.
    """
    inputs = {name: given for name, given in checked.body.inputs.items() if name != written}
    found: Fields = {}
    covered: set[str] = set()
    for name, given in inputs.items():
        masks = [one for one, other in inputs.items() if other.dtype == "bool" and other.shape == given.shape]
        mask = masks[0] if masks else None
        field = None
        if given.dtype == "int64" and len(given.shape) == 2 and name != SEGMENTS:
            segments = SEGMENTS if SEGMENTS in inputs and inputs[SEGMENTS].shape == given.shape else None
            field = _text(folder, _longest(checked, given), mask, segments)
            covered |= {segments} if segments else set()
        elif given.dtype == "float" and len(given.shape) == 2 and isinstance(checked.dims.get("rate"), int):
            rate = checked.dims["rate"]
            field = {"name": "audio", "rate": rate, "longest": _longest(checked, given) / rate, "mask": mask}
        if field:
            found[name] = {**field, "multiple": 1, "optional": False}
            covered |= {name, *masks[:1]}
    left = [name for name, given in checked.graph.inputs.items() if name in inputs and not given.optional]
    return found if covered >= set(left) else {}


def classes(folder: Path, checked: CheckedGraph) -> Mapping[str, tuple[str, ...]]:
    """The names of the classes of `logits`, where the model says one of several (`id2label` of its config.json).

    Raises:
        AtinukeError: they are not as many as the model has.
    """
    config = open_folder(folder).config.huggingface
    names = config.get("id2label") or {}
    found = checked.body.outputs.get(LOGITS)
    several = len(names) > 1 and config.get("problem_type") in (None, "single_label_classification")
    if found is None or "classes" not in checked.dims or not several:
        return {}
    if sorted(names, key=str) != sorted(map(str, range(int(found.shape[-1]))), key=str):
        told = f"the model has the classes 0 to {int(found.shape[-1]) - 1}"
        raise fail("has an `id2label` of other classes than the model", told, where=str(folder / CONFIG))
    return {LOGITS: tuple(str(names[str(number)]) for number in range(len(names)))}


def _text(folder: Path, length: int, mask: str | None, segments: str | None) -> dict[str, Any] | None:
    """A field of one text; None where there is no tokenizer whose special tokens have names."""
    texts = Texts.load(folder / TOKENIZER) if (folder / TOKENIZER).is_file() else None
    if texts is None or not texts.special:
        return None
    opens = texts.special[-1]  # a name that opens the tokenizer; the template has the tokens
    said = {"pair": False, "segments": segments, "length": length, "cut": False, "end_of_text": opens}
    return {"name": "text", **said, "template": texts.template(False), "mask": mask}


def _longest(checked: CheckedGraph, given: Type) -> int:
    return int(given.shape[1].subs({dims.axis(name): axis.high for name, axis in checked.graph.axes.items()}))
