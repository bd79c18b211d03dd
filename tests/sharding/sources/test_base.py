"""The catalogue rows that a reader collects."""

from __future__ import annotations

import pytest

from sharding.common.errors import InputError
from sharding.schema import CATALOGUE
from sharding.sources import DATASETS
from sharding.sources.base import ORPHANS, CatalogueBuilder, PublishedCaption, orphans_table


def test_rows_keep_the_published_order_and_all_columns() -> None:
    rows = CatalogueBuilder("mine")
    rows.add("train", "b", path="b.wav", captions=[PublishedCaption("x", "human", 0.5, 2.0)], interval=(1.0, None))
    rows.add("part", "a", split="train", path=None, identity="freesound:7", duration_s=3.0, licence="")
    assert len(rows) == 2 and "mine/train/b" in rows and rows.used_paths() == {"b.wav"}
    table = rows.table()
    assert table.schema == CATALOGUE
    b, a = table.to_pylist()
    assert (b["clip_id"], b["split"], b["problem"], b["interval"]) == (
        "mine/train/b", "train", None, {"start": 1.0, "end": None},
    )  # fmt: skip
    assert b["captions"] == [{"text": "x", "kind": "human", "onset": 0.5, "offset": 2.0, "source": None}]
    assert (a["part"], a["split"], a["problem"], a["licence"], a["interval"]) == (
        "part",
        "train",
        "missing",
        None,
        None,
    )


def test_audio_outside_the_folder_has_no_path() -> None:
    rows = CatalogueBuilder("mine", outside={"link.wav"})
    rows.add("train", "a", path="link.wav")
    rows.add("train", "b", path="b.wav", out_of_root=True)
    assert [(row["path"], row["problem"]) for row in rows.table().to_pylist()] == [(None, "out_of_root")] * 2


def test_two_clips_of_one_name_are_refused() -> None:
    rows = CatalogueBuilder("mine")
    rows.add("train", "a", path=None)
    with pytest.raises(InputError, match="mine/train/a"):
        rows.add("train", "a", path=None)


def test_captions_that_differ_only_in_case_or_spacing_are_not_added() -> None:
    rows = CatalogueBuilder("mine")
    rows.add("train", "a", path=None, captions=[PublishedCaption("A dog.", "human")])
    more = [PublishedCaption("a  DOG.", "human"), PublishedCaption("A cat.", "human")]
    rows.merge("mine/train/a", more, "repeated")
    rows.merge("mine/train/a", [PublishedCaption("A dog.", "human", 0.0, 1.0)], "repeated")
    (row,) = rows.table().to_pylist()
    assert [caption["text"] for caption in row["captions"]] == ["A dog.", "A cat.", "A dog."]
    assert row["notes"] == ["repeated"]


def test_half_a_character_is_refused_with_the_name_of_its_clip() -> None:
    rows = CatalogueBuilder("mine")
    rows.add("train", "good", path=None)
    rows.add("train", "bad", path=None, title="\ud83d")
    with pytest.raises(InputError, match=r"surrogate.*mine/train/bad"):
        rows.table()


def test_control_characters_pass_through_unharmed() -> None:
    rows, text = CatalogueBuilder("mine"), "a\x1b[31m\x00\u202ebell\x07\n"
    rows.add("train", "a\x1b", path="a\x1b.wav", captions=[PublishedCaption(text, "human")], title=text)
    (row,) = rows.table().to_pylist()
    assert row["captions"][0]["text"] == row["title"] == text and row["path"] == "a\x1b.wav"


def test_orphans_are_sorted() -> None:
    table = orphans_table("mine", {"b": "why", "a": "because"})
    assert table.schema == ORPHANS and table["path"].to_pylist() == ["a", "b"]


def test_every_registered_dataset_names_splits_that_it_has() -> None:
    for name, dataset in DATASETS.items():
        assert dataset.name == name
        assert {*dataset.protected, *dataset.kept} <= set(dataset.splits)
        assert not set(dataset.protected) & set(dataset.kept) and 0 < dataset.least_audio <= 1
