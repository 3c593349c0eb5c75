"""Small recordings and pictures that tests write, each a function of its number; and what a bad one is told."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from atinuke.core.errors import AtinukeError

RATE = 8000


def recording(path: Path, number: int, samples: int) -> Path:
    """Noise, as 16-bit PCM."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.random.default_rng(number).uniform(-0.5, 0.5, samples), RATE)
    return path


def picture(path: Path, number: int, height: int = 8, width: int = 6) -> Path:
    """Coloured noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)).save(path)
    return path


def failure(function: Callable[[], object]) -> str:
    """The one mistake that a function ends with."""
    with pytest.raises(AtinukeError) as caught:
        function()
    assert len(caught.value.mistakes) == 1
    return str(caught.value)
