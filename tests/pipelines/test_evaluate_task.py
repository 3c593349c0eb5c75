"""A task from files to a score through the command line."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from atinuke.cli import app
from atinuke.core.errors import AtinukeError
from atinuke.pipelines.evaluate_task import evaluate_task
from atinuke.pipelines.pretrained.huggingface import convert
from atinuke.pipelines.recipe import load_recipe
from atinuke.pipelines.train import resume, start
from tests.pipelines.tasks.toys import GRAPH, recipe, table, tiny_bert, vocabulary

ROWS = [("good film", 1), ("very good", 1), ("bad film", 0), ("very bad", 0), ("the good film", 1), ("a bad film", 0)]


def run_of(folder, task, **changes):
    return start(load_recipe(recipe(folder, task, **changes)), folder / "run").folder


@pytest.fixture(scope="module")
def sst2(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sst2")
    table(folder / "train.tsv", ("sentence", "label"), *ROWS)
    return run_of(folder, {"name": "sst2", "train": "train.tsv", "validation": "train.tsv", "length": 16})


def test_from_files_to_a_score(sst2):
    result = CliRunner().invoke(app, ["evaluate", str(sst2), "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["scores"]["accuracy"]["value"] == 1.0
    assert told["items"] == 6
    assert told["slices"]["label"] == {
        label: {"items": 3, "scores": {"accuracy": {**told["scores"]["accuracy"], "units": 3}}} for label in "01"
    }
    folder = sst2 / "evaluations/sst2/train"
    assert json.loads((folder / "evaluation.json").read_text()) == told
    said = (folder / "SST-2.tsv").read_text().splitlines()
    assert said == ["index\tprediction", "0\t1", "1\t1", "2\t0", "3\t0", "4\t1", "5\t0"]
    items = [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]
    assert items[2] == {"id": "2", "prediction": "0", "scores": {"accuracy": [1.0, 1.0]}}
    assert sorted(path.name for path in folder.parent.iterdir()) == ["train"]


def test_a_file_without_answers_gives_predictions_alone(sst2, tmp_path):
    file = table(tmp_path / "test.tsv", ("index", "sentence"), (7, "bad film"), (9, "very good film"))
    result = CliRunner().invoke(app, ["evaluate", str(sst2), "--data", str(file), "-o", str(tmp_path / "out")])
    assert "there are predictions, and no scores" in result.stdout
    assert (tmp_path / "out/SST-2.tsv").read_text() == "index\tprediction\n7\t0\n9\t1\n"
    assert json.loads((tmp_path / "out/evaluation.json").read_text())["scores"] == {}


def test_predictions_do_not_depend_on_the_batch(sst2, tmp_path):
    file = table(tmp_path / "x.tsv", ("sentence", "label"), *ROWS, ("the film is not very good at all , a b c", 0))
    whole = evaluate_task(sst2, data=[file], output=tmp_path / "whole")
    assert whole.items == 7
    alone = [
        evaluate_task(sst2, data=[table(tmp_path / f"{i}.tsv", ("sentence", "label"), row)], output=tmp_path / f"{i}")
        for i, row in enumerate([*ROWS, ("the film is not very good at all , a b c", 0)])
    ]
    lines = (tmp_path / "whole/SST-2.tsv").read_text().splitlines()[1:]
    assert [line[-1] for line in lines] == [(one.folder / "SST-2.tsv").read_text().strip()[-1] for one in alone]


def test_other_answers_other_settings_and_strangers_folders_are_refused(sst2, tmp_path):
    for other in ("snli", "squad", "stsb", "srl", "coreference"):
        with pytest.raises(AtinukeError) as told:
            evaluate_task(sst2, other, overrides=["task.length=32"])
        assert str(told.value).splitlines() == [
            f"{sst2}  was trained for sst2, and cannot answer {other}",
            "  to fix: evaluate it on sst2, cola, mrpc, qqp, wnli",
        ]
    with pytest.raises(AtinukeError, match="no task is called `sst3`"):
        evaluate_task(sst2, "sst3")
    for key in ("batch", "nonsense"):
        with pytest.raises(AtinukeError, match=f"`{key}` of a run cannot be changed"):
            evaluate_task(sst2, overrides=[f"{key}=2"])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/novel.txt").write_text("...")
    with pytest.raises(AtinukeError, match="is there already, and is no evaluation"):
        evaluate_task(sst2, output=tmp_path / "mine")
    assert (tmp_path / "mine/novel.txt").is_file()


def test_a_task_of_the_same_answers_may_be_asked(sst2, tmp_path):
    file = table(tmp_path / "cola.tsv", ("sentence", "label"), *ROWS)
    found = evaluate_task(sst2, "cola", [file], output=tmp_path / "out")
    assert [one.name for one in found.scores] == ["matthews", "accuracy"]
    assert {part.by: {one.name for one in part.scores} for part in found.slices}["label"] == {"accuracy"}


def test_settings_that_the_other_task_lacks_are_left_behind(tmp_path):
    table(tmp_path / "train.tsv", ("premise", "hypothesis", "label"), ("a", "a", "entailment"), ("a", "b", "neutral"))
    task = {"name": "mnli", "train": "train.tsv", "length": 16, "part": "m"}
    pair = {"uid": "1", "context": "a film", "hypothesis": "a film", "label": "e"}
    (tmp_path / "anli.jsonl").write_text(json.dumps(pair) + "\n")
    found = evaluate_task(run_of(tmp_path, task, steps=3), "anli", [tmp_path / "anli.jsonl"])
    assert (found.items, found.task.length) == (1, 16)


def test_numbers_are_learnt(tmp_path):
    rows = [("a b", "a b", 5.0), ("a b", "good film", 0.0), ("bad", "bad", 5.0), ("bad", "very c d", 0.0)]
    table(tmp_path / "train.tsv", ("sentence1", "sentence2", "score"), *rows)
    run = run_of(
        tmp_path, {"name": "stsb", "train": "train.tsv", "validation": "train.tsv"}, steps=60, schedule={"name": "wsd"}
    )
    found = evaluate_task(run)
    assert [one.name for one in found.scores] == ["pearson", "spearman"]
    assert found.scores[0].interval.value > 0.9


def test_questions_are_answered(tmp_path):
    words = ["b", "c", "d", "e", "f", "g"]  # `a` is an article, which does not count
    paragraphs = []
    for place, word in enumerate(words):
        context = f"the film is {' '.join(words[place:] + words[:place])}."
        answers = [{"text": word, "answer_start": 12}]
        paragraphs.append({"context": context, "qas": [{"id": str(place), "question": "what?", "answers": answers}]})
    (tmp_path / "train.json").write_text(json.dumps({"data": [{"title": "T", "paragraphs": paragraphs}]}))
    task = {"name": "squad", "train": "train.json", "validation": "train.json", "length": 16, "stride": 4}
    run = run_of(tmp_path, task, steps=80)
    result = CliRunner().invoke(app, ["evaluate", str(run)])
    assert result.exit_code == 0, result.output
    folder = run / "evaluations/squad/train"
    assert json.loads((folder / "predictions.json").read_text()) == {str(i): word for i, word in enumerate(words)}
    told = json.loads((folder / "evaluation.json").read_text())
    assert {name: score["value"] for name, score in told["scores"].items()} == {"exact match": 1.0, "f1": 1.0}
    assert told["scores"]["f1"]["units"] == 6


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"objective": {"name": "causal"}}, "`objective` comes with the task"),
        ({"tokenizer": None}, "must have a `tokenizer` where nothing is `pretrained`"),
        ({"tokenizer": {"vocab_size": 300}}, "a task is read by a tokenizer that is there already"),
        ({"pretrained": "models/x"}, "must have either `graph` or `pretrained`"),
        ({"graph": None, "pretrained": "models/x"}, "is no model folder"),
        ({"task": {"name": "sst2"}}, "`task.train` is missing"),
        ({"task": {"name": "sst2", "train": "train.tsv", "length": 600}}, "windows of 600 tokens are longer than"),
        ({"task": {"name": "sst2", "train": "test.tsv"}}, r"test\.tsv:2  does not say what is right\n.* `label`"),
        ({"task": {"name": "sst2", "train": "none.tsv"}}, "there is no such file"),
        ({"graph": {"use": "encoder", "set": {**GRAPH["set"], "vocab_size": 50}}}, "E has room for 50 tokens, but"),
        ({"graph": {"use": "vit"}}, "reads no text: it has no input `input_ids`"),
    ],
)  # fmt: skip
def test_recipes_that_do_not_hold_together_are_refused(changes, said, tmp_path):
    table(tmp_path / "train.tsv", ("sentence", "label"), *ROWS)
    table(tmp_path / "test.tsv", ("index", "sentence"), (1, "a"))
    task = {"name": "sst2", "train": "train.tsv", "length": 16}
    with pytest.raises(AtinukeError, match=said):
        run_of(tmp_path, changes.pop("task", task), **changes)


def test_a_decoder_is_trained_on_a_task_too(tmp_path):
    table(tmp_path / "train.tsv", ("sentence", "label"), *ROWS)
    graph = {"use": "gpt2", "set": GRAPH["set"]}
    task = {"name": "sst2", "train": "train.tsv", "validation": "train.tsv", "length": 16, "pool": "last"}
    run = run_of(tmp_path, task, graph=graph)
    assert evaluate_task(run).scores[0].interval.value == 1.0


def test_a_run_is_resumed_bit_for_bit(tmp_path):
    table(tmp_path / "train.tsv", ("sentence", "label"), *ROWS)
    task = {"name": "sst2", "train": "train.tsv", "length": 16}
    vocabulary(tmp_path)
    whole = start(load_recipe(recipe(tmp_path, task, steps=6)), tmp_path / "whole").folder
    start(load_recipe(recipe(tmp_path, task, steps=6), ["save_every=3", "keep=5"]), tmp_path / "parts")
    shutil.rmtree(tmp_path / "parts/checkpoints/step-000006")
    resume(tmp_path / "parts")
    first, second = (
        load_file(folder / "checkpoints/step-000006/model.safetensors") for folder in (whole, tmp_path / "parts")
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tiny_bert(folder / "bert")
    convert(folder / "bert", folder / "ours")
    return folder / "ours"


@pytest.mark.parametrize("pool", ["mean", "pooled"])
def test_a_run_begins_with_the_weights_of_a_model_folder(model, tmp_path, pool):
    table(tmp_path / "train.tsv", ("sentence", "label"), *ROWS)
    task = {"name": "sst2", "train": "train.tsv", "length": 16, "pool": pool}
    changes = {"graph": None, "tokenizer": None, "pretrained": str(model), "steps": 1}
    run = run_of(tmp_path, task, **changes, optimiser={"name": "sgd", "lr": 1e-30}, schedule={"name": "wsd"})
    theirs, ours = (
        load_file(file) for file in (model / "model.safetensors", run / "checkpoints/step-000001/model.safetensors")
    )
    new = {"task_head.weight", "task_head.bias"}
    left = theirs.keys() - ours.keys()
    assert ours.keys() - theirs.keys() == new
    for name in ours.keys() - new:
        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=1e-20)
    assert any("pooler" in name for name in left) == (pool == "mean")
    assert (run / "tokenizer.json").read_bytes() == (model / "tokenizer.json").read_bytes()


def test_a_model_folder_that_lacks_a_tensor_is_refused_by_its_name(model, tmp_path):
    shutil.copytree(model, tmp_path / "model")
    tensors = load_file(tmp_path / "model/model.safetensors")
    del tensors["stack.1.F.up.weight"]
    save_file(tensors, tmp_path / "model/model.safetensors")
    table(tmp_path / "train.tsv", ("sentence", "label"), *ROWS)
    task = {"name": "sst2", "train": "train.tsv", "length": 16}
    with pytest.raises(AtinukeError, match=r"its weights have no `stack\.1\.F\.up\.weight` of the shape"):
        run_of(tmp_path, task, graph=None, tokenizer=None, pretrained="model")
    for name in ("tokenizer.json", "vocab.txt"):
        (tmp_path / "model" / name).unlink()
    with pytest.raises(AtinukeError, match=r"model  has no tokenizer\n  none of tokenizer\.json, vocab\.txt"):
        start(load_recipe(tmp_path / "recipe.yaml"), tmp_path / "other")


def test_predictions_of_anybody_are_scored(sst2, tmp_path):
    run = evaluate_task(sst2, output=tmp_path / "run")
    arguments = ["--task", "sst2", "--data", str(sst2.parent / "train.tsv"), "-o", str(tmp_path / "file")]
    result = CliRunner().invoke(app, ["evaluate", str(run.folder / "SST-2.tsv"), *arguments])
    assert result.exit_code == 0, result.output
    told = [json.loads((tmp_path / name / "evaluation.json").read_text()) for name in ("run", "file")]
    assert told[0]["scores"] == told[1]["scores"]
    assert told[0]["slices"] == told[1]["slices"]
    result = CliRunner().invoke(app, ["evaluate", str(run.folder / "SST-2.tsv")])
    assert "is a file of predictions, and not a run" in str(result.exception)
