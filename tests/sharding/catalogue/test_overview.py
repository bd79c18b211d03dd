"""The description of a build's inputs."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa

from sharding.catalogue.overview import EXAMPLES, overview, overview_bytes
from sharding.schema import FACTS
from sharding.settings import BuildSettings
from tests.sharding.catalogue.clips import catalogue, clip
from tests.sharding.fates.tables import fact


def says(clip_id: str, *texts: str, identity: str | None = None) -> dict:
    return clip(clip_id, identity, captions=[{"text": text, "kind": "human"} for text in texts], notes=[])


def facts(rows: pa.Table) -> pa.Table:
    return pa.Table.from_pylist([fact(clip_id) for clip_id in rows["clip_id"].to_pylist()], FACTS)


def test_counts_lists_and_shared_captions(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("sound_id\n7\n")
    rows = catalogue(
        says("clotho/evaluation/a", "rain falls", identity="freesound:8"),
        says("clotho/development/b", "Rain falls.", "a dog", identity="freesound:7"),
        says("wavcaps/train/7", "Rain falls!", identity="freesound:7"),
        says("mine/test/t", "own words", identity="freesound:9"),
        says("mine/train/u", "other words", identity="freesound:10"),
    )
    about = overview(rows, facts(rows), {"clotho": ["a remark"]}, BuildSettings(exclude=(str(tmp_path / "list.csv"),)))
    assert about["notes"] == {"clotho": ["a remark"]}
    assert {(part["dataset"], part["part"]): part["clips"] for part in about["parts"]}[("mine", "test")] == 1
    assert about["listed"] == {"list.csv": 1}
    lists = {(row["dataset"], row["part"]): row["missed"] for row in about["lists"]}
    assert lists == {("clotho", "evaluation"): 1, ("clotho", "development"): 0, ("mine", "test"): 1}
    shared = about["shared_captions"]
    assert (shared["captions"], shared["training"], shared["protected"]) == (1, 2, 1)
    assert shared["examples"] == [
        {
            "caption": "rain falls",
            "training": 2,
            "protected": 1,
            "training_clip": "clotho/development/b",
            "protected_clip": "clotho/evaluation/a",
        }
    ]
    assert json.loads(overview_bytes(about)) == about


def test_the_number_of_listed_examples_is_limited() -> None:
    numbers = range(EXAMPLES + 5)
    splits = ("clotho/test", "tacos/test")  # the second is protected
    rows = catalogue(*(says(f"{split}/{number}", f"words {number}") for split in splits for number in numbers))
    shared = overview(rows, facts(rows), {}, BuildSettings())["shared_captions"]
    assert shared["captions"] == EXAMPLES + 5 and len(shared["examples"]) == EXAMPLES
