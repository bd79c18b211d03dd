"""The plan: every written sample has one location, in an order that depends on clip_ids alone."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sharding.common.errors import InputError
from sharding.common.storage import Storage
from sharding.shards.manifest import Manifest
from sharding.shards.plan import PlanSettings, make_plan, plan_hash, shard_hash
from sharding.shards.tar import END, padding


def named(plan: Iterator[tuple[str, pa.Table]]) -> str:
    return plan_hash({shard: shard_hash(rows) for shard, rows in plan})


def tables(built: Path) -> tuple:
    out = Storage(built)
    facts = out.read_table(out.list(".build/facts")[0])
    others = (out.read_table(f"{name}.parquet") for name in ("fates", "matches"))
    return out.read_table("catalogue/mine.parquet"), facts, *others


@settings(max_examples=25, deadline=None)
@given(shard_bytes=st.integers(1, 4_000_000))
def test_every_written_sample_has_one_place_and_shards_keep_their_size(built: Path, shard_bytes: int) -> None:
    catalogue, facts, fates, matches = tables(built)
    plan = dict(make_plan(catalogue, facts, fates, matches, PlanSettings(shard_bytes), 32000))
    keys = [key for rows in plan.values() for key in rows["key"].to_pylist()]
    written = [key for row in fates.to_pylist() for key in row["keys"]]
    assert sorted(keys) == sorted(written)
    for rows in plan.values():
        last = rows.slice(rows.num_rows - 1).to_pylist()[0]
        size = last["json_offset"] + last["json_bytes"] + len(padding(last["json_bytes"])) + len(END)
        assert size <= shard_bytes or rows.num_rows == 1


def test_the_plan_does_not_depend_on_the_order_of_its_inputs(built: Path) -> None:
    catalogue, facts, fates, matches = tables(built)

    def upside_down(table: pa.Table) -> pa.Table:
        return table.take(list(range(table.num_rows))[::-1])

    plain = named(make_plan(catalogue, facts, fates, matches, PlanSettings(400_000), 32000))
    turned = make_plan(*map(upside_down, (catalogue, facts, fates, matches)), PlanSettings(400_000), 32000)
    assert named(turned) == plain == Manifest.open(built).dataset["plan"]


def test_shards_without_room_are_refused() -> None:
    with pytest.raises(InputError, match="must be above 0"):
        dataclasses.replace(PlanSettings(), shard_bytes=0)


def test_the_json_of_a_sample_tells_where_it_comes_from(built: Path) -> None:
    manifest = Manifest.open(built)
    row = next(row for row in manifest.table.to_pylist() if row["clip_id"] == "mine/train/a0")
    about = json.loads(manifest.storage.read(f"shards/{row['shard']}", row["json_offset"], row["json_bytes"]))
    assert about["clip_id"] == "mine/train/a0"
    assert about["source"]["path"] == "train/a0.flac"
    assert about["source"]["rate"] == 32000
    texts = [(caption["text"], caption["source"]) for caption in about["captions"]]
    assert texts == [
        ("noise that is called train/a0", None),
        ("noise that is called train/copy", "mine/train/copy"),
    ]
    assert about["group"] == row["group"] == "mine/train/a0"
