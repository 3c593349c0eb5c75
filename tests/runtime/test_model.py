"""A bundle opened: its programs, what people have as its arrays, its classes and labels."""

from pathlib import Path

import numpy as np
import pytest
import torch

from atinuke import runtime
from atinuke.core.errors import AtinukeError
from atinuke.pipelines.collate import collate
from atinuke.pipelines.fields import Text, decode
from atinuke.pipelines.rows import Row
from atinuke.runtime import fields
from atinuke.runtime.bundle import Bundle
from atinuke.runtime.interface import Interface, Port
from atinuke.runtime.model import Model, _first, runner_of
from atinuke.runtime.runner import Runner
from tests.pipelines.media import picture
from tests.runtime.conftest import BYTES, IMAGE, TEXT, Deployed


def test_arrays_in_arrays_out(classifier: Deployed) -> None:
    model = runtime.load(str(classifier.folder), "onnx/fp32", threads=1)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 1, 8, 8), np.uint8)
    with torch.no_grad():
        expected = classifier.model(torch.from_numpy(pixels)).logits.numpy()
    np.testing.assert_allclose(model(pixel_values=pixels)["logits"], expected, rtol=1e-4, atol=1e-5)
    assert (model("forward", pixel_values=pixels)["logits"] == model(pixel_values=pixels)["logits"]).all()
    with pytest.raises(AtinukeError, match="no program `decode`\n  it has forward"):
        model("decode", pixel_values=pixels)
    with pytest.raises(AtinukeError, match=r"axis `batch` must be 1\.\.8"):
        model(pixel_values=np.repeat(pixels, 3, 0))


def test_one_of_several_programs_must_be_said(decoder: Deployed) -> None:
    model = runtime.load(decoder.folder)
    with pytest.raises(AtinukeError, match="say which program\n  it has prefill, decode"):
        model()


def test_pictures_and_classes(classifier: Deployed, tmp_path: Path) -> None:
    model = runtime.load(classifier.folder)
    files = [picture(tmp_path / f"{i}.png", i) for i in range(2)]
    arrays = model.read({"pixel_values": files})
    assert (arrays["pixel_values"].shape, arrays["pixel_values"].dtype) == ((2, 1, 8, 8), np.uint8)
    assert (model.read({"pixel_values": [files[1].read_bytes()]})["pixel_values"] == arrays["pixel_values"][1:]).all()
    logits = model(**arrays)["logits"]
    shares = torch.from_numpy(logits).softmax(-1)
    for row, best in enumerate(model.best("logits", logits)):
        expected = sorted(zip(("owl", "fox", "bee"), shares[row].tolist(), strict=True), key=lambda pair: -pair[1])
        assert [name for name, _ in best] == [name for name, _ in expected]
        np.testing.assert_allclose([share for _, share in best], [share for _, share in expected], rtol=1e-5)
    for values, message in (
        ({}, "needs `pixel_values`"),
        ({"words": ["a"]}, "reads no `words`\n  it reads pixel_values"),
        ({"pixel_values": [tmp_path / "no.png"]}, "`pixel_values` there is no such file"),
    ):
        with pytest.raises(AtinukeError, match=message):
            model.read(values)


def test_the_first_build_whose_engine_is_here(decoder: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    assert runtime.load(decoder.folder).build == "onnx/fp32"
    monkeypatch.setattr("atinuke.runtime.runner.find_spec", lambda name: None)
    with pytest.raises(AtinukeError, match="can run none of its builds\n  onnx/fp32 needs onnxruntime"):
        runtime.load(decoder.folder)


@pytest.mark.parametrize("pair", [False, True])
@pytest.mark.parametrize("tokenizer", [None, BYTES])
def test_texts_are_read_as_in_training(pair: bool, tokenizer: object) -> None:
    if pair and tokenizer is None:
        pytest.skip("a pair needs a tokenizer")
    rows = [{"a": "one", "b": "ọ̀kan"}, {"a": "seventeen letters", "b": "x"}, {"a": "3", "b": None if not pair else "y"}]
    field = Text(column="a", pair="b" if pair else None, segments="marks", length=12, cut=True, multiple=4, mask="seen")
    decoded = [decode(field, Row(row, "", Path()), tokenizer) for row in rows]
    expected = collate([{"ids": one} for one in decoded], {"ids": field})
    plain = TEXT | {"length": 12, "cut": True, "multiple": 4, "mask": "seen", "segments": "marks", "pair": pair}
    plain |= {"end_of_text": None if tokenizer is None else "<|endoftext|>"}
    values = [[row["a"], row["b"]] if pair else row["a"] for row in rows]
    found = fields.batch("ids", plain, [fields.read(plain, value, tokenizer) for value in values])
    assert found.keys() == expected.keys()
    for name, array in found.items():
        assert (torch.from_numpy(array) == expected[name]).all(), name


def test_what_is_missing_is_hidden() -> None:
    image = IMAGE | {"optional": True, "mask": "there"}
    found = fields.batch("pixels", image, [np.ones((1, 8, 8), np.uint8), None])
    assert found["there"].tolist() == [True, False]
    assert found["pixels"].sum() == 64
    sound = {"name": "audio", "multiple": 10, "mask": "heard"}
    found = fields.batch("sound", sound, [np.ones(12, np.float32), None])
    assert (found["sound"].shape, found["heard"].sum(-1).tolist()) == ((2, 20), [12, 0])


class Said(Runner):
    def call(self, program: str, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        raise NotImplementedError


def test_ctc_labels_leave_out_blanks_and_hidden_frames(decoder: Deployed) -> None:
    outputs = (Port("scores", "float32", ("batch", "frames", 3)), Port("mask", "bool", ("batch", "frames")))
    bundle = runtime.load(decoder.folder).bundle
    classes = {"scores": ("a", "", "b")}
    kept = {field: getattr(bundle, field) for field in ("folder", "name", "axes", "text", "fields", "builds")}
    told = type(bundle)(**kept, programs={"forward": Interface((), outputs, {})}, classes=classes)
    model = Model(told, "x", Said(Path(), told.programs, {}, "fp32"))
    path = [[0, 0, 1, 0, 2, 2], [2, 1, 1, 2, 0, 0]]
    scores = np.eye(3, dtype=np.float32)[path]
    mask = np.array([[True] * 6, [True] * 4 + [False] * 2])
    assert model.labels("scores", {"scores": scores, "mask": mask}) == [["a", "a", "b"], ["b", "b"]]


def test_no_blank_among_the_classes_is_told(classifier: Deployed) -> None:
    with pytest.raises(AtinukeError, match="no class of `logits` is CTC's blank\n  it has owl, fox, bee"):
        runtime.load(classifier.folder).labels("logits", {})


class Native(Said):
    native = True


class Absent(Said):
    @classmethod
    def missing(cls) -> str:
        return "a GPU"


def test_machine_code_runs_only_if_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the builds are ordered, and whether or not anything else can run here."""
    runners: dict[str, type[Runner]] = {"aot": Native, "onnx": Said, "tensorrt": Absent}
    monkeypatch.setattr("atinuke.runtime.model.runner_of", runners.__getitem__)

    def first(*builds: str) -> str:
        return _first(Bundle(tmp_path, "x", {}, {}, None, {}, {}, builds))

    assert first("aot/fp32", "tensorrt/fp16", "onnx/fp32") == "onnx/fp32"
    with pytest.raises(AtinukeError, match="only machine code") as error:
        first("tensorrt/fp16", "aot/fp32")
    assert error.value.mistakes[0].details == ("it has aot/fp32", "tensorrt/fp16 needs a GPU")
    assert error.value.mistakes[0].fix == "if you trust where the bundle comes from, name the build: aot/fp32"


def test_which_targets_are_machine_code() -> None:
    targets = ("onnx", "openvino", "tensorrt", "aot", "inductor", "executorch")
    assert {name for name in targets if runner_of(name).native} == {"tensorrt", "aot"}
