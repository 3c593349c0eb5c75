"""A task's items as batches: each is read and encoded once, before the first step."""

import hashlib
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from atinuke.core.checked import CheckedGraph
from atinuke.core.errors import AtinukeError, fail
from atinuke.pipelines import text
from atinuke.pipelines.batches import Shuffled, in_order
from atinuke.pipelines.encoding import Texts
from atinuke.pipelines.feed_rows import require_sizes
from atinuke.pipelines.loop import Feed
from atinuke.pipelines.recipe import Recipe
from atinuke.pipelines.rows import fingerprint
from atinuke.pipelines.sampler import Batch
from atinuke.pipelines.task import Item, Task, Window
from atinuke.pipelines.tokenizer_files import find_tokenizer
from atinuke.pipelines.world import World

TEXT, SEGMENTS = "input_ids", "segment_ids"


class Windows:
    """The windows of items, in their order: `owners[i]` is the number of the item that window i is of."""

    def __init__(
        self, task: Task, items: Sequence[Item], texts: Texts, inputs: frozenset[str], console: Console, digest: str
    ) -> None:
        self.items = items
        self.windows: list[Window] = []
        self._task, self._inputs = task, inputs
        owners: list[int] = []
        for number, item in enumerate(track(items, "encoding", console=console, transient=True)):
            try:
                found = task.encode(item, texts)
            except AtinukeError as error:
                mistake = error.mistakes[0]
                raise fail(mistake.what, *mistake.details, where=mistake.where or item.where, fix=mistake.fix) from None
            assert found, "a task gives at least one window for each item"
            self.windows += found
            owners += [number] * len(found)
        self.owners: NDArray[np.int64] = np.array(owners)
        self.lengths: NDArray[np.float64] = np.array([len(one.inputs[TEXT]) for one in self.windows], np.float64)
        told = [digest, texts.fingerprint, task.model_dump(mode="json")]
        self.fingerprint: str = hashlib.sha256(json.dumps(told).encode() + self.lengths.tobytes()).hexdigest()

    def __len__(self) -> int:
        return len(self.windows)

    def batch(self, indices: Sequence[int]) -> Batch:
        """What the graph reads of these windows."""
        batch = self._task.collate([self.windows[index] for index in indices])
        return {name: tensor for name, tensor in batch.items() if name in self._inputs}


class Together:
    """Items as batches take them that need all windows of each: an item is as long as its longest window."""

    def __init__(self, windows: Windows) -> None:
        self._windows = windows
        self._starts = np.searchsorted(windows.owners, np.arange(len(windows.items) + 1))
        self.lengths: NDArray[np.float64] = np.maximum.reduceat(windows.lengths, self._starts[:-1])
        self.fingerprint = windows.fingerprint

    def __len__(self) -> int:
        return len(self._windows.items)

    def batch(self, indices: Sequence[int]) -> Batch:
        """What the graph reads of all windows of these items."""
        return self._windows.batch([at for one in indices for at in range(self._starts[one], self._starts[one + 1])])


def load_items(task: Task, files: Sequence[str]) -> list[Item]:
    """The items of all files.

    Raises:
        AtinukeError: a file is missing or not of the task's format, or two have one id.
    """
    found = text.find(files)
    items: list[Item] = []
    of: dict[str, Path] = {}
    for file in found:
        loaded = task.load(file)
        for item in loaded if len(found) > 1 else ():
            if of.setdefault(item.id, file) != file:
                raise fail(f"has the id `{item.id}`, as {of[item.id]} has", where=item.where)
        items += loaded
    return items


def open_windows(
    task: Task, files: Sequence[str], texts: Texts, checked: CheckedGraph, console: Console, gold: bool
) -> Windows:
    """The windows of all items of files.

    Raises:
        AtinukeError: see `load_items`; or `gold` is asked for and an item has none.
    """
    items = load_items(task, files)
    for item in items if gold else ():
        if item.gold is None:
            fix = f"name a file with {task.told_by}; one without is for `atinuke evaluate`"
            raise fail("does not say what is right", where=item.where, fix=fix)
    return Windows(task, items, texts, frozenset(checked.graph.inputs), console, fingerprint(text.find(files)))


def tokenizer_of(recipe: Recipe) -> Path:
    """The file of the tokenizer that a recipe with a task names, or that its pretrained model has."""
    if recipe.tokenizer and recipe.tokenizer.file:
        return Path(recipe.tokenizer.file)
    assert recipe.pretrained
    return find_tokenizer(Path(recipe.pretrained))


def require(trained: CheckedGraph, recipe: Recipe, texts: Texts) -> None:
    """What can be known before a file is read.

    Raises:
        AtinukeError: windows may be longer than the graph reads, or it has no room for all tokens or segments.
    """
    assert recipe.task
    graph, body = trained.graph, trained.body
    axis = graph.axes.get(str(body.inputs[TEXT].shape[1]))
    if axis is not None and recipe.task.length > axis.high:
        what = f"windows of {recipe.task.length:,} tokens are longer than the {axis.high:,} that the graph reads"
        raise fail(what, where="task.length", fix="set it lower, or widen the axis in the graph")
    require_room(trained, texts)


def require_room(trained: CheckedGraph, texts: Texts) -> None:
    """Raises AtinukeError where the graph has no room for all tokens or segments of a tokenizer."""
    for name, checked in trained.body.nodes.items():
        read = {wire.node for wires in checked.feeds.values() for wire in wires}
        rooms = ("vocab_size", TEXT, texts.vocab_size, "tokens"), ("segments", SEGMENTS, texts.segments, "segments")
        for setting, fed, needed, things in rooms:
            size = checked.settings.get(setting)
            if fed in read and size is not None and size < needed:
                what = f"{name} has room for {size:,} {things}, but the tokenizer has {needed:,}"
                told = f"the tokenizer: {texts.where}"
                raise fail(what, told, where=trained.graph.where, fix="use the tokenizer that the model came with")


def feed(trained: CheckedGraph, recipe: Recipe, tokenizer_file: Path, world: World, console: Console) -> Feed:
    """Reads and encodes every item once.

    Raises:
        AtinukeError: see `open_windows`.
    """
    task = recipe.task
    assert task
    texts = Texts.load(tokenizer_file)
    require(trained, recipe, texts)
    quiet = console if world.rank == 0 else Console(quiet=True)
    train = open_windows(task, task.train, texts, trained, quiet, gold=True)
    held = open_windows(task, task.validation, texts, trained, quiet, gold=True) if task.validation else None
    rows = Together if task.together else lambda windows: windows
    return Feed(
        Shuffled(rows(train), recipe.batch, recipe.accumulate, recipe.seed, world.rank, world.size),
        (lambda: in_order(rows(held), recipe.batch)) if held is not None else None,
        partial(_count, trained=trained),
        "rows",
    )


def _count(batch: Batch, trained: CheckedGraph) -> int:
    require_sizes(trained, batch)
    return len(batch[TEXT])
