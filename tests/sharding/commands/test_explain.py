"""The command that explains one clip."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sharding.cli import main


def test_a_failed_clip_is_explained_in_words(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(built), "mine/train/page"]) == 0
    assert "begins with" in capsys.readouterr().out


def test_a_damaged_table_is_named(built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    shutil.copytree(built, out)
    (out / "fates.parquet").write_bytes(b"PAR1 not a table PAR1")
    assert main(["explain", str(out), "mine/train/x"]) == 2
    shown = capsys.readouterr().err
    assert "fates.parquet: damaged" in shown and "verify" in shown
