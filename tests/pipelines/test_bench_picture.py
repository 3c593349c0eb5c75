"""The picture of a bench."""

from pathlib import Path

import pytest

from atinuke.core.errors import AtinukeError
from atinuke.pipelines.bench_picture import draw
from atinuke.runtime.bench import Figure, Report, Way
from atinuke.runtime.limits import Limits

pytest.importorskip("matplotlib", reason="matplotlib is not installed")


def report(*tasks: str) -> Report:
    ways = (
        Way("onnx/fp32", "fp32", 0.3, 70 << 20),
        Way("onnx/int8", "int8", 0.2),
        Way("aot/fp32", "fp32", why="no torch"),
    )
    figures = tuple(
        Figure(way.name, task, "tokens", 2.0, 3.0, 90.0, 500.0, 1.0, 0.0, 0.1, 0.5 if way.precision == "fp32" else None)
        for task in tasks
        for way in ways[:2]
    )
    return Report("little", {"batch": 1}, 5, Limits(1, 1e11, 1e10), ways, figures)


def test_every_task_has_a_panel_and_more_of_them_make_it_higher(tmp_path: Path) -> None:
    from matplotlib.image import imread

    heights = []
    for count in (1, 3):
        draw(report(*[f"task {i}" for i in range(count)]), tmp_path / f"{count}.png")
        pixels = imread(tmp_path / f"{count}.png")
        heights.append(pixels.shape[0])
        assert pixels.shape[1] == 1300
        assert pixels[..., :3].std() > 0.05, "something is drawn"
    assert heights[1] > 1.5 * heights[0]


def test_where_nothing_ran_nothing_is_drawn(tmp_path: Path) -> None:
    with pytest.raises(AtinukeError, match=r"nothing was measured(.|\n)*aot/fp32: no torch"):
        draw(report(), tmp_path / "empty.png")
    assert not list(tmp_path.iterdir())
