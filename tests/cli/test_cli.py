"""The command line, from a file to a trained, generating run; every mistake of a user ends with exit code 2."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pytest
import yaml
from typer.main import get_command

from atinuke import graphs
from atinuke.cli import app
from atinuke.core.document import parse

RECIPE = """
graph: {use: atinuke, set: {vocab_size: 300, d_model: 16, heads: 2, layers: 2, dropout: 0}}
data: {train: [text.txt], validation_fraction: 0.3, split: paragraph, context: 16}
tokenizer: {vocab_size: 300}
optimiser: {name: adamw, lr: 1e-2}
schedule: {name: cosine, warmup: 2}
steps: 6
batch: 2
evaluate_every: 3
save_every: 3
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    words = "one two three four five six seven eight nine ten"
    (folder / "text.txt").write_text("\n\n".join(f"{n} {words} and {n * n}, again {words}" for n in range(60)))
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder


@pytest.mark.parametrize(
    ("number", "where", "how"),
    [
        (signal.SIGINT, "atinuke.pipelines.feed_text.feed", "the same command"),
        (signal.SIGTERM, "atinuke.pipelines.feed_text.feed", "the same command"),
        (signal.SIGINT, "atinuke.pipelines.loop.Loop._train", "atinuke resume {run}"),
    ],
)
def test_a_signal_before_the_first_step_says_how_to_begin_again(
    run, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, where: str, how: str
) -> None:
    def twice(*_: object) -> None:
        for _ in range(2):  # the loop would finish its step after the first
            os.kill(os.getpid(), number)
            time.sleep(0.1)

    monkeypatch.setattr(where, twice)
    code, out, _ = run("train", trained / "recipe.yaml", "--run", tmp_path / "run")
    told = f"interrupted before the first step: nothing was saved; begin again with {how}\n"
    assert (code, out) == (128 + number, told.format(run=tmp_path / "run"))


@pytest.mark.parametrize("where", ["atinuke.compile.meta.MetaProbe.parameters", "atinuke.core.registry.Registry.load"])
def test_a_signal_is_no_mistake_of_a_plugin(run, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    monkeypatch.setattr(where, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    assert run("check", "encoder") == (143, "", "")


def test_a_signal_while_numpy_is_imported_ends_the_program() -> None:
    program = """if True:
        import os, signal, sys
        from atinuke.cli import main

        class Signalling:
            def find_spec(self, name, path=None, target=None):
                if name == "numpy.__config__":
                    sys.meta_path.remove(self)
                    os.kill(os.getpid(), signal.SIGTERM)

        sys.meta_path.insert(0, Signalling())
        sys.argv = ["atinuke", "check", "encoder"]
        main()
    """
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (143, "", "")


def test_check_counts_and_complains(run) -> None:
    code, out, err = run("check", "atinuke")
    assert (code, err) == (0, "")
    assert "58 nodes hold together, 13,793,280 parameters" in out
    code, out, err = run("check", "atinuke", "--set", "heads=7")
    assert (code, out) == (2, "")
    assert "stack.H: attention.self refuses its settings\n  d_model 384 is not a multiple of heads 7" in err
    code, out, err = run("check", "atinuke", "--set", "heads=7", "--json")
    assert code == 2
    (mistake,) = json.loads(out)["mistakes"]
    assert mistake["details"] == ["d_model 384 is not a multiple of heads 7"]
    code, _, err = run("check", "nothing")
    assert (code, err.splitlines()[0]) == (2, "no graph file `nothing`")
    code, out, err = run("cost", "nothing", "--json")
    assert (code, err, json.loads(out)["mistakes"][0]["what"]) == (2, "", "no graph file `nothing`")
    code, out, _ = run("check", "gpt2", "--swap", "layer.F=feedforward.swiglu", "--json")
    assert json.loads(out)["ok"]


@pytest.mark.parametrize("name", graphs.names())
def test_every_shipped_graph_shows_itself_in_every_form(run, name: str, tmp_path: Path) -> None:
    assert run("show", name)[0] == 0
    assert run("show", name, "--as", "mermaid")[1].startswith("flowchart")
    assert "class Output(NamedTuple)" in run("show", name, "--as", "source")[1]
    assert yaml.safe_load(run("show", name, "--as", "yaml")[1])["atinuke"] == 1
    code, out, _ = run("show", name, "--as", "svg", "-o", tmp_path / "graph.svg")
    assert (code, out.strip()) == (0, f"wrote {tmp_path / 'graph.svg'}")
    assert (tmp_path / "graph.svg").read_text().startswith("<svg")


def test_cost_as_formula_and_figure(run) -> None:
    code, out, _ = run("cost", "atinuke", "--at", "batch=2", "--at", "sequence=8", "--json")
    data = json.loads(out)
    assert code == 0
    assert data["figures"]["parameters"] == 13_793_280
    assert data["figures"]["training FLOPs"] == 3 * data["figures"]["forward FLOPs"]
    assert "sequence**2" in data["formulas"]["forward FLOPs"]
    assert run("cost", "atinuke", "--at", "batch=100000", "--at", "sequence=1")[0] == 2
    assert run("cost", "atinuke", "--at", "batch")[0] == 2


def test_mistakes_of_the_file_and_of_the_changes_are_told_together(run, tmp_path: Path) -> None:
    file = tmp_path / "graph.yaml"
    file.write_text(
        graphs.path("atinuke").read_text().replace("norm.layer,         in: add1,", "norm.layer, inn: 1, in: add1,")
    )
    code, _, err = run("check", file, "--set", "d_modle=4", "--set", "heads=2")
    assert code == 2
    assert "unknown key `inn`" in err
    assert "no dim or axis `d_modle`\n  to fix: use `d_model`" in err
    err = run("check", file, "--set", "heads=7")[2]
    assert "unknown key `inn`" in err
    assert "d_model 384 is not a multiple of heads 7" in err


def test_schema_accepts_what_ships(run) -> None:
    code, out, _ = run("schema")
    assert code == 0
    for name in graphs.names():
        jsonschema.validate(parse(graphs.path(name).read_text()).data, json.loads(out))


def test_plugins_list_show_and_check(run) -> None:
    assert "attention.self" in json.loads(run("plugins", "list", "--json")[1])["components"]
    listed = json.loads(run("plugins", "list", "--json")[1])
    assert {"causal", "sum"} <= listed["objectives"].keys()
    assert {"manifest", "sentences"} <= listed["sources"].keys()
    assert "objectives, for recipes" in run("plugins", "list")[1]
    code, out, _ = run("plugins", "show", "attention.self")
    assert code == 0
    assert "kv_heads: int | None = None" in out
    code, out, _ = run("plugins", "check", "norm.rms", "--law", "shape", "--examples", "2", "--json")
    assert code == 0
    assert [result["status"] for result in json.loads(out)] == ["passed"]
    code, _, err = run("plugins", "show", "norm.rsm")
    assert (code, err) == (2, "no component is called `norm.rsm`\n  to fix: use `norm.rms`\n")


def test_what_fits_a_node_is_listed(run) -> None:
    code, out, _ = run("plugins", "--fits", "atinuke:layer.F")
    listed = {line.split()[0] for line in out.splitlines()}
    assert code == 0
    assert {"feedforward.relu", "feedforward.swiglu", "identity", "norm.rms"} <= listed
    assert not listed & {"feedforward.gelu", "text.embedding", "position.alibi", "concat", "head.vocabulary"}
    assert "with experts" in next(line for line in out.splitlines() if line.startswith("feedforward.experts"))
    assert "no node `layer.X`" in run("plugins", "--fits", "atinuke:layer.X")[2]
    assert "must look like FILE:NODE" in run("plugins", "--fits", "atinuke")[2]
    assert "Usage" in run("plugins")[1]


def test_from_a_recipe_to_a_text(run, trained: Path) -> None:
    code, out, _ = run("train", trained / "recipe.yaml", "--run", trained / "run")
    assert (code, out.splitlines()[0]) == (0, f"finished after 6 steps: {trained / 'run'}")
    assert (trained / "run" / "loss.png").read_bytes().startswith(b"\x89PNG")
    code, _, err = run("train", trained / "recipe.yaml", "--run", trained / "run")
    assert code == 2
    assert "holds a run already" in err
    code, out, _ = run("resume", trained / "run", "--set", "steps=8")
    assert (code, out.splitlines()[0]) == (0, f"finished after 8 steps: {trained / 'run'}")
    short = ("--max-new-tokens", 5, "--seed", 1)
    code, out, _ = run("generate", trained / "run", "-p", "one two", *short)
    assert code == 0
    assert out.startswith("one two")
    code, listed, _ = run("generate", trained / "run", "-p", "one two", "-p", "three", *short, "--json")
    first, second = json.loads(listed)
    assert out == first["prompt"] + first["text"] + "\n"
    assert second["reason"] == "length"
    code, out, _ = run("show", trained / "run" / "graph.yaml")
    assert code == 0
    for wrong in (("--temperature", -1), ("--top-p", 2), ("--max-new-tokens", 5000)):
        code, _, err = run("generate", trained / "run", "-p", "one", *wrong)
        assert code == 2
        assert "Traceback" not in err
    assert run("generate", trained, "-p", "one")[0] == 2


def test_a_recipe_with_mistakes_trains_nothing(run, trained: Path) -> None:
    wrong = trained / "wrong.yaml"
    wrong.write_text(RECIPE.replace("steps: 6", "stepz: 6").replace("lr: 1e-2", "lr: fast"))
    code, _, err = run("train", wrong, "--run", trained / "none")
    assert code == 2
    assert f"{wrong}:5" in err
    assert f"{wrong}:7" in err
    assert "to fix: use `steps`" in err
    assert not (trained / "none").exists()


def test_eject_writes_a_file_or_nothing(run, tmp_path: Path) -> None:
    code, out, _ = run("eject", "atinuke", "-o", tmp_path / "model.py")
    assert (code, out.strip()) == (0, f"wrote {tmp_path / 'model.py'}")
    compile((tmp_path / "model.py").read_text(), "model.py", "exec")
    code, _, err = run("eject", "atinuke", "-o", tmp_path / "missing" / "model.py")
    assert code == 2
    assert "cannot be written: No such file or directory" in err


def test_version_and_help(run) -> None:
    import atinuke

    assert run("--version")[1] == f"atinuke {atinuke.__version__}\n"
    code, out, _ = run("--help")
    assert code == 0
    for command in [
        "check",
        "show",
        "cost",
        "plugins",
        "schema",
        "train",
        "resume",
        "generate",
        "eject",
        "bench",
        "demo",
    ]:
        assert command in out


def test_every_command_explains_itself(run) -> None:
    for command in get_command(app).commands:  # type: ignore[attr-defined]
        code, out, _ = run(command, "--help")
        assert code == 0, command
        assert ("lm-eval" if command == "harness" else f"atinuke {command}") in out
    assert "rows.validation.files=[/path/of/rows.jsonl]" in run("evaluate", "--help")[1]
