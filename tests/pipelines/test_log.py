import json
import math
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from atinuke.core.errors import AtinukeError
from atinuke.pipelines.log import Log, read
from tests.pipelines.test_checkpoint import disk_of


def test_a_resumed_log_has_every_step_once(tmp_path: Path) -> None:
    with Log(tmp_path) as log:
        for step in range(1, 8):
            log.write(step, loss=float(step), lr=0.1)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 8, "lo')  # torn by a crash
    with Log(tmp_path, step=5) as log:
        for step in range(6, 9):
            log.write(step, loss=10.0 * step, lr=0.1)
        log.write(8, bad="the loss is nan")
        log.write(8, validation_loss=math.inf)
    records = read(tmp_path / "log.jsonl")
    assert [record["step"] for record in records] == [1, 2, 3, 4, 5, 6, 7, 8, 8, 8]
    assert records[5] == {"step": 6, "loss": 60.0, "lr": 0.1}
    assert records[8] == {"step": 8, "bad": "the loss is nan"}
    assert records[9] == {"step": 8, "validation_loss": None}

    board = EventAccumulator(str(tmp_path / "tensorboard"), purge_orphaned_data=True)
    board.Reload()
    assert [(event.step, event.value) for event in board.Scalars("loss")] == [
        *((step, float(step)) for step in range(1, 6)),
        *((step, 10.0 * step) for step in range(6, 9)),
    ]


def test_a_log_from_before_the_first_checkpoint_is_begun_anew(tmp_path: Path) -> None:
    with Log(tmp_path) as log:
        log.write(1, loss=1.0)
    with Log(tmp_path) as log:
        log.write(1, loss=2.0)
    assert read(tmp_path / "log.jsonl") == [{"step": 1, "loss": 2.0}]
    board = EventAccumulator(str(tmp_path / "tensorboard"), purge_orphaned_data=True)
    board.Reload()
    assert [event.value for event in board.Scalars("loss")] == [2.0]


def test_a_full_disk_is_one_error(tmp_path: Path) -> None:
    with Log(tmp_path) as log, disk_of(1_000):
        message = r"log.jsonl  cannot be written: File too large"
        with pytest.raises(AtinukeError, match=message) as caught:  # noqa: PT012 - which of the records is all one
            for step in range(100):
                log.write(step, loss=1.0)
    assert len(caught.value.mistakes) == 1
    assert len(read(tmp_path / "log.jsonl")) > 10


@pytest.mark.parametrize("line", ["x", "[]", "3", '{"loss": 1}', '{"step": "x"}', '{"step": null}'])
def test_a_foreign_line_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "log.jsonl").write_text(json.dumps({"step": 1}) + f"\n{line}\n" + '{"step": 2}\n')
    with pytest.raises(AtinukeError, match=r"log.jsonl:2  is not a record of a training log"):
        read(tmp_path / "log.jsonl")
