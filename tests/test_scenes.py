"""Scenes of real recordings that benches make."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from bench.scenes import RATE, Recording, Scene, captions, draw_scenes, esc50, mix, write_source
from sharding.common.storage import Storage
from sharding.sources import generic

LABELS = ("dog", "rain", "church bells", "crow", "siren", "frog")


@pytest.fixture
def recordings(tmp_path: Path) -> list[Recording]:
    """Two recordings of each label in each of two folds; the first second of each is silent."""
    found = []
    for fold in (1, 2):
        for number, label in enumerate(LABELS * 2):
            rng = np.random.default_rng([fold, number])
            wave = np.concatenate([np.zeros(RATE), 0.3 * rng.standard_normal(4 * RATE)])
            path = tmp_path / f"{fold}-{number}.flac"
            sf.write(path, np.clip(wave, -1, 1), RATE)
            found.append(Recording(path, label, fold))
    return found


def test_scenes_stay_in_one_fold_and_come_with_twins_in_another_order(recordings: list[Recording]) -> None:
    scenes = draw_scenes(recordings, 30, np.random.default_rng(0), "x")
    assert len({scene.name for scene in scenes}) == len(scenes) == 30
    for scene in scenes:
        assert len({recording.fold for recording in scene.recordings}) == 1
        assert 3 <= len(scene.recordings) <= 5 and len(set(scene.labels)) == len(scene.labels)
    in_turn = [scene.labels for scene in scenes if not scene.together]
    assert len(set(in_turn)) == len(in_turn)
    twins = [labels for labels in in_turn if any(set(labels) == set(o) and labels != o for o in in_turn)]
    assert len(twins) >= len(in_turn) - 1
    assert any(scene.together for scene in scenes)


def test_every_wording_names_all_events_in_their_order(recordings: list[Recording]) -> None:
    rng = np.random.default_rng(1)
    for scene in draw_scenes(recordings, 20, rng, "x"):
        texts = captions(scene, 6, rng)
        assert len(set(texts)) > 1
        told = scene.labels[1:] + scene.labels[:1] if scene.together else scene.labels
        for text in texts:
            places = [text.lower().index(label) for label in told]
            assert places == sorted(places), text


def test_a_scene_lasts_15_to_30_seconds_and_holds_its_events_without_their_silence(recordings: list[Recording]) -> None:
    rng = np.random.default_rng(2)
    for scene in draw_scenes(recordings, 8, rng, "x"):
        wave = mix(scene, rng)
        assert 14.9 <= len(wave) / RATE <= 30.5
        assert np.abs(wave).max() == pytest.approx(0.7, abs=1e-3)
    alone = mix(Scene("one", (recordings[0],), False), rng)
    assert 4 / 1.15 <= len(alone) / RATE <= 4.1 / 0.85


def test_written_scenes_are_read_as_a_generic_source(recordings: list[Recording], tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    scenes = draw_scenes(recordings, 4, rng, "train")
    write_source(tmp_path / "source", {"train": scenes[:3], "test": scenes[3:]}, 2, rng)
    rows = generic.read(Storage(tmp_path / "source"), "scenes").catalogue.to_pylist()
    assert sorted(row["split"] for row in rows) == ["test", "train", "train", "train"]
    assert all(len(row["captions"]) == 2 and row["problem"] is None for row in rows)
    first = json.loads((tmp_path / "source/clips.jsonl").read_text().splitlines()[0])
    assert first["path"] == "audio/train00000.wav"


def test_folds_of_esc50_hold_different_recordings(shared_data: Path) -> None:
    train, test = esc50(shared_data, (1, 2)), esc50(shared_data, (3,))
    assert len(train) > len(test) > 100
    assert not {recording.path for recording in train} & {recording.path for recording in test}
    assert len({recording.label for recording in test}) == 50
