"""Figures of a build."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from sharding.common.errors import InputError
from sharding.reports.stats import SplitStats, dataset_stats, ranked_counts, row_counts, source_rates, split_stats
from sharding.shards.manifest import Manifest


def stats_of(out: Path) -> dict[str, SplitStats]:
    manifest = Manifest.open(out)
    return split_stats(manifest, source_rates(manifest))


def test_a_clip_of_several_windows_counts_once_with_its_whole_duration(built: Path) -> None:
    train = stats_of(built)["mine/train"]
    assert (train.clips, train.samples, train.shortest_s, train.longest_s) == (9, 11, 3.0, 25.0)
    assert train.source_rates == {"32000": 9} and train.rates == {"32000": 11}
    assert train.captions == {"human": 10} and train.licences == {"not stated": 9}
    assert train.median_words == 5


def test_figures_by_dataset_have_one_value_a_clip_or_caption(built: Path) -> None:
    manifest = Manifest.open(built)
    mine = dataset_stats(manifest, source_rates(manifest))["mine"]
    assert len(mine.durations) == 10 and max(mine.durations) == 25.0
    assert len(mine.words) == 11 and set(mine.words) == {5}


def test_rates_are_read_from_the_shards_where_the_facts_were_removed(built: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(built, bare, ignore=shutil.ignore_patterns(".build"))
    assert stats_of(bare) == stats_of(built)


def test_small_counts_are_summed_up() -> None:
    counts = {"a": 1, "b": 5, "c": 1, "d": 3}
    assert ranked_counts(counts, 2) == [("b", 5), ("d", 3), ("2 others", 2)]
    assert ranked_counts(counts, 4) == [("b", 5), ("d", 3), ("a", 1), ("c", 1)]
    assert ranked_counts({}) == []


def test_equal_rows_are_counted() -> None:
    table = pa.table({"x": ["a", "b", "a", None], "y": [1, 1, 1, 1]})
    assert row_counts(table) == {("a", 1): 2, ("b", 1): 1, (None, 1): 1}


def test_a_trimmed_clip_counts_only_what_was_written(built: Path) -> None:
    manifest = Manifest.open(built)
    column = manifest.table.column_names.index("start_s")
    later = manifest.table.set_column(column, "start_s", pc.add(manifest.table["start_s"], 7.0))
    rates = source_rates(manifest)
    trimmed = split_stats(dataclasses.replace(manifest, table=later), rates)
    assert trimmed["mine/train"].longest_s == 25.0 and trimmed == split_stats(manifest, rates)


def test_a_damaged_json_of_a_sample_is_named(built: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(built, bare, ignore=shutil.ignore_patterns(".build"))
    sample = Manifest.open(bare).table.to_pylist()[0]
    with (bare / "shards" / sample["shard"]).open("r+b") as file:
        file.seek(sample["json_offset"])
        file.write(b"?")
    with pytest.raises(InputError, match=f"{sample['shard']}: the JSON of {sample['key']} is damaged"):
        stats_of(bare)
