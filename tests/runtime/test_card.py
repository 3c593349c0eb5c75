"""The card is true: its tables are the bundle's, and its code runs as it stands."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from atinuke.core.errors import AtinukeError
from atinuke.runtime.bundle import CARD, PARITY, open_bundle
from atinuke.runtime.parity import write_parity
from atinuke.runtime.seal import reseal
from atinuke.runtime.snippets import with_atinuke
from tests.runtime.bundles import CERTIFICATE, forward_bundle, text_bundle, write
from tests.runtime.conftest import Deployed

ROOT = Path(__file__).parents[2]


def front(folder: Path) -> dict[str, object]:
    found: dict[str, object] = yaml.safe_load((folder / CARD).read_text(encoding="utf-8").split("---\n")[1])
    return found


def programs(folder: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (folder / CARD).read_text(encoding="utf-8"), re.DOTALL)


def printed(code: str, folder: Path) -> str:
    """What a program prints that runs in the bundle's folder, as the card says."""
    environment = {"PYTHONPATH": str(ROOT), "PATH": "", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_card_has_what_model_hubs_read(tmp_path: Path) -> None:
    forward_bundle(tmp_path / "sound")
    text_bundle(tmp_path / "text")
    assert front(tmp_path / "sound") == {
        "library_name": "atinuke",
        "pipeline_tag": "audio-classification",
        "tags": ["atinuke", "onnx"],
    }
    assert front(tmp_path / "text")["pipeline_tag"] == "text-generation"


def test_the_card_tells_names_shapes_ranges_and_classes(tmp_path: Path) -> None:
    forward_bundle(tmp_path / "bundle")
    lines = (tmp_path / "bundle" / CARD).read_text(encoding="utf-8").splitlines()
    assert "| in | `sound` | float32 | [batch, samples] |  |" in lines
    assert "| out | `frames` | float32 | [batch, samples//160 + 1] |  |" in lines
    assert "| `samples` | 160 | 320 |" in lines
    assert 'The last axis of `scores` is `"cat"`, `"dog"`, `"a∣bˋc"`.' in lines
    assert "- Built with torch 2.13.0." in lines
    assert "atinuke run . --audio sound.wav" in lines


def test_the_card_tells_what_memory_means(tmp_path: Path) -> None:
    text_bundle(tmp_path / "bundle")
    text = " ".join((tmp_path / "bundle" / CARD).read_text(encoding="utf-8").split())
    assert "| in | `past_key_values.0` | float32 | [batch, 1, capacity, 2] | memory |" in text
    assert "what comes out as `present.0` goes in as `past_key_values.0` the next time" in text
    assert 'A text has at most 16 of them and begins with `"<end>"`; `"<end>"` ends it.' in text


def test_the_card_shows_what_the_certificate_says(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    forward_bundle(folder)
    assert "parity.json" not in (folder / CARD).read_text(encoding="utf-8")
    write_parity(folder / PARITY, CERTIFICATE)
    reseal(folder)
    lines = (folder / CARD).read_text(encoding="utf-8").splitlines()
    assert "| build | size | compared | budget | largest error | same best | same text |" in lines
    (line,) = (line for line in lines if line.startswith("| `onnx/fp32` |"))
    assert line.endswith("| passed | 0.0001 | 1.2e-06 | 99.0% | 3 of 64 tokens |")
    open_bundle(folder)


def test_a_certificate_that_is_none_is_refused(tmp_path: Path) -> None:
    forward_bundle(tmp_path / "bundle")
    write(tmp_path / "bundle", PARITY, {"atinuke": 1, "inputs": "", "builds": [1], "samples": {}})
    with pytest.raises(AtinukeError, match=r"builds\[0\] must be a mapping"):
        reseal(tmp_path / "bundle")


def test_a_licence_is_kept_when_a_bundle_is_sealed_again(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    forward_bundle(folder)
    card = (folder / CARD).read_text(encoding="utf-8")
    changed = re.sub("# license: .*", "license: mit", card)
    (folder / CARD).write_text(changed, encoding="utf-8")
    with pytest.raises(AtinukeError, match=r"`README.md` is not the file that was sealed"):
        open_bundle(folder)
    reseal(folder)
    open_bundle(folder)
    assert (folder / CARD).read_text(encoding="utf-8") == changed
    assert front(folder)["license"] == "mit"


def test_the_code_of_a_card_runs(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    forward_bundle(folder)
    pytest.importorskip("onnxruntime", reason="the code needs ONNX Runtime")
    with_atinuke, with_onnxruntime = programs(folder)
    assert printed(with_atinuke, folder) == "{'scores': (1, 3), 'frames': (1, 3)}\n"
    assert printed(with_onnxruntime, folder) == "scores (1, 3)\nframes (1, 3)\n"


def test_the_code_of_a_text_models_card_carries_its_memory(tmp_path: Path) -> None:
    """The decoder's scores are one-hot of how many tokens its memory says it has read."""
    folder = tmp_path / "bundle"
    text_bundle(folder)
    pytest.importorskip("onnxruntime", reason="the code needs ONNX Runtime")
    _, with_atinuke, with_onnxruntime = programs(folder)
    assert printed(with_atinuke, folder) == "{'logits': (1, 1, 16)}\n"
    assert printed(with_onnxruntime, folder) == "[8]\n[9]\n[10]\n[11]\n"


def test_the_code_of_a_decoders_card_writes_a_text(decoder: Deployed) -> None:
    stream, with_atinuke, with_onnxruntime = programs(decoder.folder)
    assert printed(stream, decoder.folder)
    assert printed(with_atinuke, decoder.folder) == "{'logits': (1, 1, 257)}\n"
    assert len(printed(with_onnxruntime, decoder.folder).split()) == 4


def test_the_code_of_a_translators_card_prepares_first(translator: Deployed) -> None:
    with_atinuke, with_onnxruntime = programs(translator.folder)
    assert "prepared" in printed(with_atinuke, translator.folder)
    assert len(printed(with_onnxruntime, translator.folder).split()) == 4


@pytest.mark.parametrize(("builds", "named"), [(("aot/fp32",), True), (("aot/fp32", "onnx/fp32"), False)])
def test_the_card_names_a_build_where_all_are_machine_code(
    tmp_path: Path, builds: tuple[str, ...], named: bool
) -> None:
    told = "\n".join(with_atinuke(replace(forward_bundle(tmp_path), builds=builds)))
    assert ("atinuke run . --target aot/fp32" in told) == named
    assert ('load(".", "aot/fp32")' in told) == named
