"""Makes rows of a digit that is heard, seen and read: a recording of the Free Spoken Digit Dataset (CC BY-SA 4.0), a
handwritten one of scikit-learn (the UCI set of Alpaydin and Kaynak, CC BY 4.0) and its word, English or Yoruba.

    python prepare.py free-spoken-digit-dataset/recordings

In 15 rows of 100 one of the three, each as likely as any other, is of another digit. In training each of the three is
missing from every fourth row, but never all; test rows have all three, so that any of them can be hidden. Test
recordings are takes 0 to 4; test pictures are the last third, of writers whom training has not.
"""

import argparse
import json
import random
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

WORDS = (
    ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    ("òdo", "ọ̀kan", "méjì", "mẹ́ta", "mẹ́rin", "márùn-ún", "mẹ́fà", "méje", "mẹ́jọ", "mẹ́sàn-án"),
)
CONTRADICTS, MISSES = 0.15, 0.25
ROWS = {"train": 8000, "test": 1000}
SENSES = ("sound", "picture", "word")
Things = dict[str, dict[int, list[str]]]  # by sense and digit


def things(source: Path, to: Path) -> dict[str, Things]:
    """All that can be heard, seen and read of each digit, by part."""
    found: dict[str, Things] = {part: {sense: {digit: [] for digit in range(10)} for sense in SENSES} for part in ROWS}
    for folder in ("sounds", "pictures"):
        (to / folder).mkdir(parents=True, exist_ok=True)
    for file in sorted(source.glob("?_*_*.wav")):
        digit, _, take = file.stem.split("_")
        (to / "sounds" / file.name).write_bytes(file.read_bytes())
        found["test" if int(take) < 5 else "train"]["sound"][int(digit)].append(f"sounds/{file.name}")
    digits = load_digits()
    for number, (pixels, digit) in enumerate(zip(digits.images, digits.target, strict=True)):
        file = f"pictures/{number:04}.png"
        Image.fromarray((pixels * (255 / 16)).astype(np.uint8)).save(to / file)
        found["test" if number >= 2 * len(digits.target) // 3 else "train"]["picture"][int(digit)].append(file)
    for part in found.values():
        for digit in range(10):
            part["word"][digit] = [language[digit] for language in WORDS]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--to", type=Path, default=Path(__file__).parent / "data")
    given = parser.parse_args()
    drawn = random.Random(0)
    for part, found in things(given.source, given.to).items():
        rows = []
        for _ in range(ROWS[part]):
            digit = drawn.randrange(10)
            other = drawn.choice([one for one in range(10) if one != digit])
            wrong = drawn.choice(SENSES) if drawn.random() < CONTRADICTS else None
            missing = {sense for sense in SENSES if part == "train" and drawn.random() < MISSES}
            if len(missing) == len(SENSES):
                missing.remove(drawn.choice(SENSES))
            row: dict[str, str | None] = {"digit": str(digit)}
            for sense in SENSES:
                shown = drawn.choice(found[sense][other if sense == wrong else digit])
                row[sense] = None if sense in missing else shown
            rows.append(row)
        (given.to / f"{part}.jsonl").write_text(
            "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
        )
        print(f"{given.to / part}.jsonl: {len(rows):,} rows")


if __name__ == "__main__":
    main()
