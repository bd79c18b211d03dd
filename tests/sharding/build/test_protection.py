"""Leaks are found only where protected audio can be read.  A build that cannot read it says so, and stops."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import soundfile

from sharding.build.append import append
from sharding.build.run import build
from sharding.cli import main
from sharding.common.errors import InputError
from sharding.common.runners import LocalRunner
from sharding.common.storage import Storage
from sharding.shards.manifest import Manifest
from sharding.sources.protected import parse_protect
from tests.sharding.conftest import settings_for
from tests.sharding.corpora import outcome, write_extra

ONE = LocalRunner(1)


def fate(out: Path, clip: str) -> str:
    rows = {row["clip_id"]: row["fate"] for row in Storage(out).read_table("fates.parquet").to_pylist()}
    return rows[clip]


def test_missing_protected_audio_stops_the_build_before_any_work(small: Path, tmp_path: Path) -> None:
    out, held = tmp_path / "out", small / "test/held.flac"
    held.rename(tmp_path / "away.flac")
    with pytest.raises(InputError, match=r"(?s)0 of 1 clip of mine/test.*--allow-unprotected"):
        build(settings_for(small), str(out), ONE)
    assert not (out / ".build/facts").exists()
    shutil.move(tmp_path / "away.flac", held)
    build(settings_for(small), str(out), ONE)
    assert fate(out, "mine/train/leak") == "withheld"
    build(settings_for(small), str(tmp_path / "fresh"), ONE)
    assert outcome(out) == outcome(tmp_path / "fresh")


def test_unreadable_protected_audio_stops_the_build_and_is_read_again_by_the_same_command(
    small: Path, tmp_path: Path, probed: list[str]
) -> None:
    out, held = tmp_path / "out", small / "test/held.flac"
    whole = held.read_bytes()
    held.write_bytes(b"<html>not found</html>")
    for _ in range(2):
        with pytest.raises(InputError, match="not_audio"):
            build(settings_for(small), str(out), ONE)
    held.write_bytes(whole)
    probed.clear()
    build(settings_for(small), str(out), ONE)
    assert "mine/test/held" in probed and "mine/train/a0" not in probed
    build(settings_for(small), str(tmp_path / "fresh"), ONE)
    assert outcome(out) == outcome(tmp_path / "fresh")


def test_what_was_not_compared_is_counted_and_seen_once_it_is_there(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, held = tmp_path / "out", small / "test/held.flac"
    held.rename(tmp_path / "away.flac")
    result = build(settings_for(small), str(out), ONE, allow_unprotected=True)
    expected: dict[str, Any] = {"dataset": "mine", "split": "test", "clips": 1, "compared": 0}
    assert result["protection"] == Manifest.open(out).dataset["protection"] == [
        expected | {"not_compared": {"missing": 1}}
    ]  # fmt: skip
    assert fate(out, "mine/train/leak") == "written"
    shutil.move(tmp_path / "away.flac", held)
    capsys.readouterr()
    build(settings_for(small), str(out), ONE, allow_unprotected=True)
    assert "1 clip that had no audio has some today, 1 of them in protected splits" in capsys.readouterr().err
    build(settings_for(small), str(out), ONE, retry="missing")
    assert fate(out, "mine/train/leak") == "withheld"
    build(settings_for(small), str(tmp_path / "fresh"), ONE)
    assert outcome(out) == outcome(tmp_path / "fresh")


def test_append_stops_too_and_goes_on_once_the_audio_is_there(small: Path, tmp_path: Path) -> None:
    settings = settings_for(small)
    fates = dataclasses.replace(settings.fates, protect=parse_protect("mine/test,extra/train"))
    out, extra = tmp_path / "out", write_extra(tmp_path / "extra", 1.5)
    build(dataclasses.replace(settings, fates=fates), str(out), ONE)
    before = outcome(out)
    sounds = {path: path.read_bytes() for path in (extra / "train").iterdir()}
    for path in sounds:
        path.write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"0 of 5 clips of extra/train"):
        append(str(out), {}, {"extra": str(extra)}, ONE)
    assert outcome(out) == before
    for path, contents in sounds.items():
        path.write_bytes(contents)
    append(str(out), {}, {"extra": str(extra)}, ONE)
    found = {(one["dataset"], one["split"]): one["compared"] for one in Manifest.open(out).dataset["protection"]}
    assert found == {("mine", "test"): 1, ("extra", "train"): 5}


def test_a_build_that_wrote_nothing_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "clips.csv").write_text("path,captions\na.wav,a sound\n")
    command = ["build", "--source", f"mine={folder}", "--out", str(tmp_path / "out")]
    assert main(command) == 1
    assert "no sample was written" in capsys.readouterr().out
    soundfile.write(folder / "a.wav", [0.1, -0.2, 0.3] * 16000, 32000)
    assert main(command) == 1
    assert "1 clip that had no audio has some today" in capsys.readouterr().err
    assert main([*command, "--retry", "missing"]) == 0


def test_an_append_that_could_read_nothing_fails(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, extra = tmp_path / "out", tmp_path / "extra"
    build(settings_for(small), str(out), ONE)
    extra.mkdir()
    (extra / "clips.csv").write_text("path,captions\na.wav,a sound\n")
    assert main(["append", str(out), "--source", f"extra={extra}"]) == 1
    assert "no audio could be read" in capsys.readouterr().out
