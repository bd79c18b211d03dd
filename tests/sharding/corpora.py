"""Small corpora for whole builds: a generic source with duplicates, an excerpt, a long clip and broken files."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import soundfile as sf

RATE = 32000


def noise(seed: int, seconds: float, rate: int = RATE) -> np.ndarray:
    """Unmistakable sound: bursts of coloured noise, another one for every seed."""
    rng = np.random.default_rng(seed)
    wave = rng.standard_normal(round(seconds * rate)).astype(np.float32)
    wave = np.convolve(wave, rng.standard_normal(24).astype(np.float32), "same")
    steps = np.repeat(rng.uniform(0.05, 1.0, int(seconds * 8) + 1), rate // 8)[: len(wave)]
    wave *= np.pad(steps, (0, len(wave) - len(steps)), constant_values=0.5).astype(np.float32)
    return (0.3 * wave / np.abs(wave).max()).astype(np.float32)


def write_corpus(folder: Path, clips: int = 8, seconds: float = 3.0) -> Path:
    """A folder for ``--source NAME=FOLDER``.

    ``train/a0`` ... are ordinary; ``train/copy`` holds the sound of a0 at another level; ``train/long`` is 2.5
    windows of 10 s long; ``test/held`` is the sound of ``train/leak``; ``train/page`` is a web page, ``train/gone`` is
    not there.
    """
    sounds = {f"train/a{n}": noise(n, seconds) for n in range(clips)}
    sounds["train/copy"] = sounds["train/a0"] * 0.5
    sounds["train/long"] = noise(100, 25.0)
    sounds["test/held"] = noise(200, seconds + 1)
    sounds["train/leak"] = sounds["test/held"][: round(seconds * RATE)] * 0.7
    rows = []
    for name, wave in sounds.items():
        path = folder / f"{name}.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        sf.write(path, wave, RATE, subtype="PCM_16")
        rows.append((f"{name}.flac", name.split("/")[0], f"noise that is called {name}"))
    (folder / "train/page.flac").write_text("<html><body>429 Too Many Requests</body></html>")
    rows += [("train/page.flac", "train", "a page"), ("train/gone.flac", "train", "nothing at all")]
    with (folder / "clips.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "split", "captions"])
        writer.writerows(rows)
    return folder


def write_extra(folder: Path, seconds: float = 3.0) -> Path:
    """A second source that overlaps with ``write_corpus``: a part of a1, one of the protected sound, and its own."""
    sounds = {"n0": noise(500, 3.0), "n1": noise(501, 3.0)}
    sounds |= {"n0copy": sounds["n0"] * 0.4, "of_a1": noise(1, seconds)[: round(0.7 * seconds * RATE)] * 0.6}
    sounds["leaks"] = noise(200, seconds + 1)[: round(2.4 * RATE)] * 0.5
    (folder / "train").mkdir(parents=True)
    for name, wave in sounds.items():
        sf.write(folder / f"train/{name}.flac", wave, RATE, subtype="PCM_16")
    with (folder / "clips.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "split", "captions"])
        writer.writerows((f"train/{name}.flac", "train", f"extra noise {name}") for name in sounds)
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    """Every file of a build and its bytes."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def outcome(out: Path) -> dict[str, bytes]:
    """What a build is for: every file of it but its own notes."""
    return {name: data for name, data in tree(out).items() if not name.startswith(".build/")}
