"""Small recordings and pictures that tests write, each a function of its number."""

from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

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
