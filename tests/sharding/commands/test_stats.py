"""The command that counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from sharding.cli import main


def test_the_picture_is_written_and_its_file_is_named(
    built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["stats", str(built), "--plot", str(tmp_path / "deep/plot.png")]) == 0
    assert (tmp_path / "deep/plot.png").read_bytes().startswith(b"\x89PNG")
    shown = capsys.readouterr().out
    assert "mine/train" in shown and "25.0s" in shown and "plot.png" in shown
    assert main(["stats", str(built), "--plot", str(tmp_path / "plot.xyz")]) == 2
