from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.image import imread

from atinuke.core.errors import AtinukeError
from atinuke.pipelines.curve import draw, smooth
from atinuke.pipelines.log import Log


def test_a_picture_is_drawn_from_the_log_alone(tmp_path: Path) -> None:
    with Log(tmp_path) as log:
        for step in range(1, 101):
            log.write(step, loss=5 / step, lr=1e-3)
        log.write(50, validation_loss=0.2)
        log.write(51, bad="the loss is nan")
    draw(tmp_path / "log.jsonl", tmp_path / "loss.png")
    picture = imread(tmp_path / "loss.png")
    assert picture.shape[0] > 400
    assert picture.min() < picture.max()
    assert not list(tmp_path.glob("*.partial"))


def test_a_log_without_losses_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 1, "bad": "x"}\n')
    with pytest.raises(AtinukeError, match="holds no losses"):
        draw(tmp_path / "log.jsonl", tmp_path / "loss.png")
    assert not (tmp_path / "loss.png").exists()


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=400), st.floats(-5, 5))
def test_smoothing_keeps_lines_and_stays_between(values: list[float], slope: float) -> None:
    smoothed = smooth(values)
    assert len(smoothed) == len(values)
    assert min(values) - 1e-6 <= min(smoothed)
    assert max(smoothed) <= max(values) + 1e-6
    line = [slope * index for index in range(len(values))]
    assert smooth(line) == pytest.approx(line, abs=1e-6)
