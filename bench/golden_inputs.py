"""What ``bench.golden`` and the stored golden set build from and train: a small source of sounds, and small recipes.

The sounds are computed with whole numbers alone, so they are the same to the bit on every machine.  They cover what a
build decides: ordinary clips in several forms, a copy of one of them, a long clip of several windows, a training clip
that shares sound with a protected one, a file that is no audio, and one that is missing at first.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf

LATE = "train/late.wav"  # the clip that ``write_source`` leaves out and ``add_late`` adds
Sound = np.ndarray  # int16 [n] or [n, 2]

HEADS: dict[str, dict[str, Any]] = {
    "dual": {"dim": 16},
    "sentence-attention": {"dim": 16, "heads": 2},
    "token-attention": {"dim": 16, "heads": 2},
    "text-aware-pooling": {"dim": 16},
    "co-attention": {"dim": 16, "heads": 2, "audio": "patches"},
}
RECIPE: dict[str, Any] = {
    "audio": {
        **{"encoder": "passt", "variant": "custom", "source": "random", "segment_s": 1.0, "max_s": 3.0},
        **{"width": 16, "depth": 2, "heads": 2, "patchout_time": 1, "patchout_freq": 1},
    },
    "text": {
        **{"encoder": "roberta", "source": "random", "width": 16, "depth": 2, "heads": 2},
        **{"vocabulary": 280, "dropout": 0.1},
    },
    "loss": {"name": "ntxent"},
    "data": {
        "train": [{"split": "clotho/development"}, {"split": "audiocaps/train"}, {"split": "wavcaps/train"}],
        **{"batch_size": 6, "crop_s": 2.5, "workers": 1},
        "masking": {"time_masks": 1, "time_width": 10, "freq_masks": 1, "freq_width": 8},
    },
    "optimizer": {"clip": 1.0, "lr": 1e-3, "epochs": 5, "warmup_epochs": 1},
    "engine": {"zero": 1, "dropout": "sample"},
    "validation": {"split": "clotho/evaluation", "every": 10},
    "log": {"tensorboard": False, "health": 5},
}


def notes(seed: int, seconds: float, rate: int) -> Sound:
    """Triangle waves whose pitch and level change every tenth of a second; int16 [n]."""
    draw = np.random.default_rng(seed)
    size, step = round(seconds * rate), rate // 10
    count = -(-size // step)
    hertz, level = draw.integers(150, 1500, count), draw.integers(8, 64, count)
    phase = np.cumsum(np.repeat(hertz, step)[:size]) % rate
    triangle = 4 * np.abs(phase - rate // 2) - rate  # from -rate to +rate
    return (triangle * np.repeat(level, step)[:size] * 3_000 // (64 * rate)).astype(np.int16)


def write_source(folder: Path) -> Path:
    """Write a folder for ``--source NAME=FOLDER``, with ``clips.csv``; about 10 seconds of sound in ten clips."""
    plain = notes(1, 1.2, 32_000)
    held = notes(9, 1.5, 32_000)
    sounds: dict[str, tuple[Sound, int]] = {
        "train/plain.wav": (plain, 32_000),
        "train/copy.wav": (plain // 2, 32_000),
        "train/stereo.flac": (np.stack([notes(2, 1.1, 44_100), notes(3, 1.1, 44_100)], axis=1), 44_100),
        "train/fast.wav": (notes(4, 1.0, 48_000), 48_000),
        "train/slow.flac": (notes(5, 1.2, 16_000), 16_000),
        "train/long.wav": (notes(6, 2.3, 32_000), 32_000),
        "train/leak.wav": (held[:40_000] // 2, 32_000),
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


def write_recipes(folder: Path, changes: Mapping[str, Any] | None = None) -> None:
    """Write ``folder/<head>.yaml`` for each head; ``changes`` has other values for keys of the recipe's sections."""
    for head, settings in HEADS.items():
        recipe = RECIPE | {"head": {"name": head, **settings}}
        for section, values in (changes or {}).items():
            recipe[section] = recipe[section] | values
        (folder / f"{head}.yaml").write_text(json.dumps(recipe))  # JSON is YAML
