"""What the shards hold, as a report shows it."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from sharding.reports.contents import BuildContents
from sharding.reports.holdings import (
    dataset_holdings,
    histogram,
    note_counts,
    part_listings,
    sample_views,
    settings_of,
    sound_length,
    totals,
)
from sharding.reports.outcomes import fate_counts


def test_a_histogram_counts_every_value_and_says_when_some_lie_beyond_its_end() -> None:
    values = [0.0, 0.5, 9.9, 10.0, 25.0]
    found = histogram(values, 10.0, bins=10)
    assert sum(found.counts) == len(values) and found.counts[0] == 2 and found.counts[-1] == 3
    assert len(found.edges) == 11 and found.edges[0] == 0 and found.edges[-1] == 10
    assert found.beyond and not histogram([10.0], 10.0).beyond
    assert sum(histogram([], 10.0).counts) == 0


def test_a_dataset_is_counted_by_its_written_clips(contents: BuildContents) -> None:
    (mine,) = dataset_holdings(contents)
    assert (mine.name, mine.clips) == ("mine", 3)
    assert mine.length == "18 s"
    assert sum(mine.durations.counts) == 3 and dict(mine.rates) == {"32 kHz": 3}
    assert dict(mine.kinds) == {"human": 5, "human, from a duplicate": 2}
    assert dict(mine.licences) == {"CC0": 2, "not stated": 1}


def test_the_counts_of_a_part_say_how_much_audio_is_missing(contents: BuildContents) -> None:
    parts = {part.name: part for part in part_listings(contents)}
    assert {name: (part.clips, part.lost, part.share) for name, part in parts.items()} == {
        "mine/test": (1, 0, 0.0),
        "mine/train": (5, 0, 0.0),
    }


def test_samples_come_from_every_split_in_turn(contents: BuildContents) -> None:
    views = sample_views(contents)
    assert [view.clip_id.rpartition("/")[0] for view in views] == ["mine/test", "mine/train", "mine/train"]
    assert all(view.sound.startswith("data:audio") and view.picture.startswith("data:image") for view in views)


def test_totals_and_settings_are_in_words(contents: BuildContents) -> None:
    shown = {label: value for value, label in totals(contents, fate_counts(contents))}
    assert shown["clips written"] == "3" and shown["withheld"] == "1" and "filtered" not in shown
    assert {"versions", "shard format", "fates"} <= dict(settings_of(contents.dataset)).keys()
    assert np.all([count > 0 for _, count in note_counts(contents)])


def test_the_axis_of_durations_holds_nearly_all_clips(contents: BuildContents) -> None:
    (mine,) = dataset_holdings(contents)  # all clips last 6 s
    assert mine.durations.edges[-1] == 10 and not mine.durations.beyond


def test_notes_are_counted_by_kind(contents: BuildContents) -> None:
    changed = copy.copy(contents)
    notes = [["a caption is empty: row 3", "no licence (row 1)"], ["a caption is empty: row 9"], [], [], [], []]
    column = contents.catalogue.column_names.index("notes")
    changed.catalogue = contents.catalogue.set_column(column, "notes", pa.array(notes, pa.list_(pa.string())))
    assert note_counts(changed) == [("a caption is empty", 2), ("no licence", 1)]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0, "under 1 s"), (48.2, "48 s"), (240.0, "4 min"), (9000, "2.5 h"), (9e6, "2,500.0 h")]
)
def test_the_length_of_sound_is_in_hours_where_there_are_some(seconds: float, text: str) -> None:
    assert sound_length(seconds) == text


def test_totals_have_units(contents: BuildContents) -> None:
    shown = {label: value for value, label in totals(contents, fate_counts(contents) | {"filtered": 1200})}
    seconds = round(sum(contents.samples["duration_s"].to_pylist()))
    assert shown["of sound in the shards"] == f"{seconds} s" and shown["filtered"] == "1,200"
    size = sum(path.stat().st_size for path in Path(contents.storage.url, "shards").iterdir())
    assert shown[f"shards, {size / 1e6:.1f} MB"] == "2"
