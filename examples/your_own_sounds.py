"""Build shards from a folder of your own sounds.

    python examples/your_own_sounds.py WORK

writes a folder of sounds below WORK/sounds and a build of it below WORK/shards.  For your own sounds, write
``clips.csv`` as shown here and run ``earshot build --source mine=FOLDER --out OUT``: it does the same.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
import soundfile

from sharding.build.run import build
from sharding.common.runners import LocalRunner
from sharding.settings import BuildSettings
from sharding.shards.manifest import Manifest

RATE = 32000
SOUNDS = {"a low hum": 120.0, "a whistle": 1800.0, "a beep": 900.0}  # a description, and a frequency in Hz


def write_sounds(folder: Path, takes: int = 8) -> None:
    """Write some takes of each sound as WAV, and ``clips.csv`` with a caption for each."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    seconds = np.arange(2 * RATE) / RATE
    with (folder / "clips.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "captions", "split"])
        for caption, frequency in SOUNDS.items():
            for take in range(takes):
                tone = np.sin(2 * np.pi * frequency * rng.uniform(0.9, 1.1) * seconds) * rng.uniform(0.1, 0.5)
                name = f"{caption.replace(' ', '_')}_{take}.wav"
                soundfile.write(folder / name, tone + 0.01 * rng.standard_normal(len(tone)), RATE)
                table.writerow([name, caption, "test" if take == takes - 1 else "train"])


def main(work: Path) -> Manifest:
    """Write the sounds and build their shards; returns the manifest of the build."""
    write_sounds(work / "sounds")
    settings = BuildSettings(sources={"mine": str(work / "sounds")})
    summary = build(settings, str(work / "shards"), LocalRunner(1))
    print(f"{summary['samples']} samples in {summary['shards']} shards; fates: {summary['fates']}")
    return Manifest.open(str(work / "shards"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
