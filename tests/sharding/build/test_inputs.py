"""A recording counts as unchanged only if its time of change, or its contents, prove it."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest
import soundfile

from sharding.build.append import append
from sharding.build.inputs import note_inputs, noted_inputs, unchanged
from sharding.build.run import build
from sharding.catalogue.table import build_catalogue
from sharding.common.runners import LocalRunner
from sharding.common.storage import Storage
from sharding.layout import Work, work_of
from sharding.reports.facts import finished_facts
from sharding.schema import INPUTS
from sharding.shards.integrity import verify
from tests.sharding.build.kills import Killed, killed
from tests.sharding.conftest import settings_for
from tests.sharding.corpora import RATE, noise, outcome, tree, write_extra


def same(small: Path, out: Path, times: pa.Table) -> set[str]:
    """The clips that count as unchanged."""
    now = build_catalogue({}, {"mine": str(small)}).table
    former = dict(zip(now["clip_id"].to_pylist(), now["path"].to_pylist(), strict=True))
    kept = unchanged(finished_facts(Storage(out)), former, times, now, {"mine": str(small)})
    return set(kept["clip_id"].to_pylist())


@pytest.fixture
def out(small: Path, tmp_path: Path) -> Path:
    build(settings_for(small), str(tmp_path / "out"), LocalRunner(1))
    return tmp_path / "out"


def test_a_clock_that_was_set_back_proves_nothing(small: Path, out: Path) -> None:
    times = noted_inputs(work_of(Storage(out)))
    everything = same(small, out, times)
    assert "mine/train/a0" in everything
    a0 = small / "train/a0.flac"
    changed = bytearray(a0.read_bytes())
    changed[-3] ^= 1  # the same size, other contents
    a0.write_bytes(changed)
    assert same(small, out, times) == everything - {"mine/train/a0"}
    later = times.set_column(1, "changed", pa.array([2e9] * times.num_rows))  # noted while the clock was ahead
    assert same(small, out, later) == everything - {"mine/train/a0"}


def test_a_file_of_another_time_and_the_same_contents_is_the_same(small: Path, out: Path) -> None:
    times = noted_inputs(work_of(Storage(out)))
    everything = same(small, out, times)
    a0 = small / "train/a0.flac"
    contents = a0.read_bytes()
    a0.unlink()
    a0.write_bytes(contents)
    assert same(small, out, times) == everything
    assert same(small, out, INPUTS.empty_table()) == everything  # a build of an earlier version


def test_a_file_whose_time_and_size_are_the_noted_ones_is_not_read(small: Path, out: Path) -> None:
    times = noted_inputs(work_of(Storage(out)))
    everything = same(small, out, times)
    a0 = small / "train/a0.flac"
    changed = bytearray(a0.read_bytes())
    changed[-3] ^= 1
    a0.write_bytes(changed)
    current = note_inputs(build_catalogue({}, {"mine": str(small)}).table, {"mine": str(small)})
    assert same(small, out, current) == everything  # which is why times are noted before a file is read


def test_a_build_that_was_copied_still_sees_what_has_changed(small: Path, out: Path, tmp_path: Path) -> None:
    (small / "train/a0.flac").unlink()
    soundfile.write(small / "train/a0.wav", noise(0, 1.0), RATE)
    (small / "clips.csv").write_text((small / "clips.csv").read_text().replace("a0.flac", "a0.wav"))
    settings = settings_for(small)
    build(settings, str(out), LocalRunner(1), new_plan=True)
    soundfile.write(small / "train/a0.wav", noise(9, 1.0), RATE)  # of the same size
    shutil.move(shutil.copytree(out, tmp_path / "copied"), tmp_path / "moved")  # its files are younger than a0 now
    build(settings, str(tmp_path / "moved"), LocalRunner(1), new_plan=True)
    build(settings, str(tmp_path / "fresh"), LocalRunner(1))
    assert outcome(tmp_path / "moved") == outcome(tmp_path / "fresh") != outcome(out)


def test_members_of_an_archive_have_the_time_of_the_archive(small: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(small / "more.zip", "w") as archive:
        archive.write(small / "train/a0.flac", "b0.flac")
    with (small / "clips.csv").open("a") as table:
        table.write("more.zip!/b0.flac,train,in an archive\n")
    found = build_catalogue({}, {"mine": str(small)}).table
    noted = {row["clip_id"]: row for row in note_inputs(found, {"mine": str(small)}).to_pylist()}
    inside = [clip for clip, path in zip(found["clip_id"].to_pylist(), found["path"].to_pylist(), strict=True)
              if path and "!" in path]  # fmt: skip
    assert [noted[clip]["changed"] for clip in inside] == [(small / "more.zip").stat().st_ctime]
    assert [noted[clip]["bytes"] for clip in inside] == [(small / "train/a0.flac").stat().st_size]


def test_a_build_of_an_earlier_version_which_noted_no_sizes_goes_on(
    small: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, one = tmp_path / "other", LocalRunner(1)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr("sharding.build.stages.Prober", killed)
        build(settings_for(small), str(other), one)
    work = work_of(Storage(other))
    work.write_table(Work.INPUTS, work.read_table(Work.INPUTS).drop_columns(["bytes"]))
    build(settings_for(small), str(other), one)
    assert outcome(other) == outcome(out)
    append(str(other), {}, {"extra": str(write_extra(tmp_path / "extra", 1.5))}, one)
    assert verify(str(other), "full", one) == []


def test_the_times_are_part_of_the_build(out: Path) -> None:
    assert f".build/{Work.INPUTS}" in tree(out)
