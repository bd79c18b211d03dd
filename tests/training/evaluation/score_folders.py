"""Score folders for tests, from matrices."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sharding.common.storage import Storage
from training.evaluation.counting import comparable
from training.evaluation.figures import Questions
from training.evaluation.scores.files import ScoreFile, ScoreWriter

SPLIT = "clotho/evaluation"


def questions(clips: int, captions: int, split: str = SPLIT) -> Questions:
    """``captions`` for each of ``clips``."""
    texts = [f"Caption {number}, really." for number in range(clips * captions)]
    names = [f"{split}/clip {number}.x" for number in range(clips)]
    return Questions(split, names, texts, texts, np.repeat(np.arange(clips), captions))


def write_matrix(folder: Path, asked: Questions, scores: np.ndarray, model: str = "m", batch: int = 1) -> ScoreFile:
    writer = ScoreWriter(Storage(folder), asked, {"model": model, "fingerprint": model, "build": "b"}, batch)
    assert writer.begin()
    for part in writer.missing():
        writer.write(part, comparable(scores[writer.rows_of(part)]))
    writer.finish()
    return ScoreFile.open(folder)


def noisy(asked: Questions, strength: float, seed: int) -> np.ndarray:
    """Scores in which a caption's own clip is ``strength`` above the noise."""
    scores = np.random.default_rng(seed).standard_normal((len(asked.texts), len(asked.clips)))
    scores[np.arange(asked.captions), asked.clip_of] += strength
    return scores
