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
