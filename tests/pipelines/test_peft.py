"""Low-rank updates against PEFT itself: its models loaded by us, ours by it."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from atinuke.cli import app
from atinuke.compile.front import check_graph
from atinuke.compile.lora import LoRALinear
from atinuke.compile.meta import MetaProbe
from atinuke.compile.module import build
from atinuke.core.adapt import add_lora
from atinuke.core.errors import AtinukeError
from atinuke.pipelines import checkpoint, train
from atinuke.pipelines.merging import merge_adapter, write_folder
from atinuke.pipelines.peft import PATTERN, called_like, export_adapter, import_adapter
from atinuke.pipelines.pretrained.folder import open_folder
from atinuke.pipelines.pretrained.huggingface import convert, to_huggingface
from atinuke.pipelines.pretrained.opening import from_pretrained
from atinuke.pipelines.recipe import Tokenizer as TokenizerChoice
from atinuke.pipelines.recipe import load_recipe
from atinuke.pipelines.run import open_model
from atinuke.pipelines.tokenizer import Tokenizer
from tests.pipelines.corpora import TEXTS

peft = pytest.importorskip("peft", reason="needs the package `peft`")
transformers = pytest.importorskip("transformers", reason="needs the package `transformers`")

from peft.utils.other import get_pattern_key  # noqa: E402

from tests.pipelines.pretrained.models import BERT, GPT2, LLAMA, TOKENS, Kind  # noqa: E402

KINDS = {
    "gpt2": Kind("GPT2LMHeadModel", GPT2),
    "bert": Kind("BertForMaskedLM", BERT),
    "bert body": Kind("BertModel", BERT),
    "llama": Kind("LlamaForCausalLM", LLAMA),
}
IDS = torch.arange(24).reshape(2, 12) % TOKENS


def logits(output: Any) -> Tensor:
    return next(getattr(output, name) for name in ("logits", "last_hidden_state") if hasattr(output, name)).detach()


def ask(model: nn.Module) -> Tensor:
    more = {"attention_mask": torch.ones_like(IDS)}
    if type(model).__name__ == "Bert":  # ours
        more = {"segment_ids": torch.zeros_like(IDS), "attention_mask": torch.ones_like(IDS, dtype=torch.bool)}
    elif type(model).__name__ in ("Gpt2", "Llama"):
        more = {}
    with torch.no_grad():
        return logits(model.eval()(input_ids=IDS, **more))


def shaken(model: nn.Module) -> None:
    """Updates as training might leave them."""
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.3)


def theirs(folder: Path, kind: Kind, **settings: Any) -> tuple[nn.Module, Tensor]:
    """A model of transformers in `folder/hf` and an adapter of PEFT's in `folder/peft`; the model and its answer."""
    kind.save(folder / "hf")
    base = getattr(transformers, kind.architecture).from_pretrained(folder / "hf")
    model = peft.get_peft_model(base, peft.LoraConfig(init_lora_weights=True, **settings))
    shaken(model)
    answer = ask(model)
    model.save_pretrained(folder / "peft")
    convert(folder / "hf", folder / "model")
    return model, answer


@pytest.mark.parametrize(
    ("kind", "settings", "parts"),
    [
        ("gpt2", {"r": 3, "lora_alpha": 5, "target_modules": ["c_attn"], "fan_in_fan_out": True}, None),
        ("gpt2", {"r": 2, "target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True}, None),
        ("bert", {"r": 3, "lora_alpha": 5, "target_modules": ["query", "value"]}, ("q", "v")),
        ("bert", {"r": 2, "target_modules": ["query", "key", "value"], "use_rslora": True}, ("q", "k", "v")),
        ("bert body", {"r": 2, "target_modules": "all-linear"}, ("q", "k", "v")),
        (
            "bert",
            {
                "r": 2,
                "target_modules": ["query", "value"],
                "rank_pattern": {"query": 4},
                "alpha_pattern": {r".*\.0\..*value": 3},
            },
            ("q", "v"),
        ),
        ("bert", {"r": 2, "target_modules": ["key"], "layers_to_transform": [1]}, ("k",)),
        ("llama", {"r": 2, "target_modules": ["q_proj", "v_proj", "up_proj", "down_proj"]}, ("q", "v")),
        ("gpt2", {"r": 2, "target_modules": ["c_attn"], "fan_in_fan_out": True, "modules_to_save": ["ln_f"]}, None),
    ],
)
def test_theirs_say_the_same_here_and_again_there(
    kind: str, settings: dict[str, Any], parts: tuple[str, ...] | None, tmp_path: Path
) -> None:
    _, wanted = theirs(tmp_path, KINDS[kind], **settings)
    checked = import_adapter(tmp_path / "model", tmp_path / "peft", tmp_path / "ours")
    assert checked.graph.blocks["layer"].nodes["H"].lora["qkv"].get("parts") == parts
    mine = from_pretrained(tmp_path / "ours")
    assert (ask(mine.model) - wanted).abs().max() < 1e-5
    plain = from_pretrained(tmp_path / "model").model
    assert (ask(plain) - wanted).abs().max() > 1e-4
    names = checkpoint.weights(plain).keys()
    assert {name for name in checkpoint.weights(mine.model) if "lora" not in name} == names

    merge_adapter(tmp_path / "ours", tmp_path / "merged")
    assert (ask(from_pretrained(tmp_path / "merged").model) - ask(mine.model)).abs().max() < 1e-5
    to_huggingface(tmp_path / "merged", tmp_path / "back")
    back = getattr(transformers, KINDS[kind].architecture).from_pretrained(tmp_path / "back")
    assert (ask(back) - wanted).abs().max() < 1e-5

    if "modules_to_save" not in settings:  # a model folder does not know which of its weights were trained
        export_adapter(tmp_path / "ours", tmp_path / "again")
        again = getattr(transformers, KINDS[kind].architecture).from_pretrained(tmp_path / "hf")
        assert (ask(peft.PeftModel.from_pretrained(again, tmp_path / "again")) - wanted).abs().max() < 1e-5


def ours(folder: Path, kind: Kind, *on: str, parts: tuple[str, ...] = ()) -> Tensor:
    """A model folder with updates of ours; its answer."""
    kind.save(folder / "hf")
    convert(folder / "hf", folder / "model")
    base = from_pretrained(folder / "model")
    graph = add_lora(base.checked, on, {"rank": 2, "alpha": 6.0}, parts, MetaProbe(), "on")
    checked = check_graph(graph)
    model = build(checked).eval()
    model.load_state_dict(base.model.state_dict(), strict=False)
    shaken(model)
    write_folder(folder / "ours", folder / "model", checked, checkpoint.weights(model))
    return ask(model)


@pytest.mark.parametrize(
    ("kind", "on", "parts"),
    [
        ("gpt2", ["stack.*.H.qkv"], ()),
        ("gpt2", ["stack.*.H.*"], ("q", "v")),
        ("bert", ["stack.*.H.qkv"], ("q", "v")),
        ("bert", ["stack.*.H.qkv", "stack.*.F.*"], ()),
        ("llama", ["stack.*"], ("v", "gate")),
    ],
)
def test_ours_say_the_same_there(kind: str, on: list[str], parts: tuple[str, ...], tmp_path: Path) -> None:
    wanted = ours(tmp_path, KINDS[kind], *on, parts=parts)
    export_adapter(tmp_path / "ours", tmp_path / "peft")
    base = getattr(transformers, KINDS[kind].architecture).from_pretrained(tmp_path / "hf")
    model = peft.PeftModel.from_pretrained(base, tmp_path / "peft")
    assert (ask(model) - wanted).abs().max() < 1e-5
    assert (ask(model.merge_and_unload()) - wanted).abs().max() < 1e-5
    import_adapter(tmp_path / "model", tmp_path / "peft", tmp_path / "back")
    assert (ask(from_pretrained(tmp_path / "back").model) - wanted).abs().max() < 1e-5


def test_a_graph_of_ours_is_a_model_to_peft(tmp_path: Path) -> None:
    """PEFT's own updates of a module that we built are those of LoRALinear."""
    folder = open_folder(_converted(tmp_path))
    torch.manual_seed(0)
    module = build(folder.checked)
    wanted = peft.get_peft_model(module, peft.LoraConfig(r=3, lora_alpha=7, target_modules=["qkv"]))
    shaken(wanted)
    layer = wanted.base_model.model.stack[0].H.qkv
    mine = LoRALinear(layer.base_layer, 3, 7.0)
    with torch.no_grad():
        mine.lora_A.copy_(layer.lora_A["default"].weight)
        mine.lora_B.copy_(layer.lora_B["default"].weight)
    x = torch.randn(4, 24)
    assert torch.allclose(mine(x), layer(x), atol=1e-6)
    assert torch.allclose(mine.merged_weight(), layer.base_layer.weight + layer.get_delta_weight("default"), atol=1e-6)


def _converted(folder: Path) -> Path:
    KINDS["gpt2"].save(folder / "hf")
    convert(folder / "hf", folder / "model")
    return folder / "model"


def _edit(change: Callable[[dict[str, Tensor]], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        tensors = load_file(folder / "adapter_model.safetensors")
        change(tensors)
        save_file(tensors, folder / "adapter_model.safetensors")

    return edit


def _config(text: str, new: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        file = folder / "adapter_config.json"
        written = file.read_text()
        assert text in written
        file.write_text(written.replace(text, new))

    return edit


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and an adapter of PEFT's."""
    folder = tmp_path_factory.mktemp("bert")
    theirs(folder, KINDS["bert"], r=2, target_modules=["query"])
    return folder


A = "base_model.model.bert.encoder.layer.0.attention.self.query.lora_A.weight"
NORM = "base_model.model.bert.embeddings.LayerNorm.weight"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_config('"peft_type": "LORA"', '"peft_type": "IA3"'), 'is no LoRA of PEFT.*got `peft_type` "IA3"'),
        (_config('"use_dora": false', '"use_dora": true'), "asks for `use_dora: true`, which is not supported"),
        (_config('"bias": "none"', '"bias": "all"'), 'asks for `bias: "all"`'),
        (_config('"r": 2', '"r": null'), "has no `r` and `lora_alpha`"),
        (_config('"alpha_pattern": {}', '"alpha_pattern": {"(": 2}'), r"`\(` in `alpha_pattern` is not supported"),
        (  # which would backtrack for ever
            _config('"alpha_pattern": {}', '"alpha_pattern": {"(([a-z.0-9]+)+)+!": 2}'),
            r"!` in `alpha_pattern` is not supported.*to fix: write the names of the modules out",
        ),
        (_config('"alpha_pattern": {}', '"alpha_pattern": [2]'), "has no numbers by names in `alpha_pattern`"),
        (_edit(lambda t: t.update({NORM: torch.ones(1)})), r"`.*LayerNorm.weight` has another shape.*got \[1\]"),
        (_edit(lambda t: t.pop(A)), "has only `lora_B` of `encoder.layer.0.attention.self.query`"),
        (_edit(lambda t: t.update({A: torch.ones(2, 9)})), "does not fit its map"),
        (_edit(lambda t: t[A][0, :3].fill_(float("nan"))), "`.*query.lora_A.weight` has 3 values that are NaN or inf"),
        (_edit(lambda t: t.update({A: torch.ones(3, 24)})), "does not fit its map"),
        (_edit(lambda t: t.update({A.replace("query", "qvery"): t.pop(A)})), "has only|no linear map"),
        (
            _edit(lambda t: t.update({"base_model.model.x.lora_embedding_A": torch.ones(1)})),
            "has the tensor `base_model",
        ),
        (_edit(lambda t: t.update({A.replace("lora_A.", ""): torch.ones(24, 24)})), "has `.*query.weight`, but not"),
        (lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"x"), "not a readable safetensors file"),
        (lambda folder: (folder / "adapter_config.json").unlink(), "cannot be read"),
    ],
)
def test_what_cannot_be_read_is_told(change: Callable[[Path], Any], told: str, bert: Path, tmp_path: Path) -> None:
    shutil.copytree(bert / "peft", tmp_path / "peft")
    change(tmp_path / "peft")
    with pytest.raises(AtinukeError) as error:
        import_adapter(bert / "model", tmp_path / "peft", tmp_path / "ours")
    assert re.search(told, str(error.value), re.S), str(error.value)
    assert not (tmp_path / "ours").exists()


KEYS = st.builds(
    "{}{}".format,
    st.sampled_from(["", "^"]),
    st.lists(st.sampled_from(["a", "b0", "-", ".", r"\.", ".*"]), min_size=1).map("".join),
)
NAMES = st.lists(st.sampled_from(["a", "b0", "-", "c"]), min_size=1).map(".".join)


@given(st.lists(KEYS, min_size=1, max_size=2).map("|".join), NAMES)
@settings(max_examples=300)
def test_keys_of_alpha_pattern_mean_what_they_mean_to_peft(key: str, name: str) -> None:
    assert PATTERN.fullmatch(key)
    assert called_like(name, key) is (get_pattern_key([key], name) == key)


def test_an_adapter_of_another_model_is_refused(bert: Path, tmp_path: Path) -> None:
    KINDS["gpt2"].save(tmp_path / "other")
    convert(tmp_path / "other", tmp_path / "gpt2")
    with pytest.raises(AtinukeError, match=r"adapts `bert\.encoder.*`, which is no linear map"):
        import_adapter(tmp_path / "gpt2", bert / "peft", tmp_path / "ours")
    with pytest.raises(AtinukeError, match="has no low-rank updates"):
        export_adapter(tmp_path / "gpt2", tmp_path / "again")


RECIPE = """\
graph: {use: model/graph.yaml}
data: {train: [text.txt], split: paragraph, context: 16}
tokenizer: {vocab_size: 280}
adapt: {lora: {rank: 2, alpha: 6, on: [stack.*.H.qkv], parts: [q, v]}, train: [norm.*]}
optimiser: {name: adamw, lr: 1e-2}
schedule: {name: wsd}
steps: 2
batch: 2
"""


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A folder with a model of transformers and a recipe that adapts it."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=300, bos_token_id=None, eos_token_id=None, **GPT2)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path / "hf")
    (tmp_path / "text.txt").write_text("\n\n".join(TEXTS[:3]))
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    convert(tmp_path / "hf", tmp_path / "model")
    return tmp_path


def test_a_run_is_written_for_peft_and_merged(begun: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def command(*words: object) -> None:
        app([str(word) for word in words], standalone_mode=False)

    command("train", begun / "recipe.yaml", "--run", begun / "run", "--init", begun / "model")
    command("adapter", "export", begun / "run", begun / "peft")
    command("adapter", "merge", begun / "run", begun / "merged")
    command("convert", begun / "merged", begun / "back", "--to", "huggingface")
    assert "updates of 2 modules, such as transformer.h.0.attn.c_attn" in capsys.readouterr().out

    wanted = ask(open_model(begun / "run").model)
    model = transformers.GPT2LMHeadModel.from_pretrained(begun / "hf")
    assert (wanted - ask(model)).abs().max() > 1e-4
    assert (ask(peft.PeftModel.from_pretrained(model, begun / "peft")) - wanted).abs().max() < 1e-5
    back = transformers.GPT2LMHeadModel.from_pretrained(begun / "back")
    assert (ask(back) - wanted).abs().max() < 1e-5
    command("adapter", "import", begun / "model", begun / "peft", begun / "ours")
    assert (ask(from_pretrained(begun / "ours").model) - wanted).abs().max() < 1e-5


def test_what_has_no_module_there_is_told(begun: Path) -> None:
    wanted = "adapt={lora: {rank: 2, on: [stack.*.H.qkv]}, adapters: {size: 2, after: [stack.*.F]}}"
    recipe = load_recipe(begun / "recipe.yaml", [wanted])
    train.start(recipe, begun / "run", Console(quiet=True), begun / "model")
    with pytest.raises(AtinukeError, match=r"has trained `.*_adapter.*`, which PEFT's format cannot hold"):
        export_adapter(begun / "run", begun / "peft")


def test_a_pretrained_model_goes_on_with_its_own_tokenizer(begun: Path) -> None:
    own = Tokenizer.train(TEXTS, 280).content
    (begun / "model" / "tokenizer.json").write_text(own)
    (begun / "other.json").write_text(Tokenizer.train(TEXTS[:3], 270).content)
    written = (begun / "recipe.yaml").read_text().replace("graph: {use: model/graph.yaml}", "pretrained: model")
    for tokenizer in ("{vocab_size: 280}", "{file: other.json}"):
        (begun / "recipe.yaml").write_text(written.replace("{vocab_size: 280}", tokenizer))
        with pytest.raises(AtinukeError, match="the weights to begin with belong to another tokenizer"):
            train.start(load_recipe(begun / "recipe.yaml"), begun / "run", Console(quiet=True))
        assert not (begun / "run").exists()
    with pytest.raises(AtinukeError, match=r"has no `tokenizer\.json` with a token that ends texts"):
        load_recipe(begun / "recipe.yaml", ["tokenizer=null"])  # its config.json names no end of text
    with pytest.raises(AtinukeError, match="is no model folder"):
        train.start(load_recipe(begun / "recipe.yaml", ["tokenizer=null", "pretrained=hf"]), begun / "run")
    (begun / "model/generation_config.json").write_text('{"eos_token_id": 0}')
    recipe = load_recipe(begun / "recipe.yaml", ["tokenizer=null"])
    assert recipe.tokenizer == TokenizerChoice(file=str(begun / "model/tokenizer.json"))
    train.start(recipe, begun / "run", Console(quiet=True))
    assert (begun / "run/tokenizer.json").read_text() == own
    assert load_recipe(begun / "run/recipe.yaml") == recipe
