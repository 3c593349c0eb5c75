"""torch.compile where the model runs: the bundle's graph and weights are all that it needs."""

import json
from pathlib import Path

from atinuke.compile.builder import Builder, Work
from atinuke.runtime.inductor import FILE


class InductorBuilder(Builder):
    """Notes which nodes stay in float32. Comparing the build with the model compiles it, and so warms this machine's
    cache."""

    precisions = ("fp32", "bf16", "fp16")

    def build(self, work: Work, folder: Path) -> None:
        (folder / FILE).write_text(json.dumps({"float32": sorted(work.float32)}) + "\n", encoding="utf-8")
