"""Which image belongs to which clip."""

from __future__ import annotations

from pathlib import Path

import pytest

from sharding.common.errors import InputError
from training.evaluation.images import find_frames

CLIPS = ["vggsound/abc_150", "mine/dogs", "mine/cats"]
SOUNDS = {"vggsound/abc_150": "/data/video/abc_000150.flac", "mine/dogs": "dogs.wav"}


def test_an_image_has_the_name_of_the_sound_file_or_the_end_of_the_clips_id(tmp_path: Path) -> None:
    for name in ("abc_000150.jpg", "dogs.png", "cats.jpg", "cats.txt"):
        (tmp_path / name).touch()
    found = find_frames(tmp_path, CLIPS, SOUNDS)
    assert [file.name for file in found] == ["abc_000150.jpg", "dogs.png", "cats.jpg"]


def test_a_missing_image_is_asked_for_by_the_name_of_its_sound_file(tmp_path: Path) -> None:
    (tmp_path / "dogs.png").touch()
    with pytest.raises(InputError, match=r"(?s)2 of 3 clips have no image.*vggsound/abc_150.*abc_000150.jpg"):
        find_frames(tmp_path, CLIPS, SOUNDS)
