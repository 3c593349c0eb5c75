"""Every shipped graph, and a third party's, on every target in every precision: how near it comes, or why it cannot.

    python benchmarks/targets.py                    # writes docs/targets.md; about two hours on one core
    python benchmarks/targets.py --graph llama --target onnx     # these cells anew

Graphs are small, with fresh weights; each cell is from the certificate that `atinuke compile` writes. What was found is
kept in docs/targets.jsonl and is not tried again unless it is named, so it can be interrupted. A target that dies takes
only its own process with it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from limits import said
from rich.console import Console
from rich.progress import track

from atinuke.compile.precision import HALVES
from atinuke.core.component import import_target
from atinuke.core.errors import AtinukeError
from atinuke.core.registry import Registry
from atinuke.runtime.parity import PARTLY, PASSED

ROOT = Path(__file__).parents[1]
PAGE, FOUND = ROOT / "docs" / "targets.md", ROOT / "docs" / "targets.jsonl"

SMALL = ("d_model=64", "heads=2", "batch=1..2")
TEXT = (*SMALL, "vocab_size=512", "layers=1", "sequence=1..12")
SOUND = (*SMALL, "rate=8000", "mels=16", "classes=5", "samples=1600..3200")
SEEN = ("channels=1", "patch=4", "height=16..24", "width=16..24")


@dataclass(frozen=True)
class Case:
    """A graph in a small form; those that can be stepped are compiled whole too."""

    graph: str
    sets: tuple[str, ...]
    swaps: tuple[str, ...] = ()
    steps: bool = False


CASES = {
    "atinuke": Case("atinuke", TEXT, steps=True),
    "gpt2": Case("gpt2", TEXT, steps=True),
    "llama": Case("llama", (*TEXT, "kv_heads=1"), steps=True),
    "experts": Case("experts", TEXT, steps=True),
    "encoder": Case("encoder", TEXT),
    "encoder-decoder": Case("encoder-decoder", (*TEXT, "decoder_layers=1", "source=1..12"), steps=True),
    "t5": Case("t5", (*TEXT, "decoder_layers=1", "head_dim=32", "d_ff=128", "source=1..12"), steps=True),
    "whisper": Case("whisper", (*TEXT, "mels=16", "frames=20", "samples=160..6400"), steps=True),
    "vit": Case("vit", (*SMALL, *SEEN, "layers=1", "rows=4", "columns=4")),
    "audio-encoder": Case("audio-encoder", (*SOUND, "layers=1")),
    "audio-ctc": Case("audio-ctc", (*SOUND, "layers=1")),
    "ast": Case(
        "ast", (*SMALL, "mels=16", "classes=5", "frames=30", "patch=4", "stride=3", "layers=1", "samples=400..5040")
    ),
    "clip-openai": Case(
        "clip-openai",
        (
            *("text_width=64", "text_heads=2", "text_layers=1", "end=511", "vocab_size=512", "sequence=1..12"),
            *("vision_width=64", "vision_heads=2", "vision_layers=1", "patch=4", "rows=4", "columns=4"),
            *("height=16..24", "width=16..24", "batch=1..2"),
        ),
    ),
    "clip": Case(
        "clip",
        (*SMALL, *SEEN, "vocab_size=512", "sequence=1..12", "vision_layers=1", "text_layers=1", "rows=4", "columns=4"),
    ),
    "senses, reading": Case("senses", TEXT),
    "senses, hearing": Case("senses", SOUND, ("sense=hears",)),
    "senses, seeing": Case("senses", (*SMALL, *SEEN), ("sense=sees",)),
    "trimodal": Case("trimodal", (*SOUND, *SEEN, "vocab_size=512", "sequence=1..12", "layers=1")),
    "a third party's": Case(
        str(ROOT / "examples" / "atinuke-strided" / "pairs.yaml"),
        (*SMALL, "vocab_size=512", "layers=1", "sequence=2..12"),
    ),
}


@dataclass(frozen=True)
class Cell:
    """What came of a graph's form on a target in a precision: passed, refused, failed or not run here, and why; the
    worst relative error of all calls, and the nodes that stay in float32."""

    graph: str
    form: str
    target: str
    precision: str
    status: str
    error: float | None = None
    why: str = ""
    kept: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, str, str, str]:
        return self.graph, self.form, self.target, self.precision


def forms(case: Case) -> tuple[str, ...]:
    return ("step", "whole") if case.steps else ("whole",)


def try_cells(graph: str, form: str, target: str, precisions: Sequence[str]) -> Iterator[Cell]:
    """The cells of a row of the table, one after another."""
    import torch

    from atinuke.pipelines.deploy import OverBudgetError, compile_bundle, open_subject
    from atinuke.runtime.bundle import PARITY
    from atinuke.runtime.parity import read_parity

    case = CASES[graph]
    torch.manual_seed(0)
    subject = open_subject(case.graph, case.sets, case.swaps)
    for precision in precisions:
        status, error, why, kept = "passed", None, "", ()
        with tempfile.TemporaryDirectory() as folder:
            try:
                bundle = compile_bundle(
                    subject, [f"{target}/{precision}"], Path(folder) / "bundle", form == "step", seconds=60
                )
                (build,) = read_parity(bundle.folder / PARITY).builds
            except OverBudgetError as over:
                (build,) = over.parity.builds
                why = build.blame or ""
            except AtinukeError as refused:
                mistake = refused.mistakes[0]
                yield Cell(graph, form, target, precision, "refused", why="; ".join((mistake.what, *mistake.details)))
                continue
        status, kept = build.status, tuple(kept.node for kept in build.kept)
        error = build.worst[1].relative if build.worst else None
        why = (why or build.reason or "").replace(f"{ROOT}/", "")
        yield Cell(graph, form, target, precision, status, error, why, kept)


def in_process(graph: str, form: str, target: str, precisions: Sequence[str]) -> list[Cell]:
    """The same in a process of its own; precisions that it did not come to are failures."""
    asked = ["--row", graph, form, target, ",".join(precisions)]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, *asked]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=one_thread)
    found = [Cell(**json.loads(line)) for line in done.stdout.splitlines() if line.startswith("{")]
    there = {cell.precision for cell in found}
    last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    return [*found, *(Cell(graph, form, target, p, "failed", why=last) for p in precisions if p not in there)]


def page(cells: Mapping[tuple[str, str, str, str], Cell]) -> str:
    """The table for people: a section a target, a row a graph's form, a column a precision; reasons below."""
    lines = [HEAD.format(machine=said())]
    for target, record in Registry().backends().items():
        known = precisions(target)
        lines += ["", f"## {target}", "", f"{record.summary}.", "", f"| graph | form | {' | '.join(known)} |"]
        lines += ["|" + "---|" * (2 + len(known))]
        reasons: dict[str, int] = {}
        for graph, case in CASES.items():
            for form in forms(case):
                shown = [_shown(cells.get((graph, form, target, precision)), reasons) for precision in known]
                lines += [f"| {graph} | {form} | {' | '.join(shown)} |"]
        lines += ["", *(f"{number}. {why}" for why, number in reasons.items())]
    return "\n".join(lines).rstrip() + "\n"


HEAD = """# What goes where

Made by `python benchmarks/targets.py` on one core ({machine}).

Small forms of every shipped graph, and one with a third party's component (examples/atinuke-strided), with
fresh weights. A number is the largest difference from the model in float32, as a share of the output's largest
value, over every corner of the axes and sizes inside (`in part`: over those that a minute was enough for); `+n` says
how many nodes stay in float32. `step` is
prefill and decode with caches (and prepare); `whole` is forward. A number in brackets is a reason below the
table."""


def _shown(cell: Cell | None, reasons: dict[str, int]) -> str:
    if cell is None:
        return "not tried"
    note = f" [{reasons.setdefault(cell.why, len(reasons) + 1)}]" if cell.why else ""
    if cell.status in (PASSED, PARTLY) and cell.error is not None:
        part = " in part" if cell.status == PARTLY else ""
        return f"{cell.error:.0e}{part}" + (f" +{len(cell.kept)}" if cell.kept else "") + note
    return cell.status + note


def precisions(target: str) -> tuple[str, ...]:
    """The precisions that are tried: float32, one half precision, and int8 where the target has it."""
    known: tuple[str, ...] = import_target(Registry().backend(target).builder).precisions
    half = next((one for one in known if one in HALVES), "")
    return tuple(one for one in ("fp32", half, "int8") if one in known)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graph", action="append", choices=CASES, help="only this graph, anew")
    parser.add_argument("--target", action="append", choices=Registry().backends(), help="only this target, anew")
    parser.add_argument("--row", nargs=4, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.row:
        graph, form, target, known = asked.row
        for cell in try_cells(graph, form, target, known.split(",")):
            print(json.dumps(asdict(cell)), flush=True)
        return
    cells: dict[tuple[str, str, str, str], Cell] = {}
    if FOUND.exists():
        found = (Cell(**json.loads(line)) for line in FOUND.read_text(encoding="utf-8").splitlines())
        cells = {cell.key: cell for cell in found}
    rows = [
        (graph, form, target)
        for target in asked.target or Registry().backends()
        for graph in asked.graph or CASES
        for form in forms(CASES[graph])
    ]
    for graph, form, target in track(rows, "trying", console=Console(stderr=True)):
        wanted = [
            precision
            for precision in precisions(target)
            if asked.graph or asked.target or (graph, form, target, precision) not in cells
        ]
        if wanted:
            for cell in in_process(graph, form, target, wanted):
                cells[cell.key] = cell
                with FOUND.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(cell)) + "\n")
    PAGE.write_text(page(cells), encoding="utf-8")


if __name__ == "__main__":
    main()
