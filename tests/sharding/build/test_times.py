"""Captions with times in a table of one's own: refused outside of their recordings, and in the shards otherwise."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import soundfile as sf

from sharding.build.append import append
from sharding.build.run import build
from sharding.common.errors import InputError
from sharding.common.runners import LocalRunner
from sharding.fates.decide import FateSettings
from sharding.shards.manifest import Manifest
from tests.sharding.conftest import settings_for
from tests.sharding.corpora import RATE, noise


def write_timed(folder: Path, end: str, seed: int = 0) -> Path:
    folder.mkdir(exist_ok=True)
    sf.write(folder / "street.wav", noise(seed, 3.0), RATE)
    rows = [f"street.wav,a dog barks,0.5,{end}", "street.wav,a street,,", "street.wav,a car,2,3"]
    (folder / "clips.csv").write_text("\n".join(["path,captions,onset,offset", *rows]) + "\n")
    return folder


def times(out: Path, dataset: str) -> list[tuple[Any, ...]]:
    (row,) = [row for row in Manifest.open(out).table.to_pylist() if row["dataset"] == dataset]
    return [(one["text"], one["onset"], one["offset"]) for one in row["captions"]]


def test_times_reach_the_shards_once_they_are_in_the_recording(tmp_path: Path, probed: list[str]) -> None:
    out, settings = tmp_path / "out", settings_for(write_timed(tmp_path / "mine", "15"))
    settings = dataclasses.replace(settings, fates=FateSettings(protect=frozenset()))
    for _ in range(2):  # the same again, because nobody mended it
        with pytest.raises(InputError, match="true where there is no recording: it is 3 s long") as caught:
            build(settings, str(out), LocalRunner(1))
        assert caught.value.row == 2 and "clips.csv" in str(caught.value.file) and "0.5 to 15" in str(caught.value)
    write_timed(tmp_path / "mine", "1.5")
    decoded = len(probed)
    build(settings, str(out), LocalRunner(1))
    assert len(probed) == decoded  # the sound is the same, and is not decoded again
    assert times(out, "mine") == [("a dog barks", 0.5, 1.5), ("a street", None, None), ("a car", 2.0, 3.0)]
    more = write_timed(tmp_path / "more", "15", seed=1)
    with pytest.raises(InputError, match="no recording"):
        append(str(out), {}, {"more": str(more)}, LocalRunner(1))
    write_timed(more, "2", seed=1)
    append(str(out), {}, {"more": str(more)}, LocalRunner(1))
    assert times(out, "more")[0] == ("a dog barks", 0.5, 2.0)
