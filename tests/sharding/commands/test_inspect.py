"""The command that shows a build or one sample."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sharding.cli import main
from sharding.shards.manifest import Manifest


def test_a_damaged_sample_is_named(built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    shutil.copytree(built, out)
    row = Manifest.open(out).table.slice(0, 1).to_pylist()[0]
    with (out / "shards" / row["shard"]).open("r+b") as file:
        file.seek(row["json_offset"])
        file.write(b"\xff")
    assert main(["inspect", str(out), row["key"]]) == 2
    shown = capsys.readouterr().err
    assert row["key"] in shown and row["shard"] in shown and "verify" in shown


def test_a_damaged_overview_is_named(built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "copy"
    shutil.copytree(built, out)
    (out / "overview.json").write_bytes(b"{")
    for verb in ("inspect", "report"):
        assert main([verb, str(out)]) == 2
        assert "overview.json: damaged" in capsys.readouterr().err


def test_a_sample_is_found_by_its_key_and_by_its_clip(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = []
    for key in ("mine/train/long", "mine~train~long@00000"):
        assert main(["inspect", str(built), key]) == 0
        shown.append(capsys.readouterr().out)
    assert all("mine~train~long@00000" in text and '"clip_id": "mine/train/long"' in text for text in shown)
    assert "the clip has 3 windows" in shown[0] and "windows" not in shown[1].partition("{")[0]


def test_an_unknown_key_is_answered_with_the_nearest(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(built), "mine~train~lang@00000"]) == 2
    assert "did you mean mine~train~long@00000" in capsys.readouterr().err


def test_a_build_is_shown_shard_by_shard(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(built)]) == 0
    shown = capsys.readouterr().out
    assert all(shard["name"] in shown for shard in Manifest.open(built).dataset["shards"])
