"""The command that catalogues."""

from __future__ import annotations

from pathlib import Path

import pytest

from sharding.cli import main


def test_a_catalogue_is_not_written_over_a_build(built: Path, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (built / "catalogue/mine.parquet").read_bytes()
    assert main(["catalogue", "--source", f"mine={corpus}", "--out", str(built)]) == 2
    assert "choose another --out" in capsys.readouterr().err
    assert (built / "catalogue/mine.parquet").read_bytes() == before
