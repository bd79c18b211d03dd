"""Builds that are planned anew over what is there: what still holds is kept, what does not is done again."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import soundfile

from sharding.build.append import append
from sharding.build.run import build
from sharding.build.state import settings_bytes
from sharding.common.errors import InputError
from sharding.common.runners import LocalRunner
from sharding.common.storage import Storage
from sharding.fates.decide import FateSettings
from sharding.settings import BuildSettings
from sharding.shards.integrity import verify
from sharding.shards.manifest import Manifest
from sharding.shards.plan import PlanSettings
from sharding.sources.protected import parse_protect
from tests.sharding.build.kills import Killed, killed
from tests.sharding.conftest import settings_for
from tests.sharding.corpora import RATE, noise, outcome, tree, write_extra


@pytest.mark.parametrize("finished", [True, False])
def test_a_new_plan_decodes_only_what_is_new(
    finished: bool, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, probed: list[str]
) -> None:
    out, settings = tmp_path / "out", settings_for(small, 200_000)
    if not finished:
        with monkeypatch.context() as patched, pytest.raises(Killed):
            patched.setattr("sharding.shards.write.write_shard", killed)
            build(settings, str(out), LocalRunner(1))
        assert list((out / ".build/facts").glob("*")) and not (out / "dataset.json").exists()
    else:
        build(settings, str(out), LocalRunner(1))
    extra = write_extra(tmp_path / "extra", 1.5)
    other = dataclasses.replace(
        settings,
        sources={"mine": str(small), "extra": str(extra)},
        fates=FateSettings(protect=parse_protect("")),
        plan=PlanSettings(10**6),
    )
    build(other, str(tmp_path / "fresh"), LocalRunner(1))
    probed.clear()
    build(other, str(out), LocalRunner(1), new_plan=True)
    assert outcome(out) == outcome(tmp_path / "fresh")
    failed = {"mine/train/gone", "mine/train/page"}
    assert {clip_id for clip_id in probed if not clip_id.startswith("extra/")} <= failed


def test_a_new_plan_reads_clips_again_that_are_other_files_now(small: Path, tmp_path: Path) -> None:
    out, settings = tmp_path / "out", settings_for(small, 200_000)
    build(settings, str(out), LocalRunner(1))
    shutil.copy(small / "train/a1.flac", small / "train/gone.flac")  # was missing
    shutil.copy(small / "train/long.flac", small / "train/a0.flac")  # another sound
    (small / "train/a2.flac").unlink()
    other = dataclasses.replace(settings, plan=PlanSettings(10**6))
    build(other, str(tmp_path / "fresh"), LocalRunner(1))
    build(other, str(out), LocalRunner(1), new_plan=True)
    assert outcome(out) == outcome(tmp_path / "fresh")


def test_a_recording_of_the_same_size_is_not_the_same_recording(small: Path, tmp_path: Path) -> None:
    out, settings = tmp_path / "out", settings_for(small, 200_000)
    for number, name in enumerate(("a0", "a1")):
        soundfile.write(small / f"train/{name}.wav", noise(number, 1.0), RATE)
        (small / f"train/{name}.flac").unlink()
    table = (small / "clips.csv").read_text()
    (small / "clips.csv").write_text(table.replace("a0.flac", "a0.wav").replace("a1.flac", "a1.wav"))
    build(settings, str(out), LocalRunner(1))
    before = outcome(out)
    soundfile.write(small / "train/a0.wav", noise(9, 1.0), RATE)
    os.utime(small / "train/a0.wav", (0, 0))  # as copying tools do
    build(settings, str(out), LocalRunner(1), new_plan=True)
    build(settings, str(tmp_path / "fresh"), LocalRunner(1))
    assert outcome(out) == outcome(tmp_path / "fresh") != before


@pytest.mark.parametrize("mistake", ["folder", "list"])
def test_after_a_mistake_the_corrected_command_is_taken(mistake: str, small: Path, tmp_path: Path) -> None:
    out, settings = tmp_path / "out", settings_for(small, 200_000)
    (tmp_path / "list.csv").write_text("name,length\nx,1\n")
    wrong = {
        "folder": dataclasses.replace(settings, sources={"mine": str(tmp_path / "absent")}),
        "list": dataclasses.replace(settings, exclude=(str(tmp_path / "list.csv"),)),
    }
    with pytest.raises(InputError):
        build(wrong[mistake], str(out), LocalRunner(1))
    assert not (out / ".build/facts").exists()  # and it was noticed before any work
    build(settings, str(out), LocalRunner(1))
    assert verify(str(out), "quick", LocalRunner(1)) == []
    if mistake == "folder":
        with pytest.raises(InputError):
            append(str(out), {}, {"extra": str(tmp_path / "absent")}, LocalRunner(1))
        result = append(str(out), {}, {"extra": str(write_extra(tmp_path / "extra", 1.5))}, LocalRunner(1))
        assert sum(result["added"]["extra"].values()) == sum(result["reasons"]["extra"].values()) > 0


def test_with_the_same_settings_a_new_plan_is_made_only_where_inputs_have_changed(small: Path, tmp_path: Path) -> None:
    out, settings = tmp_path / "out", settings_for(small, 200_000)
    build(settings, str(out), LocalRunner(1))
    before = tree(out)
    build(settings, str(out), LocalRunner(1), new_plan=True)
    assert tree(out) == before
    table = (small / "clips.csv").read_text()
    (small / "clips.csv").write_text(table.replace("noise that is called train/a1", "another caption"))
    build(settings, str(out), LocalRunner(1))
    assert tree(out) == before
    build(settings, str(out), LocalRunner(1), new_plan=True)
    build(settings, str(tmp_path / "fresh"), LocalRunner(1))
    assert outcome(out) == outcome(tmp_path / "fresh") != {n: d for n, d in before.items() if n[:6] != ".build"}


@pytest.mark.slow
def test_whatever_changes_a_build_does_so_in_an_object_store_too(s3: str, small: Path, tmp_path: Path) -> None:
    settings, one = settings_for(small, 200_000), LocalRunner(1)
    other = dataclasses.replace(settings, plan=PlanSettings(300_000))
    grown = dataclasses.replace(other, sources={"mine": str(small), "extra": str(write_extra(tmp_path / "extra", 1.5))})
    for url in (f"{s3}/{tmp_path.name}", str(tmp_path / "out")):
        build(settings, url, one)
        build(other, url, one, new_plan=True)
        append(url, {}, {"extra": str(tmp_path / "extra")}, one)
        build(grown, url, one, retry="missing")
        assert verify(url, "full", one) == []
    remote = Storage(f"{s3}/{tmp_path.name}")
    there = {name: remote.read(name) for name in remote.list()}
    here = tree(tmp_path / "out")
    del here[".build/lock"]
    assert there == here


def test_other_audio_settings_throw_all_away(small: Path, tmp_path: Path) -> None:
    out, settings = tmp_path / "out", settings_for(small, 200_000)
    build(settings, str(out), LocalRunner(1))
    other: BuildSettings = dataclasses.replace(settings, probe=dataclasses.replace(settings.probe, window_s=20.0))
    with pytest.raises(InputError, match=r"probe\.window_s: 10\.0 there, 20\.0 now"):
        build(other, str(out), LocalRunner(1))
    build(other, str(out), LocalRunner(1), new_plan=True)
    build(other, str(tmp_path / "fresh"), LocalRunner(1))
    assert outcome(out) == outcome(tmp_path / "fresh")
    assert Manifest.open(out).table.num_rows > 0


@pytest.mark.parametrize("option", [{}, {"retry": "missing"}, {"new_plan": True}])
def test_a_build_that_lost_a_shard_is_refused_and_not_changed(
    option: dict[str, Any], small: Path, tmp_path: Path
) -> None:
    out, settings = tmp_path / "out", settings_for(small, 200_000)
    build(settings, str(out), LocalRunner(1))
    next((out / "shards").iterdir()).unlink()
    before = tree(out)
    other = dataclasses.replace(settings, plan=PlanSettings(10**6)) if "new_plan" in option else settings
    with pytest.raises(InputError, match=r"(?s)shards/.*missing.*put back"):
        build(other, str(out), LocalRunner(1), **option)
    assert tree(out) == before


def test_a_new_plan_decides_anew_what_an_append_had_to_leave(small: Path, tmp_path: Path) -> None:
    """``append`` leaves the fates of old clips, and names this command for those that leak into the new ones."""
    held = tmp_path / "held"
    (held / "test").mkdir(parents=True)
    shutil.copy(small / "train/a1.flac", held / "test/h.flac")
    (held / "clips.csv").write_text("path,split,captions\ntest/h.flac,test,what is held out\n")
    settings = settings_for(small, 200_000)
    protecting = dataclasses.replace(settings, fates=FateSettings(protect=parse_protect("held/test")))
    out, both = tmp_path / "out", {**settings.sources, "held": str(held)}
    build(protecting, str(out), LocalRunner(1))
    append(str(out), {}, {"held": str(held)}, LocalRunner(1))
    whole = dataclasses.replace(protecting, sources=both)
    build(whole, str(out), LocalRunner(1), new_plan=True)
    build(whole, str(tmp_path / "fresh"), LocalRunner(1))
    assert outcome(out) == outcome(tmp_path / "fresh")
    rows = {row["clip_id"]: row["fate"] for row in Storage(out).read_table("fates.parquet").to_pylist()}
    assert rows["mine/train/a1"] == "withheld"


@pytest.mark.parametrize(
    ("sources", "protect", "message"),
    [("/no/such/folder", "mine/test", "no such folder"), (None, "mine/tset", "tset")],
)
def test_a_new_plan_that_is_refused_removes_nothing(
    sources: str | None, protect: str, message: str, small: Path, tmp_path: Path
) -> None:
    out, settings = tmp_path / "out", settings_for(small, 200_000)
    build(settings, str(out), LocalRunner(1))
    before = tree(out)
    other = dataclasses.replace(
        settings,
        sources={"mine": sources or str(small)},
        fates=FateSettings(protect=parse_protect(protect)),
        probe=dataclasses.replace(settings.probe, window_s=5.0, hop_s=5.0, tail_s=5.0),
    )
    with pytest.raises(InputError, match=message):
        build(other, str(out), LocalRunner(1), new_plan=True)
    assert tree(out) == before


def test_a_build_of_a_version_that_knew_fewer_datasets_is_gone_on_with(small: Path, tmp_path: Path) -> None:
    """What a later version protects by default of datasets that the build does not have makes it no other build."""
    settings, out = dataclasses.replace(settings_for(small), fates=FateSettings()), Storage(tmp_path / "out")
    build(settings, out.url, LocalRunner(1))
    former = out.read_json(".build/settings.json")
    former["fates"]["protect"] = [pair for pair in former["fates"]["protect"] if pair[0] not in ("esc50", "tut")]
    out.write(".build/settings.json", settings_bytes(former))
    build(settings, out.url, LocalRunner(1))
    chosen = FateSettings(protect=settings.fates.protect - {("esc50", "fold1")})
    with pytest.raises(InputError, match=r"other settings here:\s+fates\.protect"):
        build(dataclasses.replace(settings, fates=chosen), out.url, LocalRunner(1))
