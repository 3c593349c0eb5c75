"""Makes manifests of the Free Spoken Digit Dataset (github.com/Jakobovski/free-spoken-digit-dataset, CC BY-SA 4.0).

    python prepare.py free-spoken-digit-dataset/recordings
    python prepare.py free-spoken-digit-dataset/recordings --held-out george

Takes 0 to 4 of every digit and speaker are the test, as its authors say; or one speaker, whom training then never
hears. Training also gets every recording at 0.9 and 1.1 times its speed (Ko et al., 2015).
"""

import argparse
import json
from pathlib import Path

import soundfile
import soxr

SPEEDS = (1, 0.9, 1.1)


def write(file: Path, speed: float, folder: Path) -> Path:
    """The recording at a speed, in another folder."""
    samples, rate = soundfile.read(file, dtype="float32")
    path = folder / (file.name if speed == 1 else f"{file.stem}-{speed}.wav")
    soundfile.write(path, samples if speed == 1 else soxr.resample(samples, rate * speed, rate), rate)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--held-out", help="a speaker who is the test, instead of takes 0 to 4 of all")
    parser.add_argument("--to", type=Path, default=Path(__file__).parent / "data")
    given = parser.parse_args()
    rows: dict[str, list[dict[str, str]]] = {"train": [], "test": []}
    wavs = given.to / "wav"
    wavs.mkdir(parents=True, exist_ok=True)
    for file in sorted(given.source.glob("?_*_*.wav")):
        digit, speaker, take = file.stem.split("_")
        tested = speaker == given.held_out if given.held_out else int(take) < 5
        for speed in SPEEDS[:1] if tested else SPEEDS:
            row = {"sound": f"wav/{write(file, speed, wavs).name}", "digit": digit, "speaker": speaker}
            rows["test" if tested else "train"].append(row)
    for part, found in rows.items():
        lines = "".join(json.dumps(row) + "\n" for row in found)
        (given.to / f"{part}.jsonl").write_text(lines)
        print(f"{given.to / part}.jsonl: {len(found):,} rows")


if __name__ == "__main__":
    main()
