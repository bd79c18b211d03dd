"""What ``overview.json`` says about the inputs of a build."""

from __future__ import annotations

import json
from pathlib import Path

from sharding.catalogue.overview import read_overview
from sharding.catalogue.table import part_counts
from sharding.common.storage import Storage


def test_hours_are_those_of_the_decoded_sound(built: Path) -> None:
    overview = read_overview(Storage(built))
    hours = {f"{part['dataset']}/{part['part']}": part["hours"] for part in overview["parts"]}
    assert hours == {"mine/test": round(4 / 3600, 4), "mine/train": round(55 / 3600, 4)}
    assert json.loads((built / "overview.json").read_bytes()) == overview


def test_hours_are_unknown_before_anything_is_decoded_and_no_duration_was_published(built: Path) -> None:
    catalogue = Storage(built).read_table("catalogue/mine.parquet")
    assert {part["hours"] for part in part_counts(catalogue)} == {None}
