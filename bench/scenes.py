"""Makes scenes from real recordings: several events one after the other or at once, described in several wordings.

A scene has three to five recordings of one fold.  Its captions name every event and their order.  Every scene with one
event after the other has a twin: the same kinds of event in another order, from other recordings where there are any.
So a caption that only names the events does not distinguish the two.
"""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
import soxr
from numpy.typing import NDArray

RATE = 16000
SILENT = 1e-3  # RMS below which a 50 ms block counts as silence
LONGEST_S = 5.8  # of one event in a scene: five of them last 29 s
IN_TURN = (
    "{list}",
    "{list}, one after the other",
    "first {a}, {rest}",
    "it begins with {a}, {rest}",
    "a recording of {list}",
)
THEN = (", then {}", " and then {}", ", followed by {}", ", and after that {}")
TOGETHER = (
    "{} and {} at the same time",
    "{} while there is {}",
    "{} together with {}",
    "{} over the sound of {}",
)


@dataclass(frozen=True)
class Recording:
    """A labelled recording of one fold."""

    path: Path
    label: str
    fold: int


@dataclass(frozen=True)
class Scene:
    """What a scene is made of: recordings in their order, or at once."""

    name: str
    recordings: tuple[Recording, ...]
    together: bool

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(recording.label for recording in self.recordings)


def esc50(data: Path, folds: Sequence[int]) -> list[Recording]:
    """The recordings of ESC-50 folds that ``data/audio/clips.csv`` lists."""
    with (data / "audio/clips.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["set"] == "esc50_16k" and row["fold"]]
    return [
        Recording(data / "audio" / row["path"], row["label_or_caption"].split(" | ")[0].lower(), int(row["fold"]))
        for row in rows
        if int(row["fold"]) in folds
    ]


def draw_scenes(recordings: Sequence[Recording], count: int, rng: np.random.Generator, prefix: str) -> list[Scene]:
    """``count`` scenes, each of one fold; of the scenes without overlap every second is the twin of the one before."""
    folds: dict[int, dict[str, list[Recording]]] = defaultdict(lambda: defaultdict(list))
    for recording in recordings:
        folds[recording.fold][recording.label].append(recording)
    scenes: list[Scene] = []
    seen: set[tuple[bool, tuple[str, ...]]] = set()
    while len(scenes) < count:
        fold = folds[int(rng.choice(sorted(folds)))]
        together = bool(rng.random() < 0.25)
        many = 3 if together else int(rng.choice([3, 3, 4, 5]))
        labels = tuple(str(label) for label in rng.choice(sorted(fold), min(many, len(fold)), replace=False))
        orders = [labels] if together else [labels, other_order(labels, rng)]
        if any((together, order) in seen for order in orders):
            continue
        for order in orders[: count - len(scenes)]:
            seen.add((together, order))
            chosen = tuple(fold[label][int(rng.integers(len(fold[label])))] for label in order)
            scenes.append(Scene(f"{prefix}{len(scenes):05d}", chosen, together))
    return scenes


def other_order(labels: tuple[str, ...], rng: np.random.Generator) -> tuple[str, ...]:
    """The same labels in another order."""
    while (shuffled := tuple(str(label) for label in rng.permutation(labels))) == labels:
        pass
    return shuffled


def captions(scene: Scene, count: int, rng: np.random.Generator) -> list[str]:
    """``count`` wordings; each names every event and, unless they sound at once, their order."""
    return [_wording(scene, rng) for _ in range(count)]


def _wording(scene: Scene, rng: np.random.Generator) -> str:
    labels = scene.labels
    if len(labels) == 1:
        text = str(rng.choice(("{}", "the sound of {}", "{} is heard", "a recording of {}"))).format(labels[0])
    elif scene.together:
        # the first event lasts throughout; the others follow each other above it
        text = str(rng.choice(TOGETHER)).format(_chain(labels[1:], rng), labels[0])
    else:
        form = str(rng.choice(IN_TURN))
        rest = _chain(labels[1:], rng)
        link = str(rng.choice(("then ", "and after that ", "followed by ")))
        text = form.format(list=_chain(labels, rng), a=labels[0], rest=link + rest)
    return text[0].upper() + text[1:] + "."


def _chain(labels: Sequence[str], rng: np.random.Generator) -> str:
    return labels[0] + "".join(str(rng.choice(THEN)).format(label) for label in labels[1:])


def mix(scene: Scene, rng: np.random.Generator) -> NDArray[np.float32]:
    """The sound of a scene: float32 [n] at ``RATE``, 15 to 30 s for three or more events.

    Events that follow each other are joined with short pauses.  At once: the first is repeated under the others.
    """
    events = [event(recording, rng) for recording in scene.recordings]
    if len(events) == 1:
        return events[0]
    if scene.together:
        front = _in_turn(events[1:], rng, shortest_s=15.0)
        back = np.tile(events[0], -(-len(front) // len(events[0])))[: len(front)]
        whole = front + np.float32(rng.uniform(0.35, 0.6)) * back
    else:
        whole = _in_turn(events, rng, shortest_s=15.0)
    return np.asarray(whole * np.float32(0.7 / (np.abs(whole).max() + 1e-9)), np.float32)


def _in_turn(events: Sequence[NDArray[np.float32]], rng: np.random.Generator, shortest_s: float) -> NDArray[np.float32]:
    """Events with pauses; the pauses grow where all together would be shorter than ``shortest_s``."""
    spare = max(0.0, shortest_s - sum(len(event) for event in events) / RATE)
    parts: list[NDArray[np.float32]] = []
    for event in events:
        pause = spare / len(events) + rng.uniform(0.0, 0.15)
        parts += [event, (1e-4 * rng.standard_normal(int(pause * RATE))).astype(np.float32)]
    return np.concatenate(parts)


def event(recording: Recording, rng: np.random.Generator) -> NDArray[np.float32]:
    """A recording without the silence at its ends, at a random speed and level, faded in and out."""
    wave, rate = sf.read(recording.path, dtype="float32", always_2d=True)
    assert rate == RATE, f"{recording.path}: {rate} Hz"
    wave = wave.mean(axis=1)
    block = RATE // 20
    level = np.sqrt(np.mean(wave[: len(wave) // block * block].reshape(-1, block) ** 2, axis=1))
    loud = np.flatnonzero(level > SILENT)
    if len(loud):
        wave = wave[loud[0] * block : (loud[-1] + 1) * block]
    # Each use plays at another speed: scenes that share a recording would otherwise share sound, and a build
    # makes clips that share sound kin, which are never each other's negatives.
    wave = soxr.resample(wave, RATE * rng.uniform(0.86, 1.14), RATE)[: int(LONGEST_S * RATE)].copy()
    fade = min(len(wave) // 4, RATE // 50)
    ramp = np.linspace(0, 1, fade, dtype=np.float32)
    wave[:fade] *= ramp
    wave[len(wave) - fade :] *= ramp[::-1]
    return np.asarray(wave * np.float32(rng.uniform(0.4, 0.8) / (np.abs(wave).max() + 1e-6)), np.float32)


def write_source(folder: Path, splits: Mapping[str, Sequence[Scene]], wordings: int, rng: np.random.Generator) -> None:
    """Scenes as a generic source: ``folder/audio/*.wav`` and ``folder/clips.jsonl``."""
    (folder / "audio").mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for split, scenes in splits.items():
        for scene in scenes:
            path = f"audio/{scene.name}.wav"
            sf.write(folder / path, mix(scene, rng), RATE, subtype="PCM_16")
            rows.append({"path": path, "captions": captions(scene, wordings, rng), "split": split})
    (folder / "clips.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
