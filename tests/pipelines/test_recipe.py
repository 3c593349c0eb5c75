from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atinuke.core.errors import AtinukeError
from atinuke.pipelines.recipe import Recipe, dump_recipe, load_recipe
from atinuke.pipelines.text import find

GOOD = """\
graph: {use: atinuke, set: {layers: 2}}
data: {train: [corpus/*.txt], validation: [/abs/held-out.txt], context: 64}
tokenizer: {vocab_size: 512}
optimiser: {name: adamw, lr: 6e-4}
schedule: {name: cosine, warmup: 10}
steps: 100
batch: 8
"""

BAD = """\
graph: {use: atinuke, sett: {layers: 6}, set: {layers: [6]}}
data:
  train: [a.txt, 3]
  context: -1
tokenizer: {vocab_size: 8192, file: x.json}
optimiser: {name: adamw, lr: "x", beta: [0.9, 0.95]}
schedule: {name: cosin, warmup: 10}
step: 3
batch: true
precision: fp16
on_bad_loss: {do: ignore}
"""

WRONG = """\
bad.yaml:1  `graph.set.layers` must be a number or an expression, but is `[6]`
bad.yaml:1  unknown key `graph.sett`
  to fix: use `set`
bad.yaml:1  `steps` is missing
bad.yaml:3  `data.train.1` must be a valid string
  got `3`
bad.yaml:4  `data.context` must be greater than 0
  got `-1`
bad.yaml:5  `tokenizer` must have either `file` or `vocab_size`
bad.yaml:6  `optimiser.lr` must be a valid number
  got `x`
bad.yaml:6  unknown key `optimiser.beta`
  to fix: use `betas`
bad.yaml:7  `schedule.name` must be one of 'cosine', 'wsd'
  got `cosin`
bad.yaml:8  unknown key `step`
  to fix: use `steps`
bad.yaml:9  `batch` must be a valid integer
  got `True`
bad.yaml:10  `precision` must be 'fp32' or 'bf16'
  got `fp16`
bad.yaml:11  `on_bad_loss.do` must be 'stop' or 'skip'
  got `ignore`"""


def load(folder: Path, text: str, *overrides: str, name: str = "good.yaml") -> Recipe:
    (folder / name).write_text(text)
    return load_recipe(folder / name, overrides)


def test_paths_are_relative_to_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").touch()
    recipe = load(tmp_path, GOOD, "graph.use=mine.yaml", "tokenizer={file: t.json}")
    assert recipe.graph.use == str(tmp_path / "mine.yaml")
    assert recipe.data.train == (str(tmp_path / "corpus/*.txt"),)
    assert recipe.data.validation == ("/abs/held-out.txt",)
    assert recipe.tokenizer.file == str(tmp_path / "t.json")
    assert load(tmp_path, GOOD).graph.use == "atinuke"


def test_a_folder_with_the_characters_of_patterns_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "data [1]*"
    (folder / "corpus").mkdir(parents=True)
    for name in ("a.txt", "b.txt"):
        (folder / "corpus" / name).write_text(name)
    text = GOOD.replace("corpus/*.txt", "corpus/*.txt, corpus/a.txt, ~/c.txt").replace(
        "validation: [/abs/held-out.txt], ", ""
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "c.txt").write_text("c")
    recipe = load(folder, text)
    assert find(recipe.data.train) == [tmp_path / "c.txt", folder / "corpus" / "a.txt", folder / "corpus" / "b.txt"]
    (folder / "again.yaml").write_text(dump_recipe(recipe))
    assert load_recipe(folder / "again.yaml") == recipe


def test_every_mistake_is_reported_with_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.yaml").write_text(BAD)
    with pytest.raises(AtinukeError) as caught:
        load_recipe(Path("bad.yaml"))
    assert str(caught.value) == WRONG


def test_overrides_replace_add_and_are_blamed(tmp_path: Path) -> None:
    recipe = load(tmp_path, GOOD, "steps=200", "schedule={name: wsd}", "on_bad_loss.do=skip", "data.train=[x.txt]")
    assert (recipe.steps, recipe.schedule.name, recipe.on_bad_loss.do) == (200, "wsd", "skip")
    assert recipe.data.train == (str(tmp_path / "x.txt"),)
    with pytest.raises(AtinukeError) as caught:
        load(tmp_path, GOOD, "sede=1", "batch=0", "steps.x=1", "clip", "keep=[")
    text = str(caught.value)
    assert "--set sede  unknown key `sede`\n  to fix: use `seed`" in text
    assert "--set batch  `batch` must be greater than 0\n  got `0`" in text
    assert "--set steps.x  `steps` has no keys of its own" in text
    assert "--set  `clip` is not an override" in text
    assert "--set keep  is not valid YAML" in text


@pytest.mark.parametrize("text", ["", "- a", "3", "a: [", "a: 1\na: 2"])
def test_what_is_no_recipe_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(AtinukeError):
        load(tmp_path, text)


def test_a_warm_up_as_long_as_the_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AtinukeError, match=r"`schedule.warmup` 100 must be less than `steps` 100"):
        load(tmp_path, GOOD, "schedule.warmup=100")


@given(
    st.fixed_dictionaries(
        {"lr": st.floats(1e-12, 1e6), "eps": st.floats(1e-30, 1.0), "weight_decay": st.floats(0, 10)},
    ),
    st.sampled_from(["cosine", "wsd"]),
    st.dictionaries(st.text("abc", min_size=1), st.one_of(st.integers(), st.text("ab1.")), max_size=3),
    st.integers(1, 2**31 - 1),
)
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory,
    rates: dict[str, float],
    schedule: str,
    dims: dict[str, object],
    steps: int,
) -> None:
    recipe = Recipe.model_validate(
        {
            "graph": {"use": "atinuke", "set": dims},
            "data": {"train": ["/x y.txt"], "validation_fraction": 0.1, "context": 8},
            "tokenizer": {"vocab_size": 300},
            "optimiser": {"name": "adamw", "betas": [0.9, 0.99], **rates},
            "schedule": {"name": schedule},
            "steps": steps,
            "batch": 1,
        }
    )
    assert load(tmp_path_factory.getbasetemp(), dump_recipe(recipe)) == recipe


def test_the_rate_of_a_head_needs_a_task(tmp_path: Path) -> None:
    with pytest.raises(AtinukeError, match=r"`optimiser.head_lr` is the rate of what a `task` adds, and there is none"):
        load(tmp_path, GOOD, "optimiser.head_lr=1e-3")
