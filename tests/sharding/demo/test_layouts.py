"""The layouts of the published datasets."""

from __future__ import annotations

from pathlib import Path

import pytest

from sharding.catalogue.table import build_catalogue


def test_identities_and_intervals_survive_the_published_encodings(corpus: Path, truth: dict) -> None:
    rows = {row["clip_id"]: row for row in build_catalogue({"clotho": str(corpus / "clotho")}).table.to_pylist()}
    assert any(row["uploader"] == "Óscar de Ávila" for row in rows.values())
    assert any(row["identity"] is None for row in rows.values())  # `Not found`
    both = next(one for one in truth["same_recording"] if one["kind"].startswith("overlapping excerpts in two"))
    a, b = (rows[clip] for clip in both["members"])
    assert a["identity"] == b["identity"]
    shared = min(a["interval"]["end"], b["interval"]["end"]) - max(a["interval"]["start"], b["interval"]["start"])
    assert shared == pytest.approx(both["overlap_s"], abs=0.01)
