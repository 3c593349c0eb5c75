"""Code for the card of a bundle: the shortest programs that run it, with and without Atinuke."""

import json
from collections.abc import Iterable, Mapping

from atinuke.runtime.bundle import Bundle
from atinuke.runtime.interface import Interface, Port, work_out
from atinuke.runtime.model import runner_of

_FEW = 8  # tokens

STREAM = """\
import atinuke.runtime

model = {load}
for row, text in model.stream(["Once upon a time"], temperature=0.8, seed=1, max_new_tokens=20):
    print(text, end="", flush=True)"""
CPP = """\
C++ is the same with `Ort::Session`: the names, types and shapes are those of the tables above."""


def with_atinuke(bundle: Bundle) -> Iterable[str]:
    """On the command line and from Python."""
    yield f"```sh\npip install 'atinuke[runtime]'\n{_command(bundle)}\n```"
    if bundle.text and "prepare" not in bundle.programs and "decode" in bundle.programs:
        yield f"From Python:\n\n```python\n{STREAM.replace('{load}', _load(bundle))}\n```"
    name, interface = next(iter(bundle.programs.items()))
    sizes, program = example(bundle), _quoted(name)
    memory, call = "", f"model({program}, **feeds)"
    if interface.memory:
        memory = f"memory = model.runner.begin({program}, {json.dumps(sizes_of(interface, sizes))})\n"
        call = f"model.runner.step({program}, feeds, memory)"
    yield "With arrays in and arrays out (sizes that do not fit are refused by name):"
    yield f"""```python
import atinuke.runtime
import numpy as np

model = {_load(bundle)}
feeds = {{
{_feeds(interface, sizes)}
}}
{memory}outputs = {call}
print({{name: array.shape for name, array in outputs.items()}})
```"""


def with_onnxruntime(bundle: Bundle) -> Iterable[str]:
    """With nothing but ONNX Runtime, where there is an ONNX build."""
    build = next((build for build in bundle.builds if build.split("/")[0] == "onnx"), None)
    if build is None:
        return
    place = bundle.place(build).relative_to(bundle.folder).as_posix()
    code = _steps(bundle, place) if "prefill" in bundle.programs else _forward(bundle, place)
    yield "Without Atinuke, the ONNX files need only ONNX Runtime:"
    yield f"```python\n{code}\n```"
    yield CPP


def example(bundle: Bundle) -> dict[str, int]:
    """Sizes for an example: one row, a few tokens, everything else as large as it may be."""
    few = {"batch": 1}
    if "prefill" in bundle.programs:
        few[str(bundle.programs["prefill"].given[0].shape[1])] = _FEW
    return {name: min(max(low, few.get(name, high)), high) for name, (low, high) in bundle.axes.items()}


def sizes_of(interface: Interface, sizes: Mapping[str, int]) -> dict[str, int]:
    """The sizes of the axes of a program's memory."""
    ports = [port for port in interface.inputs if port.name in interface.memory]
    return {name: sizes[name] for name in sizes if any(name in port.shape for port in ports)}


def _command(bundle: Bundle) -> str:
    given = [
        f"--{kind} {example}"
        for kind, example in (("text", '"..."'), ("image", "picture.png"), ("audio", "sound.wav"))
        if any(field["name"] == kind for field in bundle.fields.values()) or (kind == "text" and bundle.text)
    ]
    named = _named(bundle)
    return " ".join(["atinuke run .", *([f"--target {named}"] if named else []), *given])


def _load(bundle: Bundle) -> str:
    named = _named(bundle)
    return f'atinuke.runtime.load(".", "{named}")' if named else 'atinuke.runtime.load(".")'


def _named(bundle: Bundle) -> str | None:
    """The build that must be named, where all are machine code."""
    native = all(runner_of(build.rpartition("/")[0]).native for build in bundle.builds)
    return bundle.builds[0] if native else None


def _zeros(port: Port, sizes: Mapping[str, int]) -> str:
    shape = tuple(size if isinstance(size, int) else work_out(size, sizes) for size in port.shape)
    fill = "ones" if port.dtype == "bool" else "zeros"
    return f"np.{fill}({shape}, {_quoted(port.dtype)})"


def _feeds(interface: Interface, sizes: Mapping[str, int]) -> str:
    return "\n".join(
        f"    {_quoted(port.name)}: {_zeros(port, sizes)},  # {_written(port)}" for port in interface.given
    )


def _quoted(text: str) -> str:
    return json.dumps(text)


def _written(port: Port) -> str:
    return f"[{', '.join(map(str, port.shape))}]"


def _forward(bundle: Bundle, place: str) -> str:
    interface = bundle.programs["forward"]
    return f"""import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("{place}/forward.onnx")
feeds = {{
{_feeds(interface, example(bundle))}
}}
names = [output.name for output in session.get_outputs()]
for name, array in zip(names, session.run(names, feeds)):
    print(name, array.shape)"""


def _steps(bundle: Bundle, place: str) -> str:
    """A greedy text of a few tokens."""
    sizes = example(bundle)
    prefill = bundle.programs["prefill"]
    text, rows = prefill.given[0], sizes["batch"]
    length = min(sizes[str(text.shape[1])], sizes["capacity"])
    scores = prefill.outputs[0].name
    caches = {port.dtype for port in prefill.inputs if port.name in prefill.memory}
    prepared, given = "", ""
    if "prepare" in bundle.programs:
        given = ", **given"
        prepared = f"""
given = call(open_("prepare"), {{
{_feeds(bundle.programs["prepare"], sizes)}
}})"""
    types = {"float32": "tensor(float)", "float16": "tensor(float16)", "float64": "tensor(double)"}
    kinds = ", ".join(f"{_quoted(types.get(dtype, f'tensor({dtype})'))}: {_quoted(dtype)}" for dtype in sorted(caches))
    return f"""import numpy as np
import onnxruntime


def open_(name):
    return onnxruntime.InferenceSession(f"{place}/{{name}}.onnx")


def call(session, feeds):
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds)))


def step(session, feeds):
    outputs = call(session, {{**feeds{given}, **memory}})
    for name in memory:  # what comes out goes in the next time
        memory[name] = outputs[name.replace("past_key_values.", "present.", 1)]
    return outputs[{_quoted(scores)}][:, 0].argmax(-1)  # the likeliest next token of each row


prefill, decode = open_("prefill"), open_("decode"){prepared}
kinds, sizes = {{{kinds}}}, {json.dumps(sizes_of(prefill, sizes))}
memory = {{
    port.name: np.zeros([sizes.get(size, size) for size in port.shape], kinds[port.type])
    for port in prefill.get_inputs()
    if port.name.startswith("past_key_values.")
}}
tokens = np.zeros(({rows}, {length}), {_quoted(text.dtype)})  # the beginning of the text
position = np.zeros({rows}, "int64")
last = position + tokens.shape[1] - 1
token = step(prefill, {{{_quoted(text.name)}: tokens, "position": position, "last": last}})
for place in range(tokens.shape[1], {min(length + 4, sizes["capacity"])}):
    print(token)
    feeds = {{{_quoted(text.name)}: token[:, None].astype(tokens.dtype), "position": position + place}}
    token = step(decode, feeds)"""
