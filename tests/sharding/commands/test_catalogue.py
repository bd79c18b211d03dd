"""The command that catalogues."""

from __future__ import annotations

from pathlib import Path

import pytest

from sharding.cli import main
from sharding.commands import catalogue
from sharding.sources.exclusion import ListReport


def test_a_catalogue_is_not_written_over_a_build(built: Path, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (built / "catalogue/mine.parquet").read_bytes()
    assert main(["catalogue", "--source", f"mine={corpus}", "--out", str(built)]) == 2
    assert "choose another --out" in capsys.readouterr().err
    assert (built / "catalogue/mine.parquet").read_bytes() == before


def test_clips_and_missing_audio_are_counted(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["catalogue", "--source", f"mine={corpus}", "--protect", "mine/test", "--out", str(tmp_path / "out")]
    assert main(words) == 0
    shown = capsys.readouterr().out
    row = next(line for line in shown.splitlines() if line.startswith("mine/train"))
    assert row.split()[:4] == ["mine/train", "13", "13", "12"]  # clips, captions, and clips with audio
    assert "audio files that no table names: 0" in shown
    assert (tmp_path / "out/catalogue/mine.parquet").exists() and (tmp_path / "out/orphans.parquet").exists()


def test_the_report_on_an_exclusion_list_counts_the_ids_that_it_lacks() -> None:
    row: ListReport = {
        "list": "ids.csv", "entries": 9, "dataset": "clotho", "part": "test", "clips": 6, "no_id": 1, "ids": 5,
        "values": 5, "missed": 2, "missed_ids": ["1", "2"],
    }  # fmt: skip
    expected = "ids.csv: does not name 2 of the 5 ids of clotho/test; 1 clip has no id that a list could name"
    assert catalogue.list_line(row) == expected
    assert catalogue.list_line({**row, "no_id": 0, "missed": 0}) == "ids.csv: names all of the 5 ids of clotho/test"
