"""What a config may say, and that no config, lock or certificate crashes the loader, whatever it says."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atinuke.core.errors import AtinukeError
from atinuke.runtime.bundle import CONFIG, PARITY, TOKENIZER, Bundle, open_bundle, read_config
from atinuke.runtime.card import card
from atinuke.runtime.lock import LOCK
from atinuke.runtime.parity import write_parity
from atinuke.runtime.seal import reseal
from tests.runtime.bundles import CERTIFICATE, MADE, forward_bundle, read, relock, text_bundle, write

Change = Callable[[Any], None]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "bundle"
    forward_bundle(made)
    return made


@pytest.mark.parametrize("make", [forward_bundle, text_bundle])
def test_a_bundle_opens_as_it_was_sealed(tmp_path: Path, make: Callable[[Path], Bundle]) -> None:
    assert make(tmp_path / "bundle") == open_bundle(tmp_path / "bundle")


def test_a_third_partys_target_has_a_folder_without_a_colon(folder: Path) -> None:
    assert open_bundle(folder).place("strided:edge/fp16") == folder / "targets/strided.edge/fp16"


def test_a_build_that_is_not_there_is_told(folder: Path) -> None:
    with pytest.raises(AtinukeError, match=r"the bundle has no `onnx/fp23`") as error:
        open_bundle(folder).runner("onnx/fp23")
    assert error.value.mistakes[0].fix == "use `onnx/fp32`"


def put(*path: str | int, value: Any) -> Change:
    def change(config: Any) -> None:
        for key in path[:-1]:
            config = config[key]
        config[path[-1]] = value

    return change


def drop(*path: str | int) -> Change:
    def change(config: Any) -> None:
        for key in path[:-1]:
            config = config[key]
        del config[path[-1]]

    return change


FORWARD = ("programs", "forward")
X = (*FORWARD, "inputs", 0)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (put("atinuke", value=2), "is of format 2; this Atinuke reads format 1"),
        (drop("builds"), "builds is missing"),
        (put("extra", value=1), "extra is not known"),
        (put("a\u001b[31m", value=1), r'["a\u001b[31m"] is not known'),
        (put("name", value="../up"), 'name must be a graph\'s name, not "../up"'),
        (put("name", value="x" * 101), "name must be a graph's name"),
        (put("axes", "batch", value=[4, 1]), "axes.batch[1] must be a whole number of 4 to"),
        (put("axes", "batch", value=[0, 1]), "axes.batch[0] must be a whole number of 1 to"),
        (put("axes", "batch", value=[1, True]), "axes.batch[1] must be a whole number"),
        (put("axes", "batch", value=[1, 2.0]), "axes.batch[1] must be a whole number"),
        (put("axes", "batch", value=[1]), "axes.batch must be a list of 2 to 2 values, not a list of 1"),
        (put("axes", "batch", value=[1, 1 << 41]), "axes.batch[1] must be a whole number"),
        (put("axes", "a-b", value=[1, 2]), 'axes["a-b"] is not a name that can stand here'),
        (drop("axes", "batch"), "shape[0] must be a number, an axis or arithmetic of axes"),
        (put("programs", value={}), "programs must be the programs forward, or prefill and decode"),
        (put("programs", "../x", value={}), "is not a name that can stand here"),
        (put("programs", "backward", value={}), "programs must be the programs"),
        (put(*X, "name", value="a/b"), "programs.forward.inputs[0].name must be a port's name"),
        (put(*X, "name", value="sound"), "must be another name, which no other port has"),
        (put(*X, "dtype", value="object"), "inputs[0].dtype must be one of bool, uint8"),
        (put(*X, "dtype", value=["float32"]), "inputs[0].dtype must be one of"),
        (put(*X, "shape", value=[-1]), "shape[0] must be a whole number"),
        (put(*X, "shape", value=[1] * 17), "shape must be a list of 0 to 16 values"),
        (put(*X, "shape", value=["batch", "nowhere"]), "shape[1] must be a number, an axis or arithmetic"),
        (put(*X, "shape", value=["batch", "__import__('os')"]), "shape[1] must be a number, an axis or arithmetic"),
        (put(*X, "shape", value=["batch", "batch//(batch - 1)"]), "shape[1] must be a number, an axis or arithmetic"),
        (put(*X, "shape", value=["batch", "batch//0"]), "shape[1] must be a number, an axis or arithmetic"),
        (put(*X, "shape", value=["batch", "9**9**9**9"]), "shape[1] must be a number, an axis or arithmetic"),
        (put(*X, "shape", value=["batch", "(" * 90 + "batch" + ")" * 90]), None),
        (put(*X, "shape", value=["batch", "-" * 195 + "batch"]), None),
        (put(*X, "shape", value=["batch", "-" * 2000 + "batch"]), "must be a number, an axis or arithmetic"),
        (put(*X, "shape", value=["batch", "(" * 150 + "batch"]), "must be a number, an axis or arithmetic"),
        (put(*FORWARD, "inputs", 1, "shape", value=["batch", "samples//2"]), "nothing tells the size samples//2"),
        (put(*FORWARD, "outputs", value=[]), "outputs must be a list of 1 to"),
        (put(*FORWARD, "memory", "x", value="nothing"), "memory.x must be one of scores, frames"),
        (put(*FORWARD, "memory", "y", value="scores"), "memory.y must be of an input"),
        (put(*FORWARD, "memory", "sound", value="frames"), "must be an output just like `sound: float32"),
        (
            put("text", value={"end_of_text": "<e>", "context": 0, "begins": True}),
            "text.context must be a whole",
        ),
        (put("text", value={"end_of_text": "<e>", "context": 1, "begins": 1}), "text.begins must be true or false"),
        (put("text", value={"end_of_text": "<e>", "context": 1, "begins": []}), "text.begins must be a list of 1 to"),
        (put("text", value={"end_of_text": "<e>", "context": 1, "begins": [-1]}), "text.begins[0] must be"),
        (put("text", value={"end_of_text": "\ud800", "context": 1, "begins": True}), "end_of_text must be a text"),
        (put("text", value={"end_of_text": "<e>", "context": 1, "begins": True}), "there is no tokenizer.json"),
        (put("fields", "sound", "name", value="video"), "fields.sound.name must be one of audio, image"),
        (put("fields", "sound", value={}), "fields.sound.name must be one of audio, image"),
        (
            put("fields", "sound", "rate", value="8000"),
            "fields.sound.rate must be a whole number of 1 to 1099511627776",
        ),
        (put("fields", "sound", "longest", value=-1), "fields.sound.longest must be a number above 0"),
        (put("fields", "sound", "column", value="x"), "fields.sound.column is not known"),
        (put("fields", "light", value={"name": "number"}), "must be of an input that a program has"),
        (put("classes", "scores", value=["cat"]), "classes.scores must be 3 names"),
        (put("classes", "frames", value=["cat"]), "classes.frames must be samples//160 + 1 names"),
        (put("classes", "none", value=["cat"]), "classes.none must be of an output that has axes"),
        (put("builds", value=[]), "builds must be a list of 1 to"),
        (put("builds", value=["onnx/fp32", "onnx/fp32"]), "builds must be different builds"),
        (put("builds", 0, value="../fp32"), "builds[0] must be a target and a precision"),
        (put("builds", 0, value="onnx/../fp32"), "builds[0] must be a target and a precision"),
        (put("builds", 0, value="/onnx/fp32"), "builds[0] must be a target and a precision"),
        (put("builds", 0, value="os:system/fp32/x"), "builds[0] must be a target and a precision"),
        (put("builds", 0, value="onnx/fp16"), "of which there are no files"),
    ],
)
def test_a_config_says_only_what_can_be(folder: Path, change: Change, says: str | None) -> None:
    config = read(folder, CONFIG)
    change(config)
    write(folder, CONFIG, config)
    relock(folder)
    if says is None:
        open_bundle(folder)
        return
    with pytest.raises(AtinukeError) as error:
        open_bundle(folder)
    (mistake,) = error.value.mistakes
    assert says in mistake.what
    assert "\x1b" not in str(mistake)
    assert str(mistake.where).startswith(str(folder))
    assert "\n" not in mistake.what


def test_two_inputs_cannot_remember_the_same_output(folder: Path) -> None:
    config = read(folder, CONFIG)
    forward = config["programs"]["forward"]
    forward["inputs"].append({**forward["inputs"][0], "name": "y"})
    forward["memory"] = {"x": "scores"}
    write(folder, CONFIG, config)
    assert read_config(folder).programs["forward"].memory == {"x": "scores"}
    forward["memory"] = {"x": "scores", "y": "scores"}
    write(folder, CONFIG, config)
    with pytest.raises(AtinukeError, match="each of another output"):
        read_config(folder)


def rename_text(config: Any) -> None:
    config["programs"]["decode"]["inputs"][0]["name"] = "tokens"


def other_cache(config: Any) -> None:
    for way in ("inputs", "outputs"):
        config["programs"]["decode"][way][-1]["shape"][1] = 7


def unread(config: Any) -> None:
    """An encoder whose answer no later program reads."""
    ports = ({"name": name, "dtype": "float32", "shape": ["batch", 4]} for name in ("source", "prepared.0"))
    inputs, outputs = ([port] for port in ports)
    config["programs"]["prepare"] = {"inputs": inputs, "outputs": outputs, "memory": {}}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (unread, "decode must be a program that reads `prepared.0: float32[batch, 4]`"),
        (drop("programs", "decode"), "programs must be the programs"),
        (drop("programs", "prefill", "inputs", 1), "programs.prefill must be a program of a text [batch, length]"),
        (
            drop("programs", "prefill", "memory", "past_key_values.0"),
            "decode must be a program with the memory of prefill",
        ),
        (rename_text, "programs.decode must be a program of `input_ids`, one token a row"),
        (other_cache, "decode must be a program with the memory of prefill"),
        (put("axes", "capacity", value=[3, 2]), "axes.capacity[1]"),
    ],
)
def test_the_programs_of_a_text_go_together(tmp_path: Path, change: Change, says: str) -> None:
    text_bundle(tmp_path / "bundle")
    config = read(tmp_path / "bundle", CONFIG)
    change(config)
    write(tmp_path / "bundle", CONFIG, config)
    with pytest.raises(AtinukeError) as error:
        read_config(tmp_path / "bundle")
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is not strict JSON"),
        (b"\xff{}", "is not strict JSON"),
        (b"\xef\xbb\xbf{}", "is not strict JSON"),
        (b"{} {}", "is not strict JSON"),
        (b'{"atinuke": 1, "atinuke": 1}', 'key "atinuke" is there twice'),
        (b'{"atinuke": NaN}', "NaN is not a number"),
        (b'{"atinuke": -Infinity}', "-Infinity is not a number"),
        (b'{"atinuke": 1e999}', '"1e999" is not a finite number'),
        (b'{"atinuke": ' + b"9" * 5000 + b"}", "is not strict JSON"),
        (b"[" * 1_000_000, "is nested too deep"),
        (b'{"a":' * 100_000, "is nested too deep"),
        (b" " * ((16 << 20) + 1), "is larger than 16 MiB"),
        (b"[]", "must be the format's number, 1, not null"),
        (b"null", "must be the format's number, 1, not null"),
    ],
)
@pytest.mark.parametrize("name", [CONFIG, LOCK])
def test_json_is_read_strictly(folder: Path, name: str, content: bytes, says: str) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(AtinukeError) as error:
        read_config(folder) if name == CONFIG else open_bundle(folder)
    assert says in str(error.value)
    assert str(folder / name) in str(error.value)


# Fuzzing: a valid file with values replaced, keys dropped, doubled or renamed, or its bytes changed.

JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.sampled_from([0, 1, -1, 2**63, 10**30, 10**400]),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=20),
        st.sampled_from(
            ["batch", "capacity", "samples//160 + 1", "forward", "../x", "onnx/fp32", "float32", "\ud800", "x" * 2000]
        ),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=10), inner, max_size=4)),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value."""
    keys = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, inner in keys for place in places(inner, (*path, key)))]


def mutated(data: st.DataObject, good: Any) -> Any:
    whole = {"": copy.deepcopy(good)}
    for _ in range(data.draw(st.integers(1, 3))):
        *path, key = ("", *data.draw(st.sampled_from(places(whole[""]))))
        owner: Any = whole
        for step in path:
            owner = owner[step]
        act = data.draw(st.sampled_from(["replace", "drop", "rename", "copy", "swap"] if path else ["replace"]))
        if act == "replace":
            owner[key] = data.draw(JSON)
        elif act == "swap":
            others = places(whole[""])
            other: Any = whole[""]
            for step in data.draw(st.sampled_from(others)):
                other = other[step]
            owner[key] = copy.deepcopy(other)
        elif act == "drop":
            del owner[key]
        elif isinstance(owner, list):
            owner.insert(key, copy.deepcopy(owner[key]))
        else:
            new = data.draw(st.one_of(st.text(max_size=12), st.sampled_from([*owner])))
            owner[new] = copy.deepcopy(owner[key]) if act == "copy" else owner.pop(key)
    return whole[""]


def require_sound(folder: Path) -> None:
    """An error of ours, or a bundle that can be used."""
    try:
        bundle = open_bundle(folder)
    except AtinukeError as error:
        str(error).encode()
        return
    for interface in bundle.programs.values():
        with pytest.raises(AtinukeError):
            interface.check({"nothing": 0}, bundle.axes)  # type: ignore[dict-item]
    card(bundle, MADE).encode()
    for build in bundle.builds:
        assert bundle.place(build).resolve().is_relative_to(folder.resolve())
        assert bundle.place(build).is_dir()


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, dict[str, bytes]]]:
    """Two bundles, and the files in them that are changed."""
    made = []
    for make in (forward_bundle, text_bundle):
        folder = tmp_path_factory.mktemp("sealed") / "bundle"
        make(folder)
        write_parity(folder / PARITY, CERTIFICATE)
        reseal(folder)
        open_bundle(folder)
        made.append((folder, {name: (folder / name).read_bytes() for name in (CONFIG, LOCK, PARITY)}))
    return made


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_fuzzed_manifest_never_crashes_the_loader(
    data: st.DataObject, sealed: list[tuple[Path, dict[str, bytes]]]
) -> None:
    folder, good = data.draw(st.sampled_from(sealed), label="bundle")
    for name, content in good.items():
        (folder / name).write_bytes(content)
    name = data.draw(st.sampled_from([CONFIG, CONFIG, LOCK, PARITY]))
    changed = mutated(data, json.loads(good[name]))
    write(folder, name, changed)
    if name != LOCK:
        relock(folder)
    if name == PARITY:
        bundle = open_bundle(folder)
        try:
            card(bundle, MADE).encode()
        except AtinukeError:
            return
    require_sound(folder)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_random_bytes_never_crash_the_loader(data: st.DataObject, sealed: list[tuple[Path, dict[str, bytes]]]) -> None:
    folder, good = data.draw(st.sampled_from(sealed), label="bundle")
    for name, content in good.items():
        (folder / name).write_bytes(content)
    name = data.draw(st.sampled_from([CONFIG, LOCK]))
    content = bytearray(good[name])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content)))
        content[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    (folder / name).write_bytes(content)
    if name == CONFIG:
        relock(folder)
    require_sound(folder)


def test_a_text_bundle_needs_its_tokenizer(tmp_path: Path) -> None:
    text_bundle(tmp_path / "bundle")
    (tmp_path / "bundle" / TOKENIZER).unlink()
    relock(tmp_path / "bundle")
    with pytest.raises(AtinukeError, match=r"there is no tokenizer.json"):
        open_bundle(tmp_path / "bundle")


@pytest.mark.parametrize("keep", [0, 1, 40, 200, -1])
def test_a_truncated_engine_is_refused_though_the_lock_was_made_anew(folder: Path, keep: int) -> None:
    pytest.importorskip("onnx", reason="the file is made with onnx")
    pytest.importorskip("onnxruntime", reason="the file is opened by ONNX Runtime")
    open_bundle(folder).runner("onnx/fp32")
    file = folder / "targets/onnx/fp32/forward.onnx"
    file.write_bytes(file.read_bytes()[:keep])
    relock(folder)
    with pytest.raises(AtinukeError, match="ONNX Runtime cannot open it") as error:
        open_bundle(folder).runner("onnx/fp32")
    assert error.value.mistakes[0].where == str(file)


@pytest.mark.parametrize("location", ["../../../../secret", "{secret}"])
def test_an_engine_that_reads_files_elsewhere_is_refused(folder: Path, location: str) -> None:
    onnx = pytest.importorskip("onnx", reason="the file is made with onnx")
    pytest.importorskip("onnxruntime", reason="the file is opened by ONNX Runtime")
    secret = folder.parent / "secret"
    secret.write_bytes(bytes(12))
    place = folder / "targets/onnx/fp32"
    model = onnx.load(place / "forward.onnx")
    weight = onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [3], bytes(12), raw=True)
    model.graph.initializer.append(weight)
    model.graph.node.insert(0, onnx.helper.make_node("Add", ["x", "w"], ["y"]))
    model.graph.node[1].input[0] = "y"
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location.format(secret=secret))
    (place / "forward.onnx").write_bytes(model.SerializeToString())
    relock(folder)
    with pytest.raises(AtinukeError, match="ONNX Runtime cannot open it"):
        open_bundle(folder).runner("onnx/fp32")
