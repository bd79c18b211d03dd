"""The recipe own_sounds with real encoders: from a folder of sounds to a model, and on from there."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from ray_jobs.earshot import main
from tests.training.data.shards import RATE
from tests.training.small_runs import SOUNDS, lines, sound


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Sixty sounds of six kinds, without splits."""
    draw = np.random.default_rng(0)
    folder = tmp_path / "sounds"
    folder.mkdir()
    with (folder / "clips.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "captions"])
        for number in range(60):
            kind = number % len(SOUNDS)
            sf.write(folder / f"{number}.flac", sound(kind, 1.5, draw), RATE)
            table.writerow([f"{number}.flac", SOUNDS[kind]])
    return folder


@pytest.mark.slow
def test_a_folder_of_sounds_becomes_a_model(
    folder: Path, shared_models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards, run, more = (str(tmp_path / name) for name in ("shards", "run", "more"))
    assert main(["build", "--source", f"mine={folder}", "--split-by", "group", "--out", shards]) == 0
    towers = [f"audio.source={shared_models / 'whisper-tiny.en'}", f"text.source={shared_models / 'all-MiniLM-L6-v2'}"]
    settings = [*towers, "data.workers=0", "data.batch_size=16", "optimizer.epochs=20", "audio.segment_s=2.0"]
    words = [word for setting in settings for word in ("--set", setting)]
    capsys.readouterr()
    assert main(["fit", "own_sounds", "--shards", shards, "--run", run, *words, "--json"]) == 0
    printed = capsys.readouterr()
    assert "training on mine/train" in printed.err and "validating on mine/validation" in printed.err
    figures = json.loads(printed.out.splitlines()[-1])["validation"]
    assert figures["text_to_audio/R@5"] > figures["text_to_audio/chance_R@5"]
    assert {path.name.partition("-")[0] for path in Path(run, "stored").iterdir()} == {"audio", "text"}
    assert main(["evaluate", run, "--shards", shards, "--split", "mine/test", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["clips"] == 6
    further = [*words, "--set", f"init_from.model={run}", "--set", "optimizer.steps=3"]
    assert main(["fit", "own_sounds", "--shards", shards, "--run", more, *further]) == 0
    assert lines(Path(more))[0]["loss"] < lines(Path(run))[0]["loss"]  # it goes on from what the first run has learnt
