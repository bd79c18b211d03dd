from __future__ import annotations

from sharding.catalogue.shared_captions import shared_captions
from sharding.sources.protected import parse_protect
from tests.sharding.catalogue.clips import catalogue, clip


def test_captions_that_protected_and_training_clips_share() -> None:
    def says(clip_id: str, *texts: str) -> dict:
        return clip(clip_id, None, captions=[{"text": text, "kind": "human"} for text in texts])

    rows = catalogue(
        says("clotho/development/a", "Rain  falls.", "A dog"),
        says("clotho/evaluation/b", "rain falls", "a cat"),
        says("clotho/development/c", "A dog!"),
    )
    assert shared_captions(rows.slice(0, 0), parse_protect()).num_rows == 0
    (row,) = shared_captions(rows, parse_protect()).to_pylist()
    assert row == {
        "caption": "rain falls", "protected": ["clotho/evaluation/b"], "training": ["clotho/development/a"],
    }  # fmt: skip
