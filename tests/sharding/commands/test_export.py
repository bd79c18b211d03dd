"""The command that writes CSV files."""

from __future__ import annotations

from pathlib import Path

import pytest

from sharding.cli import main


def test_every_file_is_listed_with_its_rows(built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "csv"
    assert main(["export", str(built), "--csv", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert {path.name for path in folder.iterdir()} == {
        f"{n}.csv" for n in ["clips", "captions", "samples", "fates", "matches"]
    }
    assert all(str(path) in shown for path in folder.iterdir())
    assert f"{14:9} rows  {folder}/clips.csv" in shown
