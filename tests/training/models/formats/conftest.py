"""Exports of small random models, and sounds to compare on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.training.models.test_hub import write_run
from tests.training.small_runs import SOUNDS, sound
from training.models import hub

Export = Callable[..., Path]


@pytest.fixture(scope="session")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five recordings of 0.4 to 2.4 s, of three rates; the longest have three segments of the small models."""
    folder = tmp_path_factory.mktemp("sounds")
    draw = np.random.default_rng(5)
    for number, seconds in enumerate((0.4, 0.9, 1.7, 2.4, 0.7)):
        wave = sound(number % len(SOUNDS), seconds, draw)
        soundfile.write(folder / f"{number}.wav", wave, (32000, 32000, 44100, 32000, 16000)[number])
    (folder / "notes.txt").write_text("no sound")
    return folder


@pytest.fixture(scope="session")
def export(tmp_path_factory: pytest.TempPathFactory) -> Export:
    """A function from changes of the small recipe to the export of an untrained model; equal changes share one."""
    made: dict[tuple[str, ...], Path] = {}

    def make(*changes: str) -> Path:
        if changes not in made:
            run = tmp_path_factory.mktemp("run")
            made[changes] = hub.save(write_run(run, list(changes)), run / "export")
        return made[changes]

    return make
