"""What the official programs say of a thousand drawn sets of predictions; kept in `official/`, for they are not ours.

    python -m tests.pipelines.scores.official squad   evaluate-v1.1.py evaluate-v2.0.py
    python -m tests.pipelines.scores.official coreference scorer.pl LEA     # the folder of LEA's authors' scorer, coval
    python -m tests.pipelines.scores.official roles   srl-eval.pl

Of the reference scorer of coreference it is version 8.01.
"""

import gzip
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy

from tests.pipelines.scores.drawn import Case, answers, clusters, propositions

FOLDER = Path(__file__).parent / "official"
SETS = 1000
THRESHOLD = 0.5
ALL = list(HealthCheck)


def recorded(name: str) -> list[tuple[Case, dict[str, Any]]]:
    """The drawn sets of a task and what is said of each."""
    return [
        tuple(json.loads(line)) for line in gzip.decompress((FOLDER / f"{name}.jsonl.gz").read_bytes()).splitlines()
    ]


def _drawn(strategy: SearchStrategy[Case]) -> list[Case]:
    found: dict[str, Case] = {}

    @settings(
        max_examples=3 * SETS, derandomize=True, database=None, phases=[Phase.generate], suppress_health_check=ALL
    )
    @given(strategy)
    def draw(case: Case) -> None:
        found.setdefault(json.dumps(case), case)

    draw()
    return list(found.values())[:SETS]


def _run(*command: str | Path) -> str:
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True).stdout


def squad(case: Case, folder: Path, version1: Path, version2: Path) -> dict[str, Any]:
    """What both scripts print; the first has only the questions with an answer, and not what is surely none."""
    asked = [{"id": name, "answers": [{"text": one} for one in right]} for name, right in case["right"].items()]
    chance = case["no_answer"]
    told: dict[str, Any] = {}
    for version, script in (("1.1", version1), ("2.0", version2)):
        questions = [one for one in asked if one["answers"] or version == "2.0"]
        said = {name: text for name, text in case["said"].items() if version == "2.0" or chance[name] < 1}
        data = {"version": version, "data": [{"title": "", "paragraphs": [{"context": "", "qas": questions}]}]}
        for name, content in (("data", data), ("said", said), ("chance", chance)):
            (folder / name).write_text(json.dumps(content))
        more = ["-n", folder / "chance", "-t", str(THRESHOLD)] if version == "2.0" else []
        if questions:
            printed = _run(sys.executable, script, folder / "data", folder / "said", *more)
            told[version] = json.loads(printed[printed.index("{") :])
    return told


def coreference(case: Case, folder: Path, scorer: Path, lea: Path) -> dict[str, Any]:
    """Of each metric the numerator and denominator of recall, those of precision, and F1 in per cent."""
    words = range(1 + max((word for side in case.values() for cluster in side for word in cluster), default=0))
    for side, of in case.items():
        number = {word: f"({index})" for index, cluster in enumerate(of) for word in cluster}
        lines = [f"d\t0\t{word}\tw\t{number.get(word, '-')}" for word in words]
        (folder / side).write_text("\n".join(["#begin document (d);", *lines, "#end document", ""]))
    told: dict[str, Any] = {}
    metric = ""
    line_of = r"(\S.*?): Recall: \(?([\d.]+)(?: / ([\d.]+)\))?.*Precision: \(?([\d.]+)(?: / ([\d.]+)\))?.*F1: ([\d.]+)%"
    printed = _run("perl", f"-I{scorer.parent / 'lib'}", scorer, "all", folder / "key", folder / "response", "none")
    for line in printed.splitlines():
        if line.startswith("METRIC"):
            metric = line.split()[1].rstrip(":")
        if found := re.search(line_of, line):
            what = {"Coreference": metric, "BLANC": "blanc", "Identification of Mentions": "mentions"}.get(found[1])
            if what:
                told[what] = [float(one) if one else None for one in found.groups()[1:]]
    sys.path.insert(0, str(lea))
    from coval.eval import evaluator  # type: ignore[import-not-found]

    key, response = case["key"], case["response"]
    of_key, of_response = ({word: n for n, one in enumerate(side) for word in one} for side in (key, response))
    counts = (*evaluator.lea(key, response, of_response), *evaluator.lea(response, key, of_key))
    told["lea"] = [float(one) for one in counts]
    return told


def roles(case: Case, folder: Path, script: Path) -> dict[str, Any]:
    """Of each label how often it was right, in excess and missed; and what is said of all together."""
    for side in ("right", "said"):
        lines = []
        for spans, length in zip(case[side], case["words"], strict=True):
            columns = [["-", "*"] if spans is not None else ["-"] for _ in range(length)]
            for start, end, label in spans or ():
                columns[start][0] = "do" if label == "V" else columns[start][0]
                columns[start][1] = f"({label}{columns[start][1]}"
                columns[end - 1][1] += ")"
            lines += [" ".join(column) for column in columns] + [""]
        (folder / side).write_text("\n".join(lines) + "\n")
    printed = _run("perl", script, folder / "right", folder / "said")
    rows = re.findall(r"^\s*(\S+)\s+(\d+)\s+(\d+)\s+(\d+)\s+([\d.]+)\s+([\d.]+)\s+([\d.]+)", printed, re.MULTILINE)
    perfect = re.search(r"Percentage of perfect props\s*:\s*([\d.]+)", printed)
    assert perfect, printed
    told = {name: [float(one) for one in figures] for name, *figures in rows}
    return {"perfect": float(perfect[1]), **told}


TASKS: dict[str, tuple[SearchStrategy[Case], Callable[..., dict[str, Any]]]] = {
    "squad": (answers(), squad),
    "coreference": (clusters(), coreference),
    "roles": (propositions(), roles),
}


def main(name: str, *programs: str) -> None:
    strategy, ask = TASKS[name]
    lines: list[str] = []
    for case in _drawn(strategy):
        with tempfile.TemporaryDirectory() as folder:
            lines.append(json.dumps([case, ask(case, Path(folder), *map(Path, programs))], ensure_ascii=False))
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.jsonl.gz").write_bytes(gzip.compress(("\n".join(lines) + "\n").encode(), mtime=0))


if __name__ == "__main__":
    main(*sys.argv[1:])
