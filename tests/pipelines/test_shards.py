"""Shards: what is read is what was written; what is damaged or foreign is refused."""

import json
import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atinuke.core.errors import AtinukeError
from atinuke.pipelines.shards import Documents, Tokens, writing
from atinuke.pipelines.tokenizer import Tokenizer
from tests.pipelines.corpora import TEXTS, trained

law = settings(deadline=None, max_examples=50)
LENGTHS = st.lists(st.lists(st.integers(1, 9), max_size=4), min_size=1, max_size=5)


def written(folder: Path, lengths: list[int], first: int = 0, tokenizer: Tokenizer | None = None) -> Path:
    """A shard whose training part counts up from `first`, in documents of these lengths, added one by one."""
    tokenizer = tokenizer or trained()
    with writing(folder, tokenizer) as writer:
        assert writer
        for length in lengths:
            tokens = np.arange(first, first + length, dtype=tokenizer.dtype)
            writer.add({"train": Documents(tokens, [length], 10 * length)})
            first += length
    return folder


def failure(function: Callable[[], object]) -> str:
    with pytest.raises(AtinukeError) as caught:
        function()
    assert len(caught.value.mistakes) == 1
    return str(caught.value)


@given(lengths=LENGTHS, data=st.data())
@law
def test_shards_read_as_one_array(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[list[int]], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    firsts = np.cumsum([0, *map(sum, lengths)]).tolist()
    shards = [written(folder / str(n), each, firsts[n]) for n, each in enumerate(lengths)]
    tokens = Tokens(shards, trained(), "train")
    expected = np.arange(firsts[-1], dtype=np.uint16)
    assert len(tokens) == len(expected)
    assert tokens[:].tolist() == expected.tolist()
    places = st.integers(-len(expected) - 2, len(expected) + 2) | st.none()
    for start, stop in data.draw(st.lists(st.tuples(places, places), max_size=10)):
        assert tokens[start:stop].tolist() == expected[start:stop].tolist()
        assert tokens[start:stop].dtype == np.uint16
    flat = [length for each in lengths for length in each]
    assert tokens.starts().tolist() == np.cumsum([0, *flat])[:-1].tolist()
    assert tokens.bytes == 10 * sum(flat)
    assert len(Tokens(shards, trained(), "validation")) == 0


def test_large_vocabularies_are_kept_whole(tmp_path: Path) -> None:
    config = json.loads(trained().content)
    config["model"]["vocab"]["<|far|>"] = 70_000
    config["added_tokens"].append(config["added_tokens"][0] | {"id": 70_000, "content": "<|far|>"})
    tokenizer = Tokenizer(json.dumps(config))
    tokens = Tokens([written(tmp_path / "shard", [10], 69_990, tokenizer)], tokenizer, "train")
    assert tokens[:].tolist() == list(range(69_990, 70_000))


def test_what_is_read_is_a_copy(tmp_path: Path) -> None:
    tokens = Tokens([written(tmp_path / "shard", [5])], trained(), "train")
    tokens[:][0] = 9
    assert tokens[:1].tolist() == [0]


def test_a_shard_that_is_there_is_not_written_again(tmp_path: Path) -> None:
    written(tmp_path / "shard", [5])
    with writing(tmp_path / "shard", trained()) as writer:
        assert writer is None


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_shard_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    def write() -> None:
        with writing(tmp_path / "shard", trained()) as writer:
            assert writer
            writer.add({"train": Documents(np.zeros(5, np.uint16), [5], 5)})
            raise error

    with pytest.raises(error):
        write()
    assert [path.name for path in tmp_path.iterdir()] == ["shard.lock"]


def test_what_a_killed_process_left_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / "shard.draft").mkdir()
    (tmp_path / "shard.draft" / "train.tokens").write_bytes(b"half")
    assert Tokens([written(tmp_path / "shard", [5])], trained(), "train")[:].tolist() == [0, 1, 2, 3, 4]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shard", "shard.lock"]


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk."""

    def write() -> None:
        with writing(tmp_path / "shard", trained()) as writer:
            assert writer
            writer.add({"train": Documents(np.zeros(500_000, np.uint16), [500_000], 5)})

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        message = failure(write)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert f"{tmp_path}/shard  cannot be written: File too large" in message
    assert [path.name for path in tmp_path.iterdir()] == ["shard.lock"]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "cannot be written" in failure(lambda: written(tmp_path / "file" / "shard", [5]))


def truncate(shard: Path) -> None:
    (shard / "train.tokens").write_bytes((shard / "train.tokens").read_bytes()[:-1])


def change(**values: object) -> Callable[[Path], object]:
    def edit(shard: Path) -> None:
        index = json.loads((shard / "index.json").read_text())
        (shard / "index.json").write_text(json.dumps(index | values))

    return edit


DAMAGE: dict[str, Callable[[Path], object]] = {
    "train.tokens  is not whole\n  expected 10 bytes, found 9": truncate,
    "train.starts  is not whole\n  expected 8 bytes, found 0": lambda shard: (shard / "train.starts").unlink(),
    "validation.tokens  is not whole\n  expected 0 bytes, found 4": lambda shard: (
        shard / "validation.tokens"
    ).write_bytes(b"more"),
    "index.json  cannot be read": lambda shard: (shard / "index.json").unlink(),
    "index.json  is not the index of a shard\n  : Invalid JSON": lambda shard: (shard / "index.json").write_text("{"),
    "format: Input should be 'atinuke.shard'": change(format="other"),
    "version: Input should be 1": change(version=2),
    "unknown: Extra inputs": change(unknown=1),
    "train.tokens: Input should be greater": change(train={"tokens": -1}),
    "was made with another tokenizer": change(tokenizer="other"),
}


@pytest.mark.parametrize("message", DAMAGE)
def test_damaged_and_foreign_shards(tmp_path: Path, message: str) -> None:
    shard = written(tmp_path / "shard", [5])
    DAMAGE[message](shard)
    found = failure(lambda: [Tokens([shard], trained(), part) for part in ("train", "validation")])
    assert message in found
    assert "to fix: delete this folder" in found


def test_a_shard_of_another_tokenizer(tmp_path: Path) -> None:
    shard = written(tmp_path / "shard", [5])
    other = Tokenizer.train(TEXTS, 300)
    assert "was made with another tokenizer" in failure(lambda: Tokens([shard], other, "train"))
