"""`atinuke run` and `atinuke doctor`, as people call them and where nothing but the runtime is installed."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from atinuke import runtime
from atinuke.runtime.seal import seal
from tests.pipelines.media import picture
from tests.runtime.bundles import MADE
from tests.runtime.conftest import Deployed, classifier, decoder, translator  # noqa: F401 - fixtures
from tests.runtime.programs import ROWS, bundle_of
from tests.test_imports import ROOT, imported

ABSENT = ("torch", "sympy", "jaxtyping", "yaml", "safetensors", "tokenizers", "onnx", "matplotlib")
ALONE = f"""
import sys
sys.modules.update(dict.fromkeys({ABSENT}))
from atinuke.cli import main
sys.argv = ["atinuke", *sys.argv[1:]]
main()
"""


def alone(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The command where only the runtime's packages can be imported."""
    command = [sys.executable, "-c", ALONE, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_text_without_torch(decoder: Deployed) -> None:  # noqa: F811
    """The same text as with everything installed (whose tokens tests/runtime holds against torch)."""
    [expected] = runtime.load(decoder.folder).generate(["Some"], temperature=0.7, seed=5, max_new_tokens=30)
    options = ("--text", "Some", "--temperature", "0.7", "--seed", 5, "--max-new-tokens", 30)
    done = alone("run", decoder.folder, *options, "--json")
    assert done.returncode == 0, done.stderr
    told = {"prompt": "Some", "text": expected.text, "reason": expected.reason}
    assert json.loads(done.stdout) == {"target": "onnx/fp32", "texts": [told]}


@pytest.mark.parametrize("command", [("check", "llama"), ("train", "x.yaml"), ("compile", "llama", "-o", "x")])
def test_what_needs_more_says_what_to_install(command: tuple[str, ...]) -> None:
    done = alone(*command)
    assert done.returncode == 2
    assert "this command needs the package `" in done.stderr
    assert done.stderr.endswith("to fix: pip install 'atinuke[torch]'\n")


def test_the_doctor_without_torch() -> None:
    done = alone("doctor", "--json")
    assert done.returncode == 0, done.stderr
    onnx = next(one for one in json.loads(done.stdout) if one["target"] == "onnx")
    assert onnx["run"]["can"]
    assert onnx["build"] == {
        "can": False,
        "versions": {},
        "missing": "torch",
        "fix": "pip install 'atinuke[torch]'",
    }


def test_the_doctor(run) -> None:
    code, out, _ = run("doctor")
    assert code == 0
    line = next(line for line in out.splitlines() if line.startswith("onnx "))
    assert "onnxruntime" in line
    assert "onnxscript" in line


def test_the_runtime_imports_nothing_that_only_graphs_need() -> None:
    every = "import pkgutil, importlib, atinuke.runtime\nfor m in pkgutil.iter_modules(atinuke.runtime.__path__):\n"
    every += "    if m.name not in ('aot', 'inductor', 'executorch'):\n"
    every += "        importlib.import_module('atinuke.runtime.' + m.name)\natinuke.runtime.load"
    assert not imported(every) & {*ABSENT, "pydantic", "onnxruntime", "PIL", "soundfile"}


def test_a_text_is_streamed_and_what_ran_is_said(run, decoder: Deployed) -> None:  # noqa: F811
    [expected] = runtime.load(decoder.folder).generate(["Some"], temperature=0, max_new_tokens=20)
    code, out, err = run("run", decoder.folder, "--text", "Some", "--temperature", 0, "--max-new-tokens", 20)
    assert (code, out, err) == (0, f"Some{expected.text}\n", "(onnx/fp32)\n")
    _, out, _ = run("run", decoder.folder, "--text", "a", "--text", "b", "--temperature", 0, "--json")
    texts = json.loads(out)["texts"]
    assert [one["prompt"] for one in texts] == ["a", "b"]


def test_a_text_from_a_source(run, translator: Deployed) -> None:  # noqa: F811
    model = runtime.load(translator.folder)
    given = model.read({"source_ids": ["Good morning"]})
    [expected] = model.generate([""], given=given, temperature=0, max_new_tokens=20)
    common = ("--temperature", 0, "--max-new-tokens", 20, "--json")
    for source in (("--text", "Good morning"), ("--given", "source_ids=Good morning")):
        _, out, _ = run("run", translator.folder, *source, *common)
        assert json.loads(out)["texts"] == [{"prompt": "", "text": expected.text, "reason": expected.reason}]


def test_a_picture_is_classified(run, classifier: Deployed, tmp_path: Path) -> None:  # noqa: F811
    file = picture(tmp_path / "a.png", 1)
    model = runtime.load(classifier.folder)
    best = model.best("logits", model(**model.read({"pixel_values": [file]}))["logits"])[0]
    code, out, _ = run("run", classifier.folder, "--image", file, "--output", tmp_path / "x.npz")
    assert code == 0
    assert out.split()[:2] == [f"{best[0][1]:.1%}", best[0][0]]
    assert "last_hidden_state: float32[1, " in out
    with np.load(tmp_path / "x.npz") as saved:
        assert saved["logits"].shape == (1, 3)
    np.savez(tmp_path / "in.npz", pixel_values=model.read({"pixel_values": [file, file]})["pixel_values"])
    _, out, _ = run("run", classifier.folder, "--input", tmp_path / "in.npz", "--json")
    assert [next(iter(row)) for row in json.loads(out)["outputs"]["logits"]] == [best[0][0]] * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--audio", "x.wav"), "--audio  the model reads no audio\n  it reads pixel_values (image)"),
        (("--given", "x"), "`x` is not FIELD=VALUE"),
        (("--target", "onnx/int8"), "the bundle has no `onnx/int8`"),
        ((), "the model needs `pixel_values`"),
        (("--input", __file__), "is not a file of arrays"),
    ],
)
def test_one_clear_error(run, classifier: Deployed, arguments: tuple[str, ...], message: str) -> None:  # noqa: F811
    code, _, err = run("run", classifier.folder, *arguments)
    assert code == 2
    assert message in err


@pytest.mark.slow
def test_the_runtime_in_an_empty_environment(decoder: Deployed, tmp_path: Path) -> None:  # noqa: F811
    """Installs the extra alone, says how large it is, and writes the text that is written here."""
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    pip = [sys.executable, "-m", "pip", "--python", python, "--quiet", "--disable-pip-version-check"]
    wheel = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, ROOT]
    subprocess.run(wheel, check=True, capture_output=True)
    built = f"{next(tmp_path.glob('*.whl'))}[runtime]"
    limits = ("--constraint", ROOT / "constraints.txt")
    done = subprocess.run([*pip, "download", *limits, "--dest", tmp_path / "wheels", built], check=False)
    if done.returncode:
        pytest.skip("no package index answers")
    install = ("install", "--no-index", "--find-links", tmp_path / "wheels", built)
    subprocess.run([*pip, *install], check=True)
    download = sum(file.stat().st_size for file in (tmp_path / "wheels").iterdir())
    site = next((tmp_path / "venv" / "lib").glob("python*/site-packages"))
    files = [file for file in site.rglob("*") if file.is_file()]
    disk = sum(file.stat().st_size for file in files)
    code = sum(file.stat().st_size for file in files if file.suffix == ".pyc")
    sizes = [f"{size / 1e6:.0f} MB" for size in (download, disk - code, code)]
    sys.stdout.write("download {}, on disk {} and {} of byte code\n".format(*sizes))
    names = {path.name for path in site.iterdir()}
    assert not names & set(ABSENT)
    assert download < 60e6
    assert disk - code < 150e6
    [expected] = runtime.load(decoder.folder).generate(["Some"], temperature=0.7, seed=5, max_new_tokens=30)
    options = ("--text", "Some", "--temperature", "0.7", "--seed", "5", "--max-new-tokens", "30", "--json")
    command = [python.with_name("atinuke"), "run", decoder.folder, *options]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["texts"][0]["text"] == expected.text


@pytest.mark.parametrize("damage", ["array", "cut", "changed", "text", "absent"])
def test_damaged_arrays_are_one_clear_error(run, classifier: Deployed, tmp_path: Path, damage: str) -> None:  # noqa: F811
    file = tmp_path / "x.npz"
    np.savez_compressed(file, pixel_values=np.arange(64, dtype=np.uint8).reshape(1, 1, 8, 8))
    content = bytearray(file.read_bytes())
    if damage == "array":
        file = tmp_path / "x.npy"
        np.save(file, np.zeros(3))
    elif damage == "cut":
        file.write_bytes(content[:-30])
    elif damage == "changed":
        middle = len(content) // 3
        content[middle : middle + 20] = bytes(20)
        file.write_bytes(content)
    elif damage == "text":
        with zipfile.ZipFile(file, "w") as whole:
            whole.writestr("pixel_values", "text")
    else:
        file.unlink()
    code, out, err = run("run", classifier.folder, "--input", file)
    assert (code, out) == (2, "")
    assert "is not a file of arrays" in err
    assert "Traceback" not in err


def test_what_a_writer_does_not_take(run, decoder: Deployed, tmp_path: Path) -> None:  # noqa: F811
    np.savez(tmp_path / "x.npz", input_ids=np.zeros((1, 1), np.int64))
    _, _, err = run("run", decoder.folder, "--input", tmp_path / "x.npz")
    assert "give --text, or call `model.runner.step` from Python" in err
    _, _, err = run("run", decoder.folder, "--image", "x.png", "--text", "a")
    assert "the model reads no image\n  it goes on from --text" in err
    _, _, err = run("run", decoder.folder, *(["--text", "a"] * 9))
    assert "give at most 8 texts at a time" in err


def test_a_graph_without_fields_takes_arrays(run, tmp_path: Path) -> None:
    bundle = bundle_of(tmp_path / "b", ROWS)
    seal(bundle, MADE)
    _, _, err = run("run", bundle.folder, "--text", "a")
    assert "the bundle does not say how its inputs are read\n  pixels: uint8" in err
    assert "give arrays: --input FILE.npz, or compile a run" in err
    np.savez(tmp_path / "x.npz", pixels=np.zeros((1, 3, 2), np.uint8), mask=np.ones(1, bool))
    code, out, err = run("run", bundle.folder, "--input", tmp_path / "x.npz", "--json")
    assert code == 0, err
    assert json.loads(out)["outputs"]["scores"] == [[0.0]]  # zeros of the rows, whatever it says
