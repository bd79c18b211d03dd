"""A small source of sounds that is the same to the bit on every machine: it is computed with whole numbers alone.

``bench.golden`` builds from it.  The clips cover what a build decides: ordinary clips in several forms, a copy of one
of them, a long clip of several windows, a training clip that shares sound with a protected one, a file that is no
audio, and one that is missing at first.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import soundfile as sf

LATE = "train/late.wav"  # the clip that ``write_source`` leaves out and ``add_late`` adds
Sound = np.ndarray  # int16 [n] or [n, 2]


def notes(seed: int, seconds: float, rate: int) -> Sound:
    """Two voices of triangle waves whose pitch and level change every tenth of a second; int16 [n]."""
    draw = np.random.default_rng(seed)
    size, step = round(seconds * rate), rate // 10
    total = np.zeros(size, np.int64)
    for _ in range(2):
        count = -(-size // step)
        hertz = draw.integers(150, 6000, count)
        level = draw.integers(1, 64, count)
        phase = np.cumsum(np.repeat(hertz, step)[:size]) % rate
        triangle = 4 * np.abs(phase - rate // 2) - rate  # from -rate to +rate
        total += triangle * np.repeat(level, step)[:size] * 10_000 // (64 * rate)
    return total.astype(np.int16)


def write_source(folder: Path) -> Path:
    """Write a folder for ``--source NAME=FOLDER``, with ``clips.csv``; about 13 seconds of sound in ten clips."""
    plain = notes(1, 1.5, 32_000)
    held = notes(9, 1.8, 32_000)
    sounds: dict[str, tuple[Sound, int]] = {
        "train/plain.wav": (plain, 32_000),
        "train/copy.wav": (plain // 2, 32_000),
        "train/stereo.flac": (np.stack([notes(2, 1.4, 44_100), notes(3, 1.4, 44_100)], axis=1), 44_100),
        "train/fast.wav": (notes(4, 1.2, 48_000), 48_000),
        "train/slow.flac": (notes(5, 1.6, 16_000), 16_000),
        "train/long.wav": (notes(6, 3.5, 32_000), 32_000),
        "train/leak.wav": (held[:48_000] // 2, 32_000),
        "test/held.flac": (held, 32_000),
    }
    for name, (wave, rate) in sounds.items():
        _write(folder / name, wave, rate)
    (folder / "train/page.wav").write_text("<html><body>429 Too Many Requests</body></html>")
    with (folder / "clips.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", "split", "captions"])
        for name in (*sounds, "train/page.wav", LATE):
            split, _, stem = name.partition("/")
            writer.writerow([name, split, f"notes that are called {stem.partition('.')[0]}"])
    return folder


def add_late(folder: Path) -> None:
    """Add the clip that is missing in ``write_source``; a second call changes nothing."""
    if not (folder / LATE).exists():
        _write(folder / LATE, notes(7, 1.3, 22_050), 22_050)


def _write(path: Path, wave: Sound, rate: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, wave, rate, subtype="PCM_16")
