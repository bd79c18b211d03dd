"""Captions with times in a table of one's own: refused outside of their recordings, and in the shards otherwise."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import soundfile as sf

from sharding.build.append import append
from sharding.build.run import build
from sharding.common.errors import InputError
from sharding.common.runners import LocalRunner
from sharding.fates.decide import FateSettings
from sharding.shards.integrity import verify
from sharding.shards.manifest import Manifest
from tests.sharding.build.kills import Death, Killed
from tests.sharding.conftest import settings_for
from tests.sharding.corpora import RATE, noise


def write_timed(folder: Path, end: str, seed: int = 0) -> Path:
    folder.mkdir(exist_ok=True)
    sf.write(folder / "street.wav", noise(seed, 3.0), RATE)
    rows = [f"street.wav,a dog barks,0.5,{end}", "street.wav,a street,,", "street.wav,a car,2,3"]
    (folder / "clips.csv").write_text("\n".join(["path,captions,onset,offset", *rows]) + "\n")
    return folder


def times(out: Path, dataset: str) -> list[tuple[Any, ...]]:
    found = Manifest.open(out).table.to_pylist()
    (row,) = [row for row in found if row["dataset"] == dataset and "street" in row["clip_id"]]
    return [(one["text"], one["onset"], one["offset"]) for one in row["captions"]]


def test_times_reach_the_shards_once_they_are_in_the_recording(tmp_path: Path, probed: list[str]) -> None:
    out, settings = tmp_path / "out", settings_for(write_timed(tmp_path / "mine", "15"))
    settings = dataclasses.replace(settings, fates=FateSettings(protect=frozenset()))
    for _ in range(2):  # the same again, because nobody mended it
        with pytest.raises(InputError, match="that does not exist: the file is 3 s long") as caught:
            build(settings, str(out), LocalRunner(1))
        assert caught.value.row == 2 and "clips.csv" in str(caught.value.file) and "0.5 to 15" in str(caught.value)
    write_timed(tmp_path / "mine", "1.5")
    decoded = len(probed)
    build(settings, str(out), LocalRunner(1))
    assert len(probed) == decoded  # the sound is the same, and is not decoded again
    assert times(out, "mine") == [("a dog barks", 0.5, 1.5), ("a street", None, None), ("a car", 2.0, 3.0)]


def test_an_append_of_times_outside_continues_once_they_are_mended(tmp_path: Path, probed: list[str]) -> None:
    out, settings = tmp_path / "out", settings_for(write_timed(tmp_path / "mine", "1.5"))
    build(dataclasses.replace(settings, fates=FateSettings(protect=frozenset())), str(out), LocalRunner(1))
    more = write_timed(tmp_path / "more", "15", seed=1)
    sf.write(more / "rain.wav", noise(7, 3.0), RATE)
    with (more / "clips.csv").open("a") as table:
        table.write("rain.wav,rain,,\n")
    for _ in range(2):
        with pytest.raises(InputError, match="does not exist: the file is 3 s long"):
            append(str(out), {}, {"more": str(more)}, LocalRunner(1))
    write_timed(more, "2", seed=1)
    with (more / "clips.csv").open("a") as table:
        table.write("rain.wav,heavy rain,,\n")
    append(str(out), {}, {"more": str(more)}, LocalRunner(1))
    assert times(out, "more")[0] == ("a dog barks", 0.5, 2.0)
    assert sorted(probed) == ["mine/all/street", "more/all/rain", "more/all/street"], "nothing is decoded twice"
    assert not verify(str(out), "full", LocalRunner(1))

    other = write_timed(tmp_path / "other", "15", seed=2)
    with pytest.raises(InputError, match="does not exist: the file is 3 s long"):
        append(str(out), {}, {"other": str(other)}, LocalRunner(1))
    third = write_timed(tmp_path / "third", "2", seed=3)
    append(str(out), {}, {"third": str(third)}, LocalRunner(1))  # the one that was refused is in nobody's way
    assert times(out, "third")[0] == ("a dog barks", 0.5, 2.0)
    assert {row["dataset"] for row in Manifest.open(out).table.to_pylist()} == {"mine", "more", "third"}
    assert not verify(str(out), "full", LocalRunner(1))


@pytest.mark.slow
def test_an_append_that_is_killed_while_it_reads_mended_times_again_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, settings = tmp_path / "out", settings_for(write_timed(tmp_path / "mine", "1.5"))
    build(dataclasses.replace(settings, fates=FateSettings(protect=frozenset())), str(out), LocalRunner(1))
    more = write_timed(tmp_path / "more", "15", seed=1)
    with pytest.raises(InputError, match="does not exist"):
        append(str(out), {}, {"more": str(more)}, LocalRunner(1))
    write_timed(more, "2", seed=1)
    refused = Path(shutil.copytree(out, tmp_path / "refused"))
    death = Death(monkeypatch)
    for moment in (*range(1, 30), *range(30, 300, 9)):  # the first ones are those of reading again
        shutil.rmtree(out)
        shutil.copytree(refused, out)
        death.left = moment
        try:
            append(str(out), {}, {"more": str(more)}, LocalRunner(1))
        except Killed:
            death.left = 0
            append(str(out), {}, {"more": str(more)}, LocalRunner(1))
        else:
            break
        finally:
            death.left = 0
        assert times(out, "more")[0] == ("a dog barks", 0.5, 2.0)
        assert not verify(str(out), "full", LocalRunner(1))
    assert moment > 10
