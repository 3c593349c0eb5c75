"""Sound against readings that are not ours: the `wave` module, numpy, and sines whose samples are known."""

import io
import struct
import wave
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from atinuke.runtime.sound import read_sound
from tests.pipelines.media import failure

RATE = 16_000


def sine(rate: int, seconds: float = 1.0, hertz: float = 440.0) -> NDArray[np.float64]:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)


def wav(
    data: bytes, rate: int = RATE, channels: int = 1, bits: int = 16, kind: int = 1, size: int | None = None
) -> bytes:
    """A wav file written by hand; `size` is what its header says of `data`."""
    size = len(data) if size is None else size
    frame = channels * bits // 8
    form = struct.pack("<IHHIIHH", 16, kind, channels, rate, rate * frame, frame, bits)
    return (
        struct.pack("<4sI8s", b"RIFF", (36 + size) % 2**32, b"WAVEfmt ")
        + form
        + struct.pack("<4sI", b"data", size)
        + data
    )


def pcm(samples: NDArray[Any]) -> bytes:
    return np.round(samples * 32767).astype("<i2").tobytes()


def encoded(samples: NDArray[Any], rate: int, form: str, subtype: str | None = None) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, format=form, subtype=subtype)
    return stream.getvalue()


def test_wav_is_what_the_wave_module_reads(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(-32768, 32768, (1000, 2)).astype("<i2")
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((2, 2, RATE, 0, "NONE", ""))
        file.writeframes(values.tobytes())
    samples = read_sound(tmp_path / "a.wav", RATE)
    assert samples.dtype == np.float32
    np.testing.assert_allclose(samples, (values / 32768).mean(1), atol=1e-7)
    assert np.array_equal(samples, read_sound((tmp_path / "a.wav").read_bytes(), RATE))


@pytest.mark.parametrize(
    ("data", "close"),
    [
        (wav(np.round(sine(RATE) * 128 + 128).astype(np.uint8).tobytes(), bits=8), 1e-2),
        (wav(sine(RATE).astype("<f4").tobytes(), bits=32, kind=3), 1e-6),
        (wav(sine(RATE).astype("<f8").tobytes(), bits=64, kind=3), 1e-6),
        (wav(pcm(sine(RATE)), size=0xFFFFFFFF), 1e-4),  # as ffmpeg writes into a pipe
        (encoded(sine(RATE), RATE, "WAV", "PCM_24"), 1e-6),
        (encoded(sine(RATE), RATE, "WAVEX"), 1e-4),
        (encoded(sine(RATE), RATE, "FLAC"), 1e-4),
        (encoded(sine(RATE), RATE, "OGG", "VORBIS"), 5e-2),
        (encoded(sine(RATE), RATE, "OGG", "OPUS"), 5e-2),
        (encoded(sine(RATE), RATE, "MP3"), 5e-2),
    ],
    ids=["8-bit", "float", "double", "piped", "24-bit", "extensible", "flac", "vorbis", "opus", "mp3"],
)
def test_forms_and_what_was_written(data: bytes, close: float) -> None:
    samples = read_sound(data, RATE)
    assert samples.shape == (RATE,)
    np.testing.assert_allclose(samples[500:-500], sine(RATE)[500:-500], atol=close)


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_any_rate_and_channel_count_become_mono(rate: int, channels: int) -> None:
    """Channels of different loudness, so that taking one of them is not their mean."""
    gains = np.arange(1, channels + 1) / channels
    samples = read_sound(wav(pcm(sine(rate)[:, None] * gains), rate, channels), RATE)
    assert abs(len(samples) - RATE) <= 1
    inner = slice(1000, RATE - 1000)
    np.testing.assert_allclose(samples[inner], sine(RATE)[inner] * gains.mean(), atol=2e-4)


def test_what_the_new_rate_cannot_hold_is_filtered_out() -> None:
    assert np.abs(read_sound(wav(pcm(sine(48_000, hertz=9_000.0)), 48_000), RATE)[1000:-1000]).max() < 1e-3


def test_longer_than_a_block_of_decoding() -> None:
    samples = read_sound(wav(pcm(sine(RATE, 10.0))), RATE)
    np.testing.assert_allclose(samples, sine(RATE, 10.0), atol=1e-4)


def test_every_recording_of_the_spoken_digits(shared: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(shared / "data/fsdd/george.zip") as archive:
        archive.extractall(tmp_path)
    files = sorted(tmp_path.rglob("*.wav"))
    assert len(files) == 500
    for path in files:
        with wave.open(str(path)) as file:
            expected = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768
        np.testing.assert_array_equal(read_sound(path, 8000), expected.astype(np.float32))


GOOD = wav(pcm(sine(RATE)))
NAN = sine(RATE).astype("<f4")
NAN[7] = np.nan
INFINITE = sine(RATE).astype("<f4")
INFINITE[7] = -np.inf
LONG = sine(RATE, 4.0)


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


BROKEN = {
    "truncated.wav": (GOOD[:-1], "is truncated"),
    "half.wav": (half(GOOD), "is truncated"),
    "header.wav": (GOOD[:30], "is damaged or truncated"),
    "truncated.flac": (half(encoded(LONG, RATE, "FLAC")), "is damaged or truncated"),
    "truncated.ogg": (half(encoded(LONG, RATE, "OGG", "VORBIS")), "is truncated"),
    "truncated.opus": (half(encoded(LONG, RATE, "OGG", "OPUS")), "is truncated"),
    "truncated.mp3": (half(encoded(LONG, RATE, "MP3")), "is truncated"),
    "empty.wav": (b"", "is empty"),
    "silent.wav": (wav(b""), "has no samples"),
    "text.wav": (b"this is no recording\n" * 20, "is not a sound file"),
    "text.mp3": (b"this is no recording\n" * 20, "is not a sound file"),
    "text.raw": (b"this is no recording\n" * 20, "is not a sound file"),
    "nan.wav": (wav(NAN.tobytes(), bits=32, kind=3), "1 of 16,000 are NaN or infinite"),
    "infinite.wav": (wav(INFINITE.tobytes(), bits=32, kind=3), "1 of 16,000 are NaN or infinite"),
    "no-channels.wav": (wav(GOOD[44:], channels=0), "is damaged or truncated"),
    "no-rate.wav": (wav(GOOD[44:], rate=0), "is damaged or truncated"),
    "sound.aiff": (encoded(LONG, RATE, "AIFF"), "in a format that is not read\n  its format: AIFF"),
    "hours.wav": (wav(b"\x80" * 700_000, 10, bits=8), "is longer than 60 s\n  70,000.0 s"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_one_clear_message(name: str, tmp_path: Path) -> None:
    data, message = BROKEN[name]
    (tmp_path / name).write_bytes(data)
    said = failure(lambda: read_sound(tmp_path / name, RATE))
    assert said.startswith(f"{tmp_path / name}  ")
    assert message in said
    if not name.endswith(".raw"):
        assert message in failure(lambda: read_sound(data, RATE))


def test_missing_files_and_folders(tmp_path: Path) -> None:
    assert "a.wav  there is no such file" in failure(lambda: read_sound(tmp_path / "a.wav", RATE))
    assert "cannot be read\n  Is a directory" in failure(lambda: read_sound(tmp_path, RATE))


def test_the_limit_of_length() -> None:
    assert len(read_sound(GOOD, RATE, longest=1.0)) == RATE
    assert "is longer than 0.9 s\n  1.0 s" in failure(lambda: read_sound(GOOD, RATE, longest=0.9))
