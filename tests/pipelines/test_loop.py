import math
import multiprocessing
import os
import random
import signal
import time
from dataclasses import replace
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor

from atinuke.core.errors import AtinukeError
from atinuke.pipelines import checkpoint, log
from atinuke.pipelines.loop import Feed, Job, Loop, Outcome
from atinuke.pipelines.recipe import Recipe
from atinuke.pipelines.world import World, joined
from tests.pipelines import toy

ONE = World(0, 1, torch.device("cpu"))


def train(folder: Path, recipe: Recipe | None = None, job: Job | None = None) -> Outcome:
    folder.mkdir(exist_ok=True)
    return Loop(recipe or toy.recipe(), folder, job or toy.job(), ONE, Console(quiet=True)).run()


def final(folder: Path, step: int = 0) -> dict[str, Tensor]:
    """The weights of the checkpoint of a step (0: the newest)."""
    return load_file(checkpoint.saved(folder / "checkpoints")[step - 1] / "model.safetensors")


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return all(torch.equal(left[name], right[name]) for name in left.keys() | right.keys())


def test_it_learns_and_leaves_a_run_folder(tmp_path: Path) -> None:
    job = replace(toy.job(), losses={"loss": 1.0, "balance_loss": 0.01})
    outcome = train(tmp_path, toy.recipe(steps=60), job)
    assert outcome == Outcome(tmp_path, 60)
    records = log.read(tmp_path / "log.jsonl")
    losses = [record["loss"] for record in records if "loss" in record]
    checked = [record for record in records if "validation_loss" in record]
    assert len(losses) == 60
    assert losses[-1] < 0.5 * losses[0]
    assert [record["step"] for record in checked] == [7, 14, 21, 28, 35, 42, 49, 56, 60]
    assert checked[-1]["perplexity"] == pytest.approx(math.exp(checked[-1]["validation_loss"]))
    assert {"balance_loss", "lr", "gradient_norm", "seconds", "tokens_per_second"} <= records[0].keys()
    assert [path.name for path in checkpoint.saved(tmp_path / "checkpoints")] == ["step-000055", "step-000060"]
    assert (tmp_path / "loss.png").exists()


def test_losses_are_summed_by_weight_and_counted_in_the_jobs_unit(tmp_path: Path) -> None:
    feed = replace(toy.job().feed, unit="rows", count=lambda batch: len(batch["labels"]))
    job = replace(toy.job(), losses={"balance_loss": 0.5}, feed=feed)
    train(tmp_path, toy.recipe(steps=4, evaluate_every=4), job)
    first, *_, last = log.read(tmp_path / "log.jsonl")
    assert first["loss"] == pytest.approx(0.5 * first["balance_loss"])
    assert "rows_per_second" in first
    assert "perplexity" not in last
    with torch.no_grad():
        expected = [job.module.eval()(**batch).balance_loss.item() for batch in toy.validation()]
    assert last["validation_balance_loss"] == pytest.approx(sum(expected) / len(expected), rel=1e-5)
    assert last["validation_loss"] == pytest.approx(0.5 * last["validation_balance_loss"])


def test_figures_are_logged_and_not_minimised(tmp_path: Path) -> None:
    train(tmp_path / "with", toy.recipe(steps=4), replace(toy.job(), figures=("balance_loss",)))
    train(tmp_path / "without", toy.recipe(steps=4))
    assert "balance_loss" in log.read(tmp_path / "with" / "log.jsonl")[0]
    assert same(final(tmp_path / "with"), final(tmp_path / "without"))


def test_evaluation_is_the_mean_over_tokens(tmp_path: Path) -> None:
    job = toy.job()
    train(tmp_path, toy.recipe(evaluate_batches=2), replace(job, feed=replace(job.feed, bytes_per_token=2.0)))
    record = next(record for record in reversed(log.read(tmp_path / "log.jsonl")) if "validation_loss" in record)
    batches = toy.validation()[:2]
    whole = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
    with torch.no_grad():
        loss = job.module.eval()(**whole).loss.item()
    assert record["validation_loss"] == pytest.approx(loss, rel=1e-6)
    assert record["bits_per_byte"] == pytest.approx(loss / math.log(2) / 2, rel=1e-6)


@pytest.mark.parametrize("changes", [{}, {"optimiser": {"name": "sgd", "lr": 0.1}}, {"precision": "bf16"}])
def test_micro_batches_make_the_same_step_as_one_batch(tmp_path: Path, changes: dict[str, Any]) -> None:
    """Though their numbers of ignored labels differ."""
    train(tmp_path / "one", toy.recipe(batch=8, **changes), toy.job(8, dropout=0.0))
    train(tmp_path / "four", toy.recipe(batch=2, accumulate=4, **changes), toy.job(2, dropout=0.0))
    one, four = final(tmp_path / "one"), final(tmp_path / "four")
    tolerance = 2e-2 if changes.get("precision") == "bf16" else 1e-4
    for name in one:
        assert torch.allclose(one[name], four[name], rtol=tolerance, atol=tolerance), name


def test_activation_checkpoints_change_nothing(tmp_path: Path) -> None:
    train(tmp_path / "plain")
    train(tmp_path / "kept", toy.recipe(activation_checkpointing=True))
    assert same(final(tmp_path / "plain"), final(tmp_path / "kept"))  # dropout included


def test_the_norm_is_clipped(tmp_path: Path) -> None:
    sgd = {"name": "sgd", "lr": 1.0, "momentum": 0.0}
    recipe = toy.recipe(optimiser=sgd, schedule={"name": "wsd", "decay": 0.0}, clip=1e-3, steps=1)
    job = toy.job()
    before = {name: tensor.clone() for name, tensor in checkpoint.weights(job.module).items()}
    train(tmp_path, recipe, job)
    after = checkpoint.weights(job.module)
    moved = torch.stack([(after[name] - before[name]).norm() for name in after]).norm()
    assert moved == pytest.approx(1e-3, rel=1e-2)


# Bad steps


class Poisoned(toy.Toy):
    """Its loss is not a number where the first token of the batch is 3."""

    def forward(self, input_ids: Tensor, labels: Tensor) -> toy.Output:
        output = super().forward(input_ids, labels)
        return output._replace(loss=output.loss * torch.where(input_ids[0, 0] == 3, math.nan, 1.0))


def poisoned() -> tuple[Job, list[int]]:
    """The job, and the steps that are bad in it."""
    torch.manual_seed(0)
    bad = [step for step in range(1, 21) if toy.make(range(4 * step - 4, 4 * step))["input_ids"][0, 0] == 3]
    return Job(Poisoned(), Feed(toy.Rows(4))), bad


def test_stop_ends_the_run_with_one_error_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    job, bad = poisoned()
    with pytest.raises(AtinukeError, match=f"training stopped at step {bad[0]}: the loss is nan") as caught:
        train(tmp_path, toy.recipe(save_every=bad[0] - 1), job)
    assert len(caught.value.mistakes) == 1
    assert [path.name for path in checkpoint.saved(tmp_path / "checkpoints")] == [f"step-{bad[0] - 1:06d}"]
    assert log.read(tmp_path / "log.jsonl")[-1] == {"step": bad[0], "bad": "the loss is nan"}


def test_skip_leaves_the_weights_as_they_were(tmp_path: Path) -> None:
    job, bad = poisoned()
    train(tmp_path, toy.recipe(on_bad_loss={"do": "skip"}, save_every=1, keep=20), job)
    records = log.read(tmp_path / "log.jsonl")
    assert [record["step"] for record in records if "bad" in record] == bad
    assert same(final(tmp_path, bad[0]), final(tmp_path, bad[0] - 1))
    assert not same(final(tmp_path, bad[0]), final(tmp_path, bad[0] + 1))
    assert all(torch.isfinite(tensor).all() for tensor in final(tmp_path).values())


def test_too_many_in_a_row_stop_even_a_skipping_run(tmp_path: Path) -> None:
    job = toy.job()
    with torch.no_grad():
        job.module.scale.fill_(math.inf)
    with pytest.raises(AtinukeError, match=r"training stopped at step 3: (.|\n)*bad steps in a row: 3"):
        train(tmp_path, toy.recipe(on_bad_loss={"do": "skip", "most": 3}), job)


def test_a_full_disk_stops_the_run_and_it_can_be_resumed(tmp_path: Path) -> None:
    from tests.pipelines.test_checkpoint import disk_of

    train(tmp_path / "whole")
    train(tmp_path / "cut", toy.recipe(steps=10, schedule={"name": "wsd"}))
    with disk_of(5_000), pytest.raises(AtinukeError, match=r"cannot be (saved|written)"):
        train(tmp_path / "cut")
    assert train(tmp_path / "cut").step == 20


# Interruption


class Signalling(toy.Rows):
    """Sends this process a signal while the eighth step is being made."""

    number = signal.SIGINT

    def __next__(self) -> toy.Batch:
        if self.row == 7 * self.batch:
            os.kill(os.getpid(), self.number)
        return super().__next__()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_step_saves_and_returns(tmp_path: Path, number: signal.Signals) -> None:
    train(tmp_path / "whole")
    job = toy.job()
    batches = Signalling(4)
    batches.number = number
    before = signal.getsignal(number)
    outcome = train(tmp_path / "cut", job=Job(job.module, Feed(batches, toy.validation)))
    assert outcome == Outcome(tmp_path / "cut", 8, number)
    assert signal.getsignal(number) is before
    assert checkpoint.saved(tmp_path / "cut" / "checkpoints")[-1].name == "step-000008"
    assert train(tmp_path / "cut") == Outcome(tmp_path / "cut", 20)
    assert same(final(tmp_path / "whole"), final(tmp_path / "cut"))


def test_a_finished_run_stays_as_it_is(tmp_path: Path) -> None:
    train(tmp_path)
    before = (tmp_path / "log.jsonl").read_text()
    assert train(tmp_path) == Outcome(tmp_path, 20)
    assert (tmp_path / "log.jsonl").read_text() == before


# Processes

KILLS = 8
SKIPPING = toy.recipe(
    steps=40,
    accumulate=2,
    on_bad_loss={"do": "skip", "spike": 0.01, "window": 4, "most": 40},
    save_every=3,
    evaluate_every=20,
)


def processes() -> ForkServerContext:
    """Processes that find what is slow to import already imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["torch._dynamo", "tensorboard.compat.proto.event_pb2", "matplotlib.backends.backend_agg"]
    )
    return context


def resumable(folder: Path) -> None:
    torch.set_num_threads(1)
    train(folder, SKIPPING)


def test_killed_at_any_moment_and_resumed_it_ends_with_the_same_bits(tmp_path: Path) -> None:
    """With dropout, accumulation, skipped spikes and checkpoints every third step."""
    context = processes()
    first = context.Process(target=os.getpid)  # waits for the imports
    first.start()
    first.join()
    begin = time.monotonic()
    whole = context.Process(target=resumable, args=(tmp_path / "whole",))
    whole.start()
    whole.join()
    duration = time.monotonic() - begin
    draw = random.Random(0)
    killed = 0
    folder = tmp_path / "cut"
    for _ in range(100):
        process = context.Process(target=resumable, args=(folder,))
        process.start()
        process.join(draw.uniform(0, duration) if killed < KILLS else None)
        if process.exitcode is None:
            process.kill()
            process.join()
            killed += 1
        else:
            assert process.exitcode == 0
            assert same(final(tmp_path / "whole"), final(folder))
            if killed == KILLS:
                break
            folder = folder.with_name(f"cut{killed}")
    steps = [record["step"] for record in log.read(folder / "log.jsonl") if "validation_loss" not in record]
    assert steps == list(range(1, 41))
    assert any("bad" in record for record in log.read(folder / "log.jsonl"))


def ranked(folder: Path, rank: int, size: int, accumulate: int) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": "0"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(29_600 + os.getppid() % 300)}
    batch = 8 // size // accumulate
    with joined() as world:
        job = toy.job(batch, rank, size, dropout=0.0)
        Loop(toy.recipe(batch=batch, accumulate=accumulate), folder, job, world, Console(quiet=True)).run()


def test_two_processes_make_the_same_steps_as_one(tmp_path: Path) -> None:
    context = processes()
    workers = []
    for folder, size, accumulate in (("one", 1, 1), ("two", 2, 2)):
        (tmp_path / folder).mkdir()
        for rank in range(size):
            workers.append(context.Process(target=ranked, args=(tmp_path / folder, rank, size, accumulate)))
            workers[-1].start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    one, two = final(tmp_path / "one"), final(tmp_path / "two")
    for name in one:
        assert torch.allclose(one[name], two[name], rtol=1e-4, atol=1e-5), name
    logs = [log.read(tmp_path / name / "log.jsonl") for name in ("one", "two")]
    for left, right in zip(*logs, strict=True):
        assert left["step"] == right["step"]
        for name in {"loss", "validation_loss", "gradient_norm"} & left.keys():
            assert left[name] == pytest.approx(right[name], rel=1e-4)
    with pytest.raises(AtinukeError, match="its steps have 8 rows, but those of this run would have 4"):
        train(tmp_path / "two")
