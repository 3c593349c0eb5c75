"""Makes strings of 3 to 7 spoken digits: recordings of one speaker of the Free Spoken Digit Dataset, and pauses.

    python prepare.py free-spoken-digit-dataset/recordings

The test strings are of takes 0 to 4, which no training string has. Every training recording is used about as often, at
0.9, 1 or 1.1 times its speed (Ko et al., 2015).
"""

import argparse
import json
import random
from collections import defaultdict
from pathlib import Path

import numpy as np
import soundfile
import soxr

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LONGEST_PAUSE = 0.3  # seconds
SPEEDS = {"train": (0.9, 1, 1.1), "test": (1,)}
STRINGS = {"train": 6000, "test": 300}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--to", type=Path, default=Path(__file__).parent / "data")
    given = parser.parse_args()
    spoken: dict[str, dict[str, list[tuple[str, np.ndarray]]]] = {part: defaultdict(list) for part in STRINGS}
    rate = 8000
    for file in sorted(given.source.glob("?_*_*.wav")):
        digit, speaker, take = file.stem.split("_")
        samples, rate = soundfile.read(file, dtype="float32")
        part = "test" if int(take) < 5 else "train"
        for speed in SPEEDS[part]:
            said = samples if speed == 1 else soxr.resample(samples, rate * speed, rate)
            spoken[part][speaker].append((WORDS[int(digit)], said))
    drawn = random.Random(0)
    for part, speakers in spoken.items():
        (given.to / part).mkdir(parents=True, exist_ok=True)
        left: dict[str, list[tuple[str, np.ndarray]]] = {speaker: [] for speaker in speakers}
        rows = []
        for number in range(STRINGS[part]):
            speaker = drawn.choice(sorted(speakers))
            pieces: list[np.ndarray] = []
            words = []
            for _ in range(drawn.randint(3, 7)):
                if not left[speaker]:
                    left[speaker] = drawn.sample(speakers[speaker], len(speakers[speaker]))
                word, samples = left[speaker].pop()
                words.append(word)
                pieces += [samples, np.zeros(int(drawn.uniform(0, LONGEST_PAUSE) * rate), np.float32)]
            file = f"{part}/{number:04}.flac"
            soundfile.write(given.to / file, np.concatenate(pieces), rate)
            rows.append({"sound": file, "digits": " ".join(words), "speaker": speaker})
        (given.to / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        print(f"{given.to / part}.jsonl: {len(rows):,} rows")


if __name__ == "__main__":
    main()
