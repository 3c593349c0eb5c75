"""README.md of a bundle: what it is and how to run it, for people who have never seen Atinuke.

A model card as model hubs have them: Markdown, with YAML in front.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from atinuke.core.files import is_file
from atinuke.runtime.bundle import GRAPH, PARITY, WEIGHTS, Bundle
from atinuke.runtime.interface import Interface, Port
from atinuke.runtime.lock import LOCK, Provenance
from atinuke.runtime.parity import Build, read_parity
from atinuke.runtime.quality import explain
from atinuke.runtime.quality import table as quality_rows
from atinuke.runtime.snippets import with_atinuke, with_onnxruntime
from atinuke.runtime.strict import brief

_TASKS = {"image": "image-classification", "audio": "audio-classification", "text": "text-classification"}
_SHOWN = 20  # names of classes

STEPS = """\
A text is written in calls that each go on from the last:

{prepare}1. `prefill` reads the beginning of a text, or any piece of it: `{text}` is `[batch, {length}]`.
   `position[b]` is the place of its first token in the text of row b: 0 at first. `last[b]` is the index, in this
   piece, of the token whose answer is wanted: the last of the row. Shorter rows are filled up on the right.
2. `decode` reads one more token of each row, `[batch, 1]`, whose place in the text is `position[b]`.

Memory is what was read so far. It goes into every call and comes out changed: what comes out as `{new}` goes in as
`{old}` the next time. It begins as zeros; `capacity` is the longest text, in tokens, that it has room for. What filling
up has written there is never read: the tokens that come later take its place."""

PREPARE = """\
0. `prepare` reads everything but the text, once. What it gives goes into every later call under the same names.
"""


PROOF = f"""\
Builds are compared with the model as PyTorch runs it in float32, at the ends of all axes and between. An error is the
largest difference in an output, as a share of the output's largest value; a bundle is written only where it is within
the budget. `{PARITY}` tells of every call; `atinuke verify` compares again on another machine."""


def card(bundle: Bundle, provenance: Provenance, front: str | None = None) -> str:
    """The text of the card; `front` is the YAML in front of it, where it is to stay as it is.

    Raises:
        AtinukeError: `parity.json` is not what a certificate is.
    """
    parts = [
        front or _front(bundle),
        f"# {bundle.name}",
        _about(bundle, provenance),
        "## What it takes and gives",
        *(part for name, interface in bundle.programs.items() for part in _program(name, interface)),
        "Sizes are numbers or axes. An axis may have any size of its range:",
        _table(("axis", "least", "most"), ((f"`{name}`", low, high) for name, (low, high) in bundle.axes.items())),
        *_texts(bundle),
        *_classes(bundle),
        "## Builds",
        _builds(bundle),
        *_quality(bundle),
        "## Running it",
        *with_atinuke(bundle),
        *with_onnxruntime(bundle),
        "## What is in the folder",
        _files(provenance),
    ]
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def front_matter(file: Path) -> str | None:
    """The YAML in front of a card; None where there is none."""
    if not is_file(file):
        return None
    first, *lines = file.read_text(encoding="utf-8", errors="replace").splitlines() or [""]
    if first != "---" or "---" not in lines:
        return None
    return "\n".join([first, *lines[: lines.index("---") + 1]])


def _front(bundle: Bundle) -> str:
    tags = ["atinuke", *dict.fromkeys(build.split("/")[0].split(":")[-1] for build in bundle.builds)]
    lines = ["---", "# license: apache-2.0 (say yours here, then `atinuke seal` the folder)", "library_name: atinuke"]
    task = _task(bundle)
    lines += [f"pipeline_tag: {task}"] if task else []
    return "\n".join([*lines, "tags:", *(f"- {tag}" for tag in tags), "---"])


def _task(bundle: Bundle) -> str | None:
    """The task by the name that model hubs have for it, where there can be no doubt."""
    kinds = {field["name"] for field in bundle.fields.values()}
    if "prefill" in bundle.programs and not kinds:
        return "text-generation" if "prepare" not in bundle.programs else None
    return _TASKS.get(kinds.pop()) if len(kinds) == 1 and bundle.classes else None


def _about(bundle: Bundle, provenance: Provenance) -> str:
    made = f"A transformer, compiled by [Atinuke](https://arxiv.org/abs/2401.16736) {provenance.atinuke}"
    programs = ", ".join(f"`{name}`" for name in bundle.programs)
    calls = f"Its programs are {programs}" if len(bundle.programs) > 1 else f"Its program is {programs}"
    return f"{made}. {calls}. It runs without PyTorch wherever the runtime of one of its builds does."


def _program(name: str, interface: Interface) -> Iterable[str]:
    yield f"### {name}"
    new = set(interface.memory.values())
    rows = [("in", port, port.name in interface.memory) for port in interface.inputs]
    rows += [("out", port, port.name in new) for port in interface.outputs]
    yield _table(("", "name", "type", "shape", ""), _grouped(rows))


def _grouped(rows: Sequence[tuple[str, Port, bool]]) -> Iterable[tuple[str, str, str, str, str]]:
    """A row for each port, and one for many caches that are alike."""
    runs: list[list[tuple[str, Port, bool]]] = []
    for row in rows:
        way, port, memory = row
        before = runs[-1][0] if runs else None
        alike = before and memory and before[2] and before[0] == way
        if alike and before and (before[1].dtype, before[1].shape) == (port.dtype, port.shape):
            runs[-1].append(row)
        else:
            runs.append([row])
    for run in runs:
        way, port, memory = run[0]
        names = f"`{port.name}`" if len(run) == 1 else f"`{port.name}` to `{run[-1][1].name}` ({len(run)})"
        yield way, names, port.dtype, f"[{', '.join(map(str, port.shape))}]", "memory" if memory else ""


def _texts(bundle: Bundle) -> Iterable[str]:
    if "prefill" in bundle.programs:
        prefill = bundle.programs["prefill"]
        old, new = next(iter(prefill.memory.items()), ("", ""))
        text, prepare = prefill.given[0], PREPARE if "prepare" in bundle.programs else ""
        yield STEPS.format(prepare=prepare, text=text.name, length=text.shape[1], old=old, new=new)
    if bundle.text:
        end = _quoted(bundle.text.end_of_text)
        first = bundle.text.begins
        told = f"the tokens {list(first)}" if isinstance(first, tuple) else end
        begins = f" and begins with {told}" if first else ""
        more = f", or any of the tokens {list(bundle.text.ends)}," if bundle.text.ends else ""
        yield (
            f"Tokens are those of `tokenizer.json`. A text has at most {bundle.text.context:,} of them{begins}; "
            f"{end}{more} ends it."
        )


def _classes(bundle: Bundle) -> Iterable[str]:
    for output, names in bundle.classes.items():
        more = f", ... ({len(names):,} in all; `config.json` lists them)" if len(names) > _SHOWN else ""
        yield f"The last axis of `{output}` is {', '.join(map(_quoted, names[:_SHOWN]))}{more}."


def _quoted(text: str) -> str:
    """A text that Markdown leaves alone."""
    return f"`{brief(text).replace('`', 'ˋ').replace('|', '∣')}`"


def _builds(bundle: Bundle) -> str:
    """Each target and precision, with what its certificate says."""
    file = bundle.folder / PARITY
    proved = {build.name: build for build in read_parity(file).builds} if is_file(file) else {}
    head = ("build", "size", *(("compared", "budget", "largest error", "same best", "same text") if proved else ()))
    rows = [
        (f"`{build}`", _size(bundle.place(build)), *(_figures(proved[build]) if build in proved else ()))
        for build in bundle.builds
    ]
    if not proved:
        return _table(head, rows)
    return f"{_table(head, rows)}\n\n{PROOF}"


def _quality(bundle: Bundle) -> Iterable[str]:
    """What the builds gain and cost, where that was measured."""
    file = bundle.folder / PARITY
    parity = read_parity(file) if is_file(file) else None
    if parity and parity.quality:
        head, *rows = quality_rows(parity.quality, {build.name: build.quality for build in parity.builds})
        yield _table(head, rows)
        yield explain(parity.quality)


def _figures(build: Build) -> tuple[str, str, str, str, str]:
    error = f"{build.worst[1].relative:.1e}" if build.worst else ""
    best = "" if build.agreement is None else f"{build.agreement:.1%}"
    texts = ""
    if build.texts:
        same = build.texts.steps if build.texts.first is None else build.texts.first
        texts = f"{same} of {build.texts.steps} tokens"
    return build.status, f"{build.budget:g}", error, best, texts


def _size(folder: Path) -> str:
    mebibytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / (1 << 20)
    return f"{mebibytes:,.1f} MiB"


def _files(provenance: Provenance) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in sorted(provenance.packages.items()))
    origins = {**provenance.components, **provenance.backends}.values()
    plugins = {f"{origin.package} {origin.version}" for origin in origins if origin.plugin}
    lines = [
        f"- `{GRAPH}` is the model's graph, `{WEIGHTS}` its weights in float32.",
        "- `config.json` is what the tables above say.",
        "- `targets/` holds the builds.",
        f"- `{LOCK}` has the size and SHA-256 of every file: a file that was changed or added is refused.",
    ]
    lines += [f"- Built with {packages}."] if packages else []
    lines += [f"- Plugins: {', '.join(sorted(plugins))}."] if plugins else []
    return "\n".join(lines)


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
