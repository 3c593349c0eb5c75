"""Makes tables of Fashion-MNIST (https://github.com/zalandoresearch/fashion-mnist, MIT), pictures inside.

sudo apt install dataset-fashion-mnist   # or download its four files
python prepare.py /usr/share/datasets/fashion-mnist
"""

import argparse
import gzip
import io
from pathlib import Path

import numpy as np
import pyarrow
from PIL import Image
from pyarrow import parquet

CLASSES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
HEADS = {"images": 16, "labels": 8}  # bytes before the first value


def values(source: Path, part: str, kind: str) -> np.ndarray:
    (file,) = source.glob(f"{part}-{kind}-idx?-ubyte.gz")
    return np.frombuffer(gzip.decompress(file.read_bytes()), np.uint8, offset=HEADS[kind])


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--to", type=Path, default=Path(__file__).parent / "data")
    given = parser.parse_args()
    given.to.mkdir(parents=True, exist_ok=True)
    for part, name in (("train", "train"), ("t10k", "test")):
        pictures = values(given.source, part, "images").reshape(-1, 28, 28)
        classes = [CLASSES[label] for label in values(given.source, part, "labels")]
        table = pyarrow.table({"picture": [png(one) for one in pictures], "class": classes})
        parquet.write_table(table, given.to / f"{name}.parquet")
        print(f"{given.to / name}.parquet: {len(classes):,} rows")


if __name__ == "__main__":
    main()
