"""Every checkpoint that is not what it should be: one clear error, and nothing half written."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor

from atinuke import families
from atinuke.core.errors import AtinukeError
from atinuke.pipelines.merging import merge_adapter
from atinuke.pipelines.pretrained.huggingface import convert, to_huggingface
from atinuke.pipelines.pretrained.opening import from_pretrained
from tests.pipelines.pretrained.models import DECODERS, ENCODERS

LAYER = "bert.encoder.layer.0.intermediate.dense.weight"
NORM = "bert.embeddings.LayerNorm.weight"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Tensor], str]:
    folder = tmp_path_factory.mktemp("bert")
    ENCODERS["bert masked"].save(folder)
    return load_file(folder / "model.safetensors"), (folder / "config.json").read_text()


@pytest.fixture
def folder(sound: tuple[dict[str, Tensor], str], tmp_path: Path) -> Path:
    found = tmp_path / "theirs"
    found.mkdir()
    save_file(sound[0], found / "model.safetensors")
    (found / "config.json").write_text(sound[1])
    return found


def refused(folder: Path) -> str:
    """What is said of a folder, of which nothing is written."""
    with pytest.raises(AtinukeError) as caught:
        convert(folder, folder.parent / "ours")
    assert [path.name for path in folder.parent.iterdir()] == ["theirs"]
    return str(caught.value).replace(str(folder), "DIR")


def change(folder: Path, by: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    by(tensors)
    save_file(tensors, folder / "model.safetensors")


def configure(folder: Path, **keys: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **keys}))


def test_a_tensor_that_is_not_known(folder: Path) -> None:
    change(folder, lambda tensors: tensors.update({"bert.adapter.weight": torch.ones(2, 3)}))
    assert refused(folder) == (
        "DIR  tensors are left over, which the family does not know\n"
        "  `bert.adapter.weight` of shape [2, 3]\n"
        "  to fix: check that it is a BertForMaskedLM of the family `bert`; what is not to be read belongs under "
        "`buffers` or `ignored` in the family's file"
    )


def test_a_tensor_under_its_old_and_its_new_name(folder: Path) -> None:
    new, old = (f"bert.embeddings.LayerNorm.{last}" for last in ("weight", "gamma"))
    change(folder, lambda tensors: tensors.update({old: 3 * tensors[new]}))
    told = refused(folder)
    assert f"`{new}`" in told
    assert f"`{old}`" in told
    assert ", two names of one tensor\n" in told


def test_a_tensor_that_is_missing(folder: Path) -> None:
    change(folder, lambda tensors: tensors.pop(LAYER))
    assert refused(folder) == (
        f"DIR  tensors are missing\n  `{LAYER}` of shape [20, 24]\n"
        "  to fix: check that it is a BertForMaskedLM of the family `bert`"
    )


def test_a_tensor_of_another_shape(folder: Path) -> None:
    change(folder, lambda tensors: tensors.update({LAYER: torch.ones(24, 20)}))
    assert refused(folder) == (
        f"DIR  tensors have another shape\n  `{LAYER}` has shape [24, 20], but config.json says [20, 24]\n"
        "  to fix: check the sizes in config.json"
    )


def test_all_at_once(folder: Path) -> None:
    change(folder, lambda tensors: tensors.update({"new.a": torch.ones(1), LAYER: torch.ones(1)}))
    change(folder, lambda tensors: tensors.pop("cls.predictions.bias"))
    told = refused(folder)
    assert all(what in told for what in ("`cls.predictions.bias`", "`new.a`", f"`{LAYER}` has shape [1]"))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none(folder: Path, value: float) -> None:
    change(folder, lambda tensors: tensors[LAYER][3, :2].fill_(value))
    assert refused(folder) == (
        f"DIR/model.safetensors  `{LAYER}` has 2 values that are NaN or infinite, of 480\n"
        "  to fix: use a checkpoint from before training went wrong"
    )


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_a_model_folder_whose_numbers_are_none(folder: Path, value: float) -> None:
    ours = folder.parent / "ours"
    convert(folder, ours)
    change(ours, lambda tensors: tensors["stack.1.F.up.weight"][3, :2].fill_(value))
    told = r"ours/model\.safetensors  `stack\.1\.F\.up\.weight` has 2 values that are NaN or infinite, of 480\n"
    out = folder.parent / "out"
    with pytest.raises(AtinukeError, match=told):
        to_huggingface(ours, out)
    with pytest.raises(AtinukeError, match=told):
        from_pretrained(ours)
    with pytest.raises(AtinukeError, match=told):
        merge_adapter(ours, out)
    assert not out.exists()


def test_a_truncated_file(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    assert refused(folder).startswith("DIR/model.safetensors  is not a readable safetensors file: ")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.ckpt"])
def test_a_pickle_is_not_read(folder: Path, name: str) -> None:
    (folder / "model.safetensors").rename(folder / name)
    assert refused(folder) == (
        f"DIR  has its weights only as `{name}`, a pickle, which can run code and is never read\n"
        "  to fix: where you trust it, save it with transformers: model.save_pretrained(folder) writes safetensors"
    )


def test_no_weights_at_all(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "DIR  has no weights: there is no `model.safetensors`" in refused(folder)


@pytest.mark.parametrize("name", ["model-2.safetensors", "../theirs/model.safetensors"])
def test_an_index_that_leads_nowhere(folder: Path, name: str) -> None:
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    assert f"DIR/model.safetensors.index.json  names the file `{name}`, which is not there" in refused(folder)


def test_a_tensor_in_two_files(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    save_file({name: tensors[name] for name in tensors if name != LAYER}, folder / "model-1.safetensors")
    save_file({name: tensors[name] + 1 for name in (LAYER, NORM)}, folder / "model-2.safetensors")
    index = {name: f"model-{1 + (name == LAYER)}.safetensors" for name in tensors}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    assert refused(folder) == (
        f"DIR  `{NORM}` is in model-1.safetensors and in model-2.safetensors\n"
        "  to fix: take out the file that is not meant, or save it again"
    )


def test_a_checkpoint_of_another_family(folder: Path) -> None:
    configure(folder, model_type="bertish")
    told = refused(folder)
    assert told.startswith("DIR/config.json  is of a family that does not ship\n  got `model_type` `bertish`\n")
    assert "bert, " in told.splitlines()[2]
    assert told.endswith("to fix: write a family file and name it with --family (docs/pretrained.md)")
    with pytest.raises(AtinukeError) as caught:
        convert(folder, folder.parent / "ours", families.path("gpt2"))
    assert "is not of the family `gpt2`\n  expected `model_type` `gpt2`\n  got `bertish`" in str(caught.value)


def test_weights_of_another_family(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("gpt2")
    DECODERS["gpt2"].save(other)
    (folder / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
    told = refused(folder)
    assert "tensors are missing\n  `embeddings.word_embeddings.weight` of shape [40, 24]" in told
    assert "tensors are left over, which the family does not know\n  `transformer.h.0.attn.c_attn.bias`" in told


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"architectures": ["BertForMultipleChoice"]}, "has an architecture that family `bert` does not know"),
        ({"architectures": None}, "got `architectures` None"),
        ({"hidden_act": "swish"}, "has a `hidden_act` that is not supported\n  expected gelu or gelu_new or"),
        ({"is_decoder": True}, "has a `is_decoder` that is not supported\n  expected false\n  got true"),
        ({"position_embedding_type": "relative_key"}, 'expected "absolute"\n  got "relative_key"'),
        ({"mixture": {"experts": 4}}, "has the key `mixture.experts`, which family `bert` does not know\n  got 4"),
        ({"hidden_size": "24"}, 'gives no `d_model`: `hidden_size` is "24", not a number'),
        ({"num_attention_heads": 5}, "d_model 24 is not a multiple of heads 5"),
    ],
)
def test_a_config_that_is_not_supported(folder: Path, keys: dict[str, object], told: str) -> None:
    configure(folder, **keys)
    assert told in refused(folder)


@pytest.mark.parametrize("text", ["{", "[]", ""])
def test_a_config_that_is_none(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    assert refused(folder).startswith("DIR/config.json  is not")


@pytest.mark.parametrize(
    ("rope", "told"),
    [
        ({"rope_type": "yarn", "factor": 2.0, "rope_theta": 1e4}, "has a `rope_parameters.rope_type` that is not"),
        ({"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}, "expected 1.0\n  got 0.5"),
    ],
)
def test_rotations_that_are_not_known(tmp_path: Path, rope: dict[str, object], told: str) -> None:
    DECODERS["llama"].save(tmp_path / "theirs")
    configure(tmp_path / "theirs", rope_parameters=rope)
    assert told in refused(tmp_path / "theirs")


@pytest.mark.parametrize(
    ("kind", "keys", "told"),
    [
        ("llama", {"head_dim": 8}, "q_proj.weight` has shape [24, 24], but config.json says [48, 24]"),
        ("mistral", {"sliding_window": 16}, "has a `sliding_window` that is not supported\n  expected null or 4096"),
        ("qwen2", {"use_sliding_window": True}, "has a `use_sliding_window` that is not supported\n  expected false"),
        ("qwen2", {"rope_scaling": {"type": "yarn", "factor": 4.0}}, "has the key `rope_scaling.type`, which family"),
    ],
)
def test_attention_that_is_not_known(tmp_path: Path, kind: str, keys: dict[str, object], told: str) -> None:
    DECODERS[kind].save(tmp_path / "theirs")
    configure(tmp_path / "theirs", **keys)
    assert told in refused(tmp_path / "theirs")


def test_a_tokenizer_larger_than_the_model(folder: Path) -> None:
    vocabulary = {f"word{number}": number for number in range(41)}
    Tokenizer(WordLevel(vocabulary, unk_token="word0")).save(str(folder / "tokenizer.json"))
    assert refused(folder) == (
        "DIR/tokenizer.json  has tokens that the model has no embedding for\n"
        "  its last token `word40` is number 40\n"
        "  the model has embeddings of the tokens 0 to 39\n"
        "  to fix: use the tokenizer that belongs to the model"
    )
    (folder / "tokenizer.json").write_text("{}")
    assert refused(folder).startswith("DIR/tokenizer.json  is not a readable tokenizer: ")


def test_tied_tensors_that_differ(folder: Path) -> None:
    change(folder, lambda tensors: tensors.update({"cls.predictions.decoder.weight": torch.ones(40, 24)}))
    assert "`cls.predictions.decoder.weight` must be equal to the tensor that it is tied to" in refused(folder)


def test_a_folder_that_is_there_is_left_alone(folder: Path) -> None:
    (folder.parent / "ours").mkdir()
    with pytest.raises(AtinukeError, match="is there already"):
        convert(folder, folder.parent / "ours")
    assert not list((folder.parent / "ours").iterdir())


def test_a_graph_that_has_changed_does_not_go_back(folder: Path) -> None:
    ours = folder.parent / "ours"
    convert(folder, ours)
    with pytest.raises(AtinukeError, match="is a model folder already"):
        convert(ours, folder.parent / "twice")
    with pytest.raises(AtinukeError, match="is no model folder"):
        to_huggingface(folder, folder.parent / "back")
    graph = (ours / "graph.yaml").read_text()
    (ours / "graph.yaml").write_text(graph.replace("feedforward.gelu", "feedforward.relu"))
    with pytest.raises(AtinukeError, match="has a graph that transformers' BertForMaskedLM is not"):
        to_huggingface(ours, folder.parent / "back")
    (ours / "graph.yaml").write_text(graph.replace("eps: 0.001", "eps: 0.002"))
    to_huggingface(ours, folder.parent / "back")
    assert json.loads((folder.parent / "back" / "config.json").read_text())["layer_norm_eps"] == 0.002
