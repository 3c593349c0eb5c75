"""Texts that a model writes about a source, against those that are right: speech recognition and translation.

    atinuke evaluate models/whisper --task transcription --data clips.jsonl
    atinuke evaluate models/t5 --task translation --data pairs.tsv --set 'task.prefix=translate English to German: '

Files are tables with tabs (.tsv) or JSON lines; paths in them start from their folder. A run reads its source as its
recipe's field says; a model folder as its family does.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field as Setting
from rich.console import Console
from rich.progress import track

from atinuke.core.checked import CheckedGraph
from atinuke.core.errors import AtinukeError, fail
from atinuke.core.names import close
from atinuke.pipelines.collate import collate
from atinuke.pipelines.encoding import Texts
from atinuke.pipelines.fields import Array, Audio, Field, Text, decode
from atinuke.pipelines.generate import generate
from atinuke.pipelines.rows import Row
from atinuke.pipelines.run import Run, Trained, writer
from atinuke.pipelines.sampling import Settings
from atinuke.pipelines.scores.reading import word_errors
from atinuke.pipelines.scores.score import Score
from atinuke.pipelines.scores.translation import bleu, chrf
from atinuke.pipelines.task import Item, Untrained
from atinuke.pipelines.tasks.columns import Layout, read
from atinuke.pipelines.train import TOKENIZER


class Written(Untrained):
    """Texts of at most `length` new tokens, by a search with so many `beams`, one of them being the likeliest token at
    each step.

    `source` and `target` are the columns. A file without the target is to be answered. `begin` names tokens that a text
    begins with, behind those that all texts of the model do, such as a language: `['<|yo|>', '<|transcribe|>']`.
    """

    kind: ClassVar[str]
    """The kind of the source, a field's."""

    source: str
    target: str = "text"
    beams: Annotated[int, Setting(ge=1, le=256)] = 1
    begin: Annotated[tuple[str, ...], Setting(strict=False)] = ()

    def load(self, file: Path) -> list[Item]:
        layouts = (Layout((self.source,), self.target), Layout((self.source,)))
        items = []
        for found in read(file, layouts, self.name):
            gold = found.values[self.target] if found.layout.label else None
            for name, value in ((self.source, found.values[self.source]), (self.target, gold)):
                if not isinstance(value, str) and not (name == self.target and found.layout.label is None):
                    raise fail(f"`{name}` is not a text", f"got {value!r:.40}", where=found.where)
            items.append(
                Item(f"{file.name}:{found.number + 1}", found.where, (found.values[self.source], file.parent), gold)
            )
        return items

    def predict(self, run: Trained, folder: Path, items: Sequence[Item], console: Console) -> list[Any]:
        found = writer(run, folder)
        special = found.tokenizer.special
        for name in self.begin:
            if name not in special:
                told = f"the tokenizer has no special token `{name}`"
                raise fail(told, where="task.begin", fix=close(name, special) or "name one of its own")
        prompt = [special[name] for name in self.begin]
        room = found.context - len(found.begin) - len(prompt)
        settings = Settings(temperature=0, max_new_tokens=min(self.length, room), beams=self.beams)
        name, field = self._field(found, folder)
        texts = Texts.load(folder / TOKENIZER) if run.made is None and isinstance(field, Text) else None
        said: list[str] = []
        for start in track(range(0, len(items), self.batch), "measuring", console=console, transient=True):
            some = items[start : start + self.batch]
            examples = [{name: self._value(item, field, found, texts)} for item in some]
            batch = collate(examples, {name: field})
            given = {key: tensor for key, tensor in batch.items() if key in found.given}
            _require_sizes(run.checked, name, given, some)
            written = generate(
                found.model,
                found.tokenizer,
                [prompt] * len(some),
                settings,
                found.context,
                given=given,
                begin=found.begin,
                muted=found.muted,
            )
            said += [one.text.strip() for one in written]
        return said

    def _field(self, run: Run, folder: Path) -> tuple[str, Field]:
        """The one input that the source feeds, and how it is read."""
        if run.made is not None:
            rows = run.made.rows
            named = {name: one for name, one in (rows.fields if rows else {}).items() if one.name == self.kind}
            fields: dict[str, Field] = {name: one for name, one in named.items() if name in run.given}
        else:
            inputs = run.checked.body.inputs
            masks = [name for name in run.given if inputs[name].dtype == "bool"]
            fields = {
                name: self.field(run.checked, name, masks[0] if masks else None)
                for name in run.given
                if len(inputs[name].shape) == 2 and inputs[name].dtype in self.dtypes
            }
        if len(fields) != 1:
            told = f"its texts depend on: {', '.join(run.given) or 'nothing but their beginning'}"
            raise fail(f"does not write from one {self.kind} alone", told, where=str(folder))
        ((name, field),) = fields.items()
        return name, field.model_copy(update={"column": self.source})

    dtypes: ClassVar[tuple[str, ...]]
    """What the input of a model folder may be of."""

    def field(self, checked: CheckedGraph, name: str, mask: str | None) -> Field:
        """How a model folder's input is read."""
        raise NotImplementedError

    def _value(self, item: Item, field: Field, run: Run, texts: Texts | None) -> Array | None:
        source, folder = item.given
        try:
            if texts is not None:  # a pretrained model was trained with the special tokens around its source
                return texts.join(texts.pieces(self.asked(source))).ids
            return decode(field, Row({self.source: self.asked(source)}, str(item.where), folder), run.tokenizer)
        except AtinukeError as error:
            mistake = error.mistakes[0]
            told = (str(mistake.where), *mistake.details) if mistake.where else mistake.details
            raise fail(mistake.what, *told, where=item.where, fix=mistake.fix) from None

    def asked(self, source: str) -> str:
        """The source as the model gets it."""
        return source

    def files(self, items: Sequence[Item], predictions: Sequence[Any]) -> dict[str, str]:
        return {"predictions.txt": "".join(f"{' '.join(one.split())}\n" for one in predictions)}


class Transcription(Written):
    """What is said in sounds, by its word error rate. With `plain`, case and punctuation do not count."""

    kind: ClassVar[str] = "audio"
    dtypes: ClassVar[tuple[str, ...]] = ("float", "float32")

    name: Literal["transcription"]
    source: str = "sound"
    plain: bool = False

    def field(self, checked: CheckedGraph, name: str, mask: str | None) -> Field:
        rate = checked.dims.get("rate")
        if not isinstance(rate, int):
            raise fail("does not say at which rate it hears", where=checked.graph.where, fix="give it the dim `rate`")
        return Audio(column=self.source, rate=rate, mask=mask)

    def score(self, items: Sequence[Item], predictions: Sequence[Any]) -> tuple[Score, ...]:
        return (word_errors([self._words(item.gold) for item in items], [self._words(one) for one in predictions]),)

    def _words(self, text: str) -> str:
        return re.sub(r"[^\w\s']|_", " ", text.casefold()) if self.plain else text


class Translation(Written):
    """Texts in another language, by chrF and BLEU. `prefix` stands before each source, where a model was trained so."""

    kind: ClassVar[str] = "text"
    dtypes: ClassVar[tuple[str, ...]] = ("int64",)

    name: Literal["translation"]
    source: str = "source"
    prefix: str = ""

    def field(self, checked: CheckedGraph, name: str, mask: str | None) -> Field:
        return Text(column=self.source, length=2**31 - 1, mask=mask)

    def asked(self, source: str) -> str:
        return self.prefix + source

    def score(self, items: Sequence[Item], predictions: Sequence[Any]) -> tuple[Score, ...]:
        right = [item.gold for item in items]
        return chrf(predictions, right), bleu(predictions, right)


def _require_sizes(checked: CheckedGraph, name: str, given: dict[str, Any], items: Sequence[Item]) -> None:
    """Refuses a source that is longer or shorter than the graph was proved for, by the item that has it."""
    axis = checked.graph.axes.get(str(checked.body.inputs[name].shape[1]))
    size = given[name].shape[1]
    if axis is None or axis.low <= size <= axis.high:
        return
    mask = next((one for key, one in given.items() if key != name), None)
    at = 0 if mask is None else int(np.argmax(mask.sum(1).numpy()))
    what = f"has {size:,} {'samples' if given[name].is_floating_point() else 'tokens'}, but the graph reads {axis}"
    raise fail(what, where=items[at].where, fix="cut it, or leave it out")
