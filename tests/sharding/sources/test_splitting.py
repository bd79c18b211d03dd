"""Sounds without splits are split at random, and clips of one recording stay together."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharding.build.append import former_settings
from sharding.build.run import build
from sharding.cli import main
from sharding.common.errors import InputError
from sharding.common.runners import LocalRunner
from sharding.common.storage import Storage
from sharding.settings import BuildSettings
from sharding.shards.manifest import Manifest
from sharding.sources.generic import read
from sharding.sources.splitting import random_splits
from tests.sharding.sources.trees import table

ORIGINALS = st.dictionaries(st.text(max_size=4), st.text("abcdefgh", min_size=1, max_size=2), min_size=3)


@given(originals=ORIGINALS, seed=st.integers(0, 9))
def test_each_split_has_clips_and_no_original_is_in_two(originals: dict[str, str], seed: int) -> None:
    if len(set(originals.values())) < 3:
        with pytest.raises(InputError, match="too few recordings") as refusal:
            random_splits(originals, seed)
        assert "--" not in str(refusal.value)  # `append` splits as the build does, and has no option for it
        return
    splits = random_splits(originals, seed)
    assert splits.keys() == originals.keys()
    assert set(splits.values()) == {"train", "validation", "test"}
    assert len({(originals[clip], split) for clip, split in splits.items()}) == len(set(originals.values()))
    assert random_splits(dict(reversed(originals.items())), seed) == splits


def test_shares_are_a_tenth_each_and_a_seed_draws_another_split() -> None:
    originals = {f"{number}.wav": f"{number}.wav" for number in range(1000)}
    first, second = random_splits(originals, 0), random_splits(originals, 1)
    for splits in (first, second):
        assert Counter(splits.values()) == {"train": 800, "validation": 100, "test": 100}
    assert first != second
    later = random_splits(originals | {"new.wav": "new.wav"}, 0)
    assert sum(later[clip] != split for clip, split in first.items()) <= 2


def test_a_recording_with_many_clips_is_for_training() -> None:
    originals = {f"{number}": "long" if number < 50 else f"{number}" for number in range(100)}
    assert all(random_splits(originals, seed)["0"] == "train" for seed in range(20))


def test_rows_of_one_path_and_one_identity_stay_together(tmp_path: Path) -> None:
    rows = [[f"{n}.wav", f"sound {n}", f"freesound:{n // 2}"] for n in range(60)] + [["./3.wav", "again", ""]]
    table(tmp_path / "clips.csv", "path,captions,identity", rows)
    found = read(Storage(tmp_path), "mine", split_seed=5)
    clips = found.catalogue.select(["clip_id", "split", "identity"]).to_pylist()
    assert len(clips) == 60
    assert len({(clip["identity"], clip["split"]) for clip in clips}) == 30
    assert all(clip["clip_id"].startswith(f"mine/{clip['split']}/") for clip in clips)
    assert found.notes[0] == "it has no splits, so its clips were split at random: 48 train, 6 validation, 6 test"


def test_splits_of_its_own_are_left_as_they_are(tmp_path: Path) -> None:
    table(tmp_path / "clips.csv", "path,captions,split", [["a.wav", "x", "train"], ["b.wav", "y", ""]])
    found = read(Storage(tmp_path), "mine", split_seed=0)
    assert found.catalogue["split"].to_pylist() == ["train", "all"]
    assert "leaves as they are" in found.notes[0]


def test_a_build_withholds_copies_from_training(corpus: Path, tmp_path: Path) -> None:
    """The corpus without its splits, where a copy is on the other side than its original."""
    sounds = tmp_path / "sounds"
    shutil.copytree(corpus, sounds)
    lines = [line.split(",") for line in (corpus / "clips.csv").read_text().splitlines()[1:]]
    table(sounds / "clips.csv", "path,captions", [[path, caption] for path, _, caption in lines])
    paths = {path: path for path, *_ in lines}
    seed = next(seed for seed in range(99) if _straddles(random_splits(paths, seed)))
    build(BuildSettings(sources={"mine": str(sounds)}, split_seed=seed), str(tmp_path / "out"), LocalRunner(1))
    clips = Manifest.open(tmp_path / "out").table.select(["split", "group"]).to_pylist()
    held_out = {clip["group"] for clip in clips if clip["split"] != "train"}
    assert held_out
    assert not held_out & {clip["group"] for clip in clips if clip["split"] == "train"}
    assert former_settings(Storage(tmp_path / "out")).split_seed == seed  # so an append splits what it adds


def _straddles(splits: dict[str, str]) -> bool:
    return {splits["train/a0.flac"], splits["train/copy.flac"]} == {"train", "test"}


def test_the_command_says_what_it_cannot_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["build", "--out", str(tmp_path / "out")]
    assert main([*words, "--clotho", str(tmp_path), "--split-by", "group"]) == 2
    assert "none are given" in capsys.readouterr().err
    assert main([*words, "--source", f"mine={tmp_path}", "--split-seed", "3"]) == 2
    assert "--split-seed needs --split-by group" in capsys.readouterr().err
