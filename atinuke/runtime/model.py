"""A deployed model, opened for use: arrays in, arrays out; texts, where it writes them."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from atinuke.core.component import import_target
from atinuke.core.errors import AtinukeError, fail, raise_all
from atinuke.core.registry import Registry
from atinuke.runtime import fields
from atinuke.runtime.bundle import TOKENIZER, Bundle, Text, open_bundle
from atinuke.runtime.ctc import BLANK, collapsed
from atinuke.runtime.generate import Decoder, require_given
from atinuke.runtime.interface import CAPACITY, Array
from atinuke.runtime.runner import Runner
from atinuke.runtime.sampling import Muted, Sampler, Settings, mute
from atinuke.runtime.text import Continuation, OnText, Row, misfits, write
from atinuke.runtime.tokenizer import Tokenizer

Values = Mapping[str, Sequence[Any]]


def load(bundle: str | Path, build: str | None = None, threads: int | None = None) -> "Model":
    """The model in a bundle's folder.

    `build` is a target and its precision, such as `onnx/int8`; where none is said it is the bundle's first whose engine
    this machine has (`Model.build` tells which). Builds whose files hold machine code (`aot`, `tensorrt`) can do
    whatever a program can, so they run only when they are named: name one if you trust where the bundle comes from.
    A call uses `threads` threads (None: as many as the engine likes).

    Raises:
        AtinukeError: there is no such bundle or build, this machine cannot run it, or only machine code could run here.
    """
    opened = open_bundle(Path(bundle))
    build = _first(opened) if build is None else build
    return Model(opened, build, opened.runner(build, threads))


def _first(bundle: Bundle) -> str:
    """The first build whose engine is here and whose files hold no machine code."""
    lacks = {}
    native = []
    for build in bundle.builds:
        runner = runner_of(build.rpartition("/")[0])
        lack = runner.missing()
        if lack is not None:
            lacks[build] = lack
        elif runner.native:
            native.append(build)
        else:
            return build
    told = [f"{build} needs {lack}" for build, lack in lacks.items()]
    if native:
        raise fail(
            "only machine code of the bundle could run here, and that must be asked for",
            f"it has {', '.join(native)}",
            *told,
            where=str(bundle.folder),
            fix=f"if you trust where the bundle comes from, name the build: {native[0]}",
        )
    raise fail("this machine can run none of its builds", *told, where=str(bundle.folder), fix="see `atinuke doctor`")


def runner_of(target: str) -> type[Runner]:
    """What runs a target; raises AtinukeError where there is no such target or its module cannot be imported."""
    found: type[Runner] = import_target(Registry().backend(target).runner)
    return found


class Model:
    """A build of a bundle. `build` says which; `runner` calls its programs one by one."""

    def __init__(self, bundle: Bundle, build: str, runner: Runner) -> None:
        self.bundle = bundle
        self.build = build
        self.runner = runner

    def __call__(self, program: str | None = None, /, **arrays: Array) -> dict[str, Array]:
        """The outputs of a program by name; a bundle's only one where none is said.

        Raises:
            AtinukeError: there is no such program, or the arrays do not fit it; see `Interface.check`.
        """
        known = self.bundle.programs
        if program is None and len(known) == 1:
            (program,) = known
        if program is None or program not in known:
            what = "say which program" if program is None else f"the bundle has no program `{program}`"
            raise fail(what, f"it has {', '.join(known)}", where=str(self.bundle.folder))
        return self.runner.run(program, arrays)

    @property
    def reads(self) -> dict[str, fields.Field]:
        """The fields that people give values of: what the model reads, but for the text that it writes."""
        first = next(iter(self.bundle.programs.values()))
        asked = {port.name for port in first.given} if not self.writes or "prepare" in self.bundle.programs else set()
        return {name: field for name, field in self.bundle.fields.items() if name in asked}

    @property
    def writes(self) -> bool:
        """Whether it goes on from texts."""
        return "decode" in self.bundle.programs

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The bundle's; raises AtinukeError where it has none."""
        told = [self.bundle.text.end_of_text] if self.bundle.text else []
        told += [field["end_of_text"] for field in self.bundle.fields.values() if field.get("end_of_text")]
        if not told:
            raise fail("the bundle has no tokenizer", where=str(self.bundle.folder), fix="give arrays instead of texts")
        ends = self.bundle.text.ends if self.bundle.text else ()
        return Tokenizer.load(self.bundle.folder / TOKENIZER, told[0], ends)

    def read(self, values: Values) -> dict[str, Array]:
        """Texts, and the paths or bytes of files, as the arrays that the first program takes: for each field as many
        values as there are rows. A field that may be missing is, where no value is given.

        Raises:
            AtinukeError: a name is not of a field, one is missing, or a value cannot be read.
        """
        known = self.reads
        for name in values:
            if name not in known:
                raise fail(f"the model reads no `{name}`", f"it reads {', '.join(known) or 'nothing but a prompt'}")
        counts = {len(found) for found in values.values()}
        if len(counts) > 1:
            told = (f"{name}: {len(found):,}" for name, found in values.items())
            raise fail("every field needs the same number of values", *told, fix="give one for each row")
        rows = counts.pop() if counts else 1
        arrays: dict[str, Array] = {}
        for name, field in known.items():
            if name not in values and not field.get("optional"):
                kinds = ", ".join(f"{one} ({known[one]['name']})" for one in known)
                raise fail(f"the model needs `{name}`", f"it reads {kinds}", fix=f"--given {name}=...")
            texts = field["name"] == "text" and field["end_of_text"] is not None
            tokenizer = self.tokenizer if texts else None
            found: list[Array | None] = [None] * rows
            try:
                found = [fields.read(field, value, tokenizer) for value in values[name]] if name in values else found
            except AtinukeError as error:
                raise fields.named(name, error) from None
            arrays |= fields.batch(name, field, found)
        first = next(iter(self.bundle.programs.values()))
        taken = {port.name for port in first.inputs}
        return {name: array for name, array in arrays.items() if name in taken}

    def generate(
        self,
        prompts: Sequence[str] = ("",),
        settings: Settings | None = None,
        on_text: OnText | None = None,
        given: Mapping[str, Array] | None = None,
        **values: Any,
    ) -> list[Continuation]:
        """Continues each prompt; `values` are settings by name, in place of `settings`.

        `given` is what the model reads beside the text, such as `model.read({"source_ids": ["Good morning"]})`, a row
        for each prompt. A row does not depend on the others. `on_text(row, text)` gets each piece of text as soon as it
        is certain: whole characters, and nothing that may turn out to be part of a stop string. For the same seed the
        tokens are those of the trained model.

        Raises:
            AtinukeError: the bundle writes no texts, what it reads is not given, a prompt is empty (and texts do not
                begin with tokens of their own) or does not fit into the context together with the new tokens, or the
                logits are not numbers.
        """
        rows, steps = self._begun(prompts, settings or Settings.read(**values), on_text, given or {})
        for _ in steps:
            pass
        return [row.continuation() for row in rows]

    def stream(
        self,
        prompts: Sequence[str] = ("",),
        settings: Settings | None = None,
        given: Mapping[str, Array] | None = None,
        **values: Any,
    ) -> Iterator[tuple[int, str]]:
        """The same texts while they are written: pairs of a row and a piece of its text; errors as for `generate`."""
        pieces: list[tuple[int, str]] = []
        keep: OnText = lambda row, text: pieces.append((row, text))  # noqa: E731
        _, steps = self._begun(prompts, settings or Settings.read(**values), keep, given or {})
        return _taken(steps, pieces)

    @property
    def begin(self) -> tuple[int, ...]:
        """The tokens that a text begins with; where there are any, a prompt may be empty."""
        begins = self.bundle.text.begins if self.bundle.text else False
        if isinstance(begins, tuple):
            return begins
        return (self.tokenizer.end_of_text,) if begins or "prepare" in self.bundle.programs else ()

    @property
    def context(self) -> int:
        """The longest text, in tokens; raises AtinukeError where the bundle writes none."""
        return min(self._text().context, self.bundle.axes[CAPACITY][1])

    def room(self, prompts: Sequence[str]) -> int:
        """How many new tokens there is room for behind the longest of the prompts; the default setting if that fits."""
        longest = len(self.begin) + max((len(self.tokenizer.encode(prompt)) for prompt in prompts), default=0)
        return max(1, min(Settings.max_new_tokens, self.context - longest))

    def _begun(
        self, prompts: Sequence[str], settings: Settings, on_text: OnText | None, given: Mapping[str, Array]
    ) -> tuple[list[Row], Iterator[None]]:
        context = self.context
        encoded = [self.tokenizer.encode(prompt) for prompt in prompts]
        begun = [[*self.begin, *prompt] for prompt in encoded]
        require_given(self.runner, given, len(prompts))
        raise_all(misfits(begun, settings, context))
        rows = [Row(i, prompt, self.tokenizer, settings.stop, on_text) for i, prompt in enumerate(encoded)]
        if not rows:
            return rows, iter(())
        decoder, sampler, muted = Decoder(self.runner, begun, given), Sampler(settings, begun), self._text().muted
        chosen = lambda logits, step: sampler(mute(logits, muted, step), step)  # noqa: E731
        return rows, write(decoder, chosen if muted != Muted() else sampler, rows, settings.max_new_tokens)

    def _text(self) -> Text:
        if not self.writes or self.bundle.text is None:
            where = str(self.bundle.folder)
            if not self.writes:
                raise fail("the model writes no texts", f"its programs: {', '.join(self.bundle.programs)}", where=where)
            raise fail("the bundle has no tokenizer", where=where, fix="compile a run that was trained on texts")
        return self.bundle.text

    def best(self, output: str, scores: Array) -> list[list[tuple[str, float]]]:
        """The classes of each row by their shares (softmax), best first, given the output's `[batch, classes]`."""
        names = self.bundle.classes[output]
        powers = np.exp(scores.astype(np.float64) - scores.max(-1, keepdims=True))
        shares = powers / powers.sum(-1, keepdims=True)
        order = np.argsort(-shares, -1, kind="stable")
        return [[(names[i], float(row[i])) for i in best] for row, best in zip(shares, order, strict=True)]

    def labels(self, output: str, outputs: Mapping[str, Array]) -> list[list[str]]:
        """What each row says, by name: the likeliest alignment of CTC's scores `[batch, frames, classes]`, whose blank
        has no name. Frames that a mask among the outputs hides do not count. Raises AtinukeError where no class is a
        blank."""
        if BLANK not in self.bundle.classes[output]:
            raise fail(f"no class of `{output}` is CTC's blank", f"it has {', '.join(self.bundle.classes[output][:5])}")
        names, ports = self.bundle.classes[output], self.bundle.programs["forward"].outputs
        scores = outputs[output]
        frames = next(port for port in ports if port.name == output).shape[:2]
        masks = [outputs[port.name] for port in ports if port.dtype == "bool" and port.shape == frames]
        mask = masks[0] if len(masks) == 1 else np.ones(scores.shape[:2], bool)
        paths = (row[there].argmax(-1).tolist() for row, there in zip(scores, mask, strict=True))
        return [[names[label] for label in collapsed(path, names.index(BLANK))] for path in paths]


def _taken(steps: Iterator[None], pieces: list[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    for _ in steps:
        yield from pieces
        pieces.clear()
