"""The end of a build: where all sound lies, what ``dataset.json`` counts, and what is tidied up."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharding.build.finish import commit, decoded_windows, shard_locations, tidy, with_locations
from sharding.common.errors import InputError
from sharding.common.storage import Storage
from sharding.layout import FATES, Work, finished_pack_name, work_of
from sharding.reports.facts import finished_facts
from sharding.schema import FACTS
from sharding.shards.manifest import Manifest
from tests.sharding.conftest import settings_for
from tests.sharding.corpora import tree

SHA = "0" * 64


def facts_of(windows: dict[str, int]) -> pa.Table:
    """FACTS of clips with some windows each."""
    rows = [
        {
            "clip_id": clip,
            "windows": [
                {
                    "window": n,
                    "start_s": 0.0,
                    "duration_s": 1.0,
                    "pack": "a.pack",
                    "offset": n,
                    "bytes": 1,
                    "sha256": SHA,
                }
                for n in range(count)
            ],
        }
        for clip, count in windows.items()
    ]
    return pa.Table.from_pylist(rows, FACTS)


@given(windows=st.dictionaries(st.text("abcd", min_size=1, max_size=4), st.integers(0, 4), max_size=8))
def test_windows_get_their_new_locations_and_nothing_else_changes(windows: dict[str, int]) -> None:
    facts = facts_of(windows)
    locations = {(clip, n): (f"{clip}.pack", 100 + n) for clip, count in windows.items() for n in range(count)}
    moved = with_locations(facts, locations)
    assert moved.drop_columns("windows").equals(facts.drop_columns("windows"))
    for clip, found in decoded_windows(moved):
        assert [(one["window"], one["pack"], one["offset"]) for one in found] == [
            (n, f"{clip}.pack", 100 + n) for n in range(windows[clip])
        ]


def test_a_finished_build_holds_the_sound_of_every_clip_that_decoded(built: Path) -> None:
    out = Storage(built)
    sizes = out.sizes()
    for clip, windows in decoded_windows(finished_facts(out)):
        for window in windows:
            file = finished_pack_name(window["pack"])
            assert window["offset"] + window["bytes"] <= sizes[file], clip
    shards = [shard["name"] for shard in Manifest.open(built).dataset["shards"]]
    assert len(shard_locations(out, shards)) == Manifest.open(built).table.num_rows


def test_fates_that_do_not_add_up_to_the_catalogue_are_not_committed(built: Path, corpus: Path, tmp_path: Path) -> None:
    out = Storage(shutil.copytree(built, tmp_path / "copy"))
    catalogue = out.read_table("catalogue/mine.parquet")
    out.write_table(FATES, out.read_table(FATES).slice(1))
    out.remove("dataset.json")
    with pytest.raises(InputError, match="do not add up"):
        commit(out, settings_for(corpus), catalogue, [], "plan", [])
    assert not out.exists("dataset.json")


def test_tidying_removes_what_no_later_command_needs_and_is_idempotent(built: Path, tmp_path: Path) -> None:
    out = Storage(shutil.copytree(built, tmp_path / "copy"))
    before, work = tree(tmp_path / "copy"), work_of(out)
    for name in ("packs/unused.pack", "tasks/x.parquet", "records/x.json", "reopened/y", Work.KNOWN_MATCHES):
        work.write(name, b"left")
    (tmp_path / "copy/shards/.x.tar.0.tmp").write_bytes(b"half")
    tidy(out)
    assert tree(tmp_path / "copy") == before
