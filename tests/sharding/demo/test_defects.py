"""Defects that are planted on purpose."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest


def test_every_defect_of_the_published_tables_is_there(corpus: Path, truth: dict) -> None:
    assert b"\r\n" in (corpus / "audiocaps/train.csv").read_bytes()
    assert (corpus / "tacos/metadata.csv").read_bytes().startswith(b"\xef\xbb\xbf")
    with pytest.raises(UnicodeDecodeError):
        (corpus / "clotho/clotho_metadata_development.csv").read_text(encoding="utf-8") + (
            corpus / "clotho/clotho_metadata_evaluation.csv"
        ).read_text(encoding="utf-8")
    with (corpus / "audiocaps/train.csv").open(newline="") as file:
        assert any(row["youtube_id"].startswith("-") for row in csv.DictReader(file))
    assert len({one["what"] for one in truth["defects"]}) == 7
