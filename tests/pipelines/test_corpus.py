"""From files to tokens: everything in order, built once, on the same side of the split whatever is added."""

import gzip
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from io import StringIO
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from atinuke.core.errors import AtinukeError
from atinuke.pipelines import corpus
from atinuke.pipelines.corpus import prepare
from atinuke.pipelines.shards import Tokens
from tests.pipelines.corpora import TEXTS, json_lines, trained

DOCUMENT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda text: not text.isspace())


def texts(tokens: Tokens) -> list[str]:
    """The documents, out of the tokens and where each starts."""
    found = [tokens[start:end] for start, end in pairwise([*tokens.starts().tolist(), len(tokens)])]
    assert all(document[-1] == trained().end_of_text for document in found)
    return [trained().decode(document[:-1].tolist()) for document in found]


def failure(function: Callable[[], object]) -> str:
    with pytest.raises(AtinukeError) as caught:
        function()
    assert len(caught.value.mistakes) == 1
    return str(caught.value)


@given(
    groups=st.lists(st.lists(DOCUMENT, min_size=1, max_size=6), min_size=1, max_size=4),
    share=st.sampled_from([0, 0.3]),
    most=st.integers(1, 200),
)
@settings(deadline=None, max_examples=40)
def test_every_document_is_there_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, groups: list[list[str]], share: float, most: int
) -> None:
    folder = tmp_path_factory.mktemp("corpus")
    for number, group in enumerate(groups):
        json_lines(folder / f"{number}.jsonl", group)
    everything = [text for group in groups for text in group]
    try:
        found = prepare([folder], trained(), folder / "cache", validation=share, shard=most)
    except AtinukeError:
        assert share  # all documents may be on one side
        return
    train, validation = texts(found.train), texts(found.validation)
    assert [text for text in everything if text not in validation] == train
    assert [text for text in everything if text not in train] == validation
    assert found.train.bytes + found.validation.bytes == sum(len(text.encode()) for text in everything)
    assert bool(validation) == bool(share)


def test_many_batches_stay_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "BATCH", 5000)
    found = prepare([json_lines(tmp_path / "a.jsonl", TEXTS * 3)], trained(), tmp_path / "cache")
    assert texts(found.train) == TEXTS * 3


def test_all_formats_together(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    (tmp_path / "1.txt").write_text(TEXTS[0])
    (tmp_path / "2.txt.gz").write_bytes(gzip.compress(TEXTS[1].encode()))
    json_lines(tmp_path / "3.jsonl", TEXTS[2:5])
    parquet.write_table(pyarrow.table({"text": TEXTS[5:9]}), tmp_path / "4.parquet")
    assert texts(prepare([tmp_path], trained(), tmp_path / "cache").train) == TEXTS[:9]


def test_the_share_is_about_right_and_documents_stay_on_their_side(tmp_path: Path) -> None:
    many = [f"document {number}" for number in range(2000)]
    before = prepare([json_lines(tmp_path / "b.jsonl", many)], trained(), tmp_path / "cache", validation=0.1)
    assert 150 < len(texts(before.validation)) < 250
    json_lines(tmp_path / "a.jsonl", [*many[:100], *(f"another {number}" for number in range(500))])
    after = prepare([tmp_path / "a.jsonl", tmp_path / "b.jsonl"], trained(), tmp_path / "cache", validation=0.1)
    assert set(texts(before.validation)) < set(texts(after.validation))
    assert not set(texts(after.validation)) & set(texts(after.train))


def builds(cache: Path) -> dict[str, int]:
    """The shards, and when each was made."""
    return {path.name: path.stat().st_mtime_ns for path in cache.glob("*") if path.is_dir() and not path.suffix}


def test_shards_are_found_again_by_content(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = json_lines(tmp_path / "1.jsonl", TEXTS[:10])
    second = json_lines(tmp_path / "2.jsonl", TEXTS[10:20])
    prepare([first, second], trained(), cache, shard=1)
    built = builds(cache)
    assert len(built) == 2

    first.rename(tmp_path / "renamed.jsonl")
    found = prepare([tmp_path / "renamed.jsonl", second], trained(), cache, shard=1)
    assert builds(cache) == built
    assert texts(found.train) == TEXTS[10:20] + TEXTS[:10]

    json_lines(second, TEXTS[10:21])
    assert texts(prepare([second], trained(), cache, shard=1).train) == TEXTS[10:21]
    assert len(builds(cache)) == 3
    prepare([second], trained(), cache, validation=0.5)
    prepare([second], trained(), cache, split="paragraph")
    assert len(builds(cache)) == 5


def test_a_broken_document_leaves_nothing_and_what_was_built_is_kept(tmp_path: Path) -> None:
    json_lines(tmp_path / "1.jsonl", TEXTS[:10])
    json_lines(tmp_path / "2.jsonl", TEXTS[10:20]).open("a").write("{")
    message = failure(lambda: prepare([tmp_path], trained(), tmp_path / "cache", shard=1))
    assert "2.jsonl:11  is not valid JSON" in message
    assert len(builds(tmp_path / "cache")) == 1
    assert not list((tmp_path / "cache").glob("*.draft"))


def test_empty_parts_are_refused(tmp_path: Path) -> None:
    path = json_lines(tmp_path / "a.jsonl", TEXTS[:1])
    assert "no document is left to validate on\n  1 in all" in failure(
        lambda: prepare([path], trained(), tmp_path / "cache", validation=1e-9)
    )
    assert "no document is left to train on\n  1 in all" in failure(
        lambda: prepare([path], trained(), tmp_path / "cache", validation=1 - 1e-9)
    )


def test_progress_is_shown(tmp_path: Path) -> None:
    shown = StringIO()
    console = Console(file=shown, force_terminal=True, width=80)
    prepare([json_lines(tmp_path / "a.jsonl", TEXTS)], trained(), tmp_path / "cache", console=console)
    assert "tokens" in shown.getvalue()


REPEATED = 60  # long enough for a signal to come in between
SCRIPT = """
import sys
from pathlib import Path
from atinuke.pipelines import corpus
from atinuke.pipelines.tokenizer import Tokenizer
corpus.BATCH = 20_000
folder = Path(sys.argv[1])
print("ready", flush=True)
tokens = corpus.prepare([folder / "texts"], Tokenizer.load(folder / "tokenizer.json"), folder / "cache", shard=1).train
print(len(tokens), len(tokens.starts()), flush=True)
"""


@pytest.fixture
def texts_on_disk(tmp_path: Path) -> Path:
    (tmp_path / "texts").mkdir()
    for number in range(8):
        json_lines(tmp_path / "texts" / f"{number}.jsonl", TEXTS[number::8] * REPEATED)
    trained().save(tmp_path / "tokenizer.json")
    return tmp_path


def start(folder: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_runs_go_on_with_what_is_missing(texts_on_disk: Path, number: signal.Signals) -> None:
    cache = texts_on_disk / "cache"
    for _ in range(5):  # on a busy machine the signal may come too late
        shutil.rmtree(cache, ignore_errors=True)
        process = start(texts_on_disk)
        assert process.stdout
        process.stdout.readline()
        while process.poll() is None and len(builds(cache)) < 2:
            time.sleep(0.001)
        process.send_signal(number)
        process.wait()
        whole = builds(cache)
        if len(whole) < 8:
            break
    assert 2 <= len(whole) < 8
    assert number == signal.SIGKILL or not list(cache.glob("*.draft"))
    found = prepare([texts_on_disk / "texts"], trained(), cache, shard=1).train
    assert texts(found) == [text for number in range(8) for text in TEXTS[number::8] * REPEATED]
    assert whole.items() <= builds(cache).items()
    assert len(builds(cache)) == 8


def test_two_processes_build_once(texts_on_disk: Path) -> None:
    """Both end with all shards; the one that comes second to a shard waits for it."""
    processes = [start(texts_on_disk) for _ in range(2)]
    outputs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert outputs[0] == outputs[1]
    assert len(builds(texts_on_disk / "cache")) == 8
