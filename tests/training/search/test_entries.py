from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharding.common.errors import InputError
from tests.training.data.shards import row, table_of
from training.search.entries import PART, REST, Filter, Windows, codes_of, entries_of, parts_of
from training.search.reading import EntryOrder, drawn


def caption(text: str, onset: float | None = None, offset: float | None = None) -> dict[str, object]:
    return {"text": text, "kind": "human", "onset": onset, "offset": offset, "source": None}


LONG = [row(7, "mine", "test", window=k, windows=2, duration_s=60.0, start_s=60.0 * k, licence="CC0") for k in range(2)]
SHORT = [row(1, duration_s=4.0), row(2, duration_s=11.0, licence="http://x/by/4.0")]


@given(st.floats(0.05, 500), st.floats(0.1, 40), st.floats(0.05, 1))
def test_windows_cover_a_sample_but_for_a_short_rest(seconds: float, length: float, share: float) -> None:
    windows = Windows(length, length * share)
    samples, starts = windows.starts(np.array([seconds, seconds]))
    starts, again = np.split(starts, 2)
    assert np.array_equal(starts, again) and np.array_equal(samples, np.repeat([0, 1], len(starts)))
    assert starts[0] == 0 and np.all(np.diff(starts) > 0)
    assert np.all(np.diff(starts) <= windows.hop_s * (1 + 1e-9) + REST * windows.hop_s)
    assert starts[-1] <= max(0, seconds - length) + 1e-9
    assert seconds - (starts[-1] + length) <= REST * length + 1e-6


@pytest.mark.parametrize(("length", "hop"), [(0.0, 0.1), (1.0, 0.0), (1.0, 2.0), (float("nan"), 1.0)])
def test_windows_that_skip_sound_are_refused(length: float, hop: float) -> None:
    with pytest.raises(InputError, match=r"at least 0\.1 s"):
        Windows(length, hop)


def test_entries_say_where_they_are_in_the_recording_and_in_the_shard() -> None:
    entries = entries_of(table_of(SHORT + LONG), {LONG[0]["clip_id"]: "mine/seven.wav"}, Windows(10.0, 5.0)).to_pylist()
    assert [(e["start_s"], e["end_s"]) for e in entries[:2]] == [(0.0, 4.0), (0.0, 10.0)]
    long = entries[2:]
    assert (long[0]["start_s"], long[-1]["end_s"], long[0]["recording_s"]) == (0.0, 120.0, 120.0)
    assert {e["path"] for e in long} == {"mine/seven.wav"} and entries[0]["path"] is None
    second = [e for e in long if e["key"] == LONG[1]["key"]]
    assert second[0]["start_s"] == second[0]["sample_start_s"] == 60.0
    samples = drawn(entries_of(table_of(LONG), {}, Windows(10.0, 5.0)))
    assert max(samples.start_s + samples.duration_s) == 60.0  # in the stored sound, not in the recording


def test_a_window_has_the_captions_of_its_moment() -> None:
    written = [caption("all of it"), caption("a bark", 2.0, 4.0), caption("a car", 15.0, 18.0)]
    entries = entries_of(table_of([row(1, duration_s=20.0, captions=written)]), {}, Windows(10.0, 10.0)).to_pylist()
    assert [e["captions"] for e in entries] == [["all of it", "a bark"], ["all of it", "a car"]]


def test_parts_hold_one_shard_each_and_change_their_names_with_the_sound_alone() -> None:
    rows = [row(k, shard="clotho-development-000000.tar", audio_sha256=str(k)) for k in range(PART + 5)]
    entries = entries_of(table_of([*rows, row(3, "wavcaps", "train")]), {}, Windows(60.0, 60.0))
    parts = parts_of(entries)
    assert [len(part) for part in parts] == [PART, 5, 1]
    rows[PART]["licence"] = "CC0"
    rows[0]["audio_sha256"] = "changed"
    again = parts_of(entries_of(table_of([*rows, row(3, "wavcaps", "train")]), {}, Windows(60.0, 60.0)))
    assert [a.name == b.name for a, b in zip(parts, again, strict=True)] == [False, True, True]
    order = EntryOrder(entries, parts, 100)
    assert [len(order.batch(0, step)) for step in range(order.steps_per_epoch)] == [100, 100, 56, 5, 1]


def test_an_empty_build_has_no_entries() -> None:
    entries = entries_of(table_of([]), {}, Windows(10.0, 5.0))
    assert entries.num_rows == 0 and parts_of(entries) == []


def test_filters_choose_datasets_licences_and_lengths() -> None:
    entries = entries_of(table_of(SHORT + LONG), {}, Windows(10.0, 10.0))

    def found(**rules: object) -> list[int]:
        mask = Filter(**rules).mask(entries)  # type: ignore[arg-type]
        assert mask is not None
        return np.flatnonzero(mask).tolist()

    assert Filter().mask(entries) is None
    assert found(datasets=("clotho",)) == [0, 1]
    assert found(datasets=("mine/test",)) == list(range(2, 14))
    assert found(licences=("cc0",)) == list(range(2, 14))
    assert found(licences=("cc",)) == list(range(2, 14))
    assert found(licences=("BY/4", "cc0")) == list(range(1, 14))
    assert found(least_s=5.0, most_s=60.0) == [1]
    assert found(most_s=60.0, datasets=("mine",)) == []
    with pytest.raises(InputError, match="no such dataset or split"):
        found(datasets=("clotho/test",))


@given(st.lists(st.lists(st.sampled_from(["a", "b", "c", None]), max_size=20), max_size=4), st.data())
def test_names_as_numbers_are_the_names(chunks: list[list[str | None]], data: st.DataObject) -> None:
    """In columns of several chunks, each a part of a longer one, with its own dictionary."""
    begins = [data.draw(st.integers(0, len(chunk))) for chunk in chunks]
    kind = pa.dictionary(pa.int32(), pa.string())
    arrays = [pa.array(chunk, kind).slice(begin) for chunk, begin in zip(chunks, begins, strict=True)]
    codes, names = codes_of(pa.chunked_array(arrays, kind))
    expected = [name for chunk, begin in zip(chunks, begins, strict=True) for name in chunk[begin:]]
    assert [None if code < 0 else names[code].as_py() for code in codes.tolist()] == expected


def test_entries_need_no_captions() -> None:
    table = table_of([row(1) | {"captions": None}])
    assert isinstance(table, pa.Table)
    assert entries_of(table, {}, Windows(10.0, 5.0))["captions"][0].as_py() == []


def test_a_licence_that_no_entry_has_is_refused_with_those_that_there_are() -> None:
    entries = entries_of(table_of([row(1, licence="CC-BY"), row(2, licence=None)]), {}, Windows(60.0, 60.0))
    with pytest.raises(InputError, match="no such licence") as caught:
        Filter(licences=("CC-BY", "GPL")).mask(entries)
    assert "GPL" in str(caught.value) and "it has CC-BY" in str(caught.value)
    unknown = entries_of(table_of([row(1, licence=None)]), {}, Windows(60.0, 60.0))
    with pytest.raises(InputError, match="names no licences"):
        Filter(licences=("CC-BY",)).mask(unknown)


def test_a_whole_licence_does_not_find_another_that_begins_alike() -> None:
    table = table_of([row(1, licence="CC-BY"), row(2, licence="CC-BY-NC"), row(3, licence=None)])
    entries = entries_of(table, {}, Windows(60.0, 60.0))
    masks = [Filter(licences=(text,)).mask(entries) for text in ("cc-by", "by-nc", "BY")]
    assert [np.flatnonzero(mask).tolist() for mask in masks if mask is not None] == [[0], [1], [0, 1]]
