import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from sharding.catalogue.shared_captions import shared_captions
from sharding.common.errors import InputError
from sharding.dedup.identity import identity_matches, shared_sources
from sharding.schema import CATALOGUE, MATCHES
from sharding.sources.exclusion import list_report, listed, read_exclusion_list
from sharding.sources.protected import DEFAULT_PROTECT, parse_protect


def clip(clip_id: str, identity: str | None, start: float | None = None, end: float | None = None, **more: Any) -> dict:
    dataset, part = clip_id.split("/")[:2]
    interval = None if start is None else {"start": start, "end": end}
    row = dict.fromkeys(CATALOGUE.names)
    return row | {
        "clip_id": clip_id, "dataset": dataset, "part": part, "split": part, "identity": identity,
        "interval": interval, "captions": [], **more,
    }  # fmt: skip


def catalogue(*rows: dict) -> pa.Table:
    return pa.Table.from_pylist(list(rows), CATALOGUE)


def outcome(*rows: dict) -> list[tuple]:
    found = identity_matches(catalogue(*rows))
    assert found.schema == MATCHES
    return [(row["outcome"], row["offset_s"], row["overlap_s"]) for row in found.to_pylist()]


def test_excerpts_of_one_sound_are_the_same_where_they_overlap() -> None:
    whole = clip("wavcaps/FreeSound/7", "freesound:7", 0.0, 100.0)
    part = clip("clotho/evaluation/x", "freesound:7", 20.0, 45.0)
    # b's time 0 stands at -20 s of a: the excerpt a begins 20 s into b.
    assert outcome(whole, part) == [("same", -20.0, 25.0)]
    assert outcome(part, clip("tacos/test/7", "freesound:7", 44.5, 60.0)) == [("undecided", 24.5, 0.5)]
    assert outcome(part, clip("tacos/test/7", "freesound:7", 44.0, 60.0)) == [("same", 24.0, 1.0)]
    assert outcome(part, clip("tacos/test/7", "freesound:7", 45.0, 60.0)) == [("different", 25.0, 0.0)]
    assert outcome(part, clip("tacos/test/7", "freesound:7", 30.0, 30.5)) == [("same", 10.0, 0.5)]


def test_many_excerpts_of_one_source_are_not_all_paired(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    starts = rng.uniform(0, 4000, 300)
    rows = [clip(f"mine/all/{i:03d}", "freesound:7", at, at + rng.uniform(1, 30)) for i, at in enumerate(starts)]
    rows += [clip("mine/all/whole", "freesound:7", 100.0, None), clip("mine/all/unknown", "freesound:7")]
    few = identity_matches(catalogue(*rows))
    monkeypatch.setattr("sharding.dedup.identity.MANY", 1000)
    every = identity_matches(catalogue(*rows))
    assert few.equals(every.filter(pc.not_equal(every["outcome"], "different")))
    assert few.num_rows < 3000 < every.num_rows


def test_an_interval_without_an_end_reaches_to_the_end_of_its_source() -> None:
    open_a, open_b = (clip(f"clotho/{split}/x", "freesound:7", 0.0) for split in ("development", "evaluation"))
    assert outcome(open_a, open_b) == [("same", 0.0, None)]
    assert outcome(open_a, clip("wavcaps/FreeSound/7", "freesound:7", 0.0, 9.0)) == [("same", 0.0, 9.0)]


def test_a_video_whose_start_is_unknown_is_undecided() -> None:
    a = clip("audiocaps/test/abcdefghijk_30", "youtube:abcdefghijk@30.000", 30.0, 40.0)
    assert outcome(a, clip("wavcaps/AudioSet_SL/Yabcdefghijk", "youtube:abcdefghijk")) == [("undecided", None, None)]
    later = clip("audiocaps/train/abcdefghijk_90", "youtube:abcdefghijk@90.000", 90.0, 100.0)
    assert outcome(a, later) == [("different", 60.0, 0.0)]


def test_clips_without_an_id_match_nothing() -> None:
    assert outcome(clip("clotho/validation/a", None), clip("clotho/evaluation/b", None)) == []


def test_matches_do_not_depend_on_the_order_of_rows() -> None:
    rows = [clip(f"wavcaps/FreeSound/{k}", "freesound:7", float(k), k + 10.0) for k in range(5)]
    assert identity_matches(catalogue(*rows)).equals(identity_matches(catalogue(*rows[::-1])))
    assert identity_matches(catalogue(*rows)).num_rows == 10


@pytest.mark.parametrize(
    ("name", "text", "identities"),
    [
        ("c.csv", "sound_id\n7\nNot found\n8\n", {"freesound:7", "freesound:8"}),
        ("l.csv", "index,id\r\n0,Y-bcdefghijk.wav\r\n1,99\r\n", {"youtube:-bcdefghijk", "freesound:99"}),
        (
            "b.json",
            json.dumps({"AudioSet": ["Yabcdefghijk.wav"], "FreeSound": ["7", "Not found"]}),
            {"youtube:abcdefghijk", "freesound:7"},
        ),
    ],
)
def test_every_form_of_exclusion_list(tmp_path: Path, name: str, text: str, identities: set[str]) -> None:
    (tmp_path / name).write_text(text, newline="")
    assert read_exclusion_list(str(tmp_path / name)).identities == identities


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("name\n7\n", "lacks the column"),
        ("sound_id\nbird\n", "row 2: the entry names no sound"),
        ('{"FreeSound": ["7"', "cut off"),
        ('{"Vimeo": ["7"]}', "not a list of"),
    ],
)
def test_what_is_no_exclusion_list(tmp_path: Path, text: str, what: str) -> None:
    (tmp_path / "list").write_text(text)
    with pytest.raises(InputError, match=what):
        read_exclusion_list(str(tmp_path / "list"))
    with pytest.raises(InputError, match="no such"):
        read_exclusion_list(str(tmp_path / "absent.csv"))


def test_a_list_names_clips_of_other_collections_only(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("sound_id\n7\nNot found\n")
    one = read_exclusion_list(str(tmp_path / "c.csv"))
    rows = catalogue(
        clip("clotho/development/a", "freesound:7"),
        clip("wavcaps/FreeSound/7", "freesound:7"),
        clip("tacos/development/7", "freesound:7"),
        clip("wavcaps/FreeSound/8", "freesound:8"),
        clip("wavcaps/AudioSet_SL/Yx", None),
    )
    assert listed(rows, [one]) == {"wavcaps/FreeSound/7": "c.csv", "tacos/development/7": "c.csv"}
    (row,) = list_report(rows, [one])
    assert (row["dataset"], row["ids"], row["missed"]) == ("clotho", 1, 0)


def test_protected_splits() -> None:
    assert ("clotho", "evaluation") in parse_protect(DEFAULT_PROTECT)
    assert parse_protect("mine/all, clotho/validation") == {("mine", "all"), ("clotho", "validation")}
    assert parse_protect("") == frozenset()
    for bad in ("clotho", "clotho/", "/test", "a/b/c"):
        with pytest.raises(InputError, match="not a protected split"):
            parse_protect(bad)
    with pytest.raises(InputError, match=r"clotho has no such split.*evalution"):
        parse_protect("clotho/evalution")


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


def test_sources_that_clips_of_one_dataset_share() -> None:
    rows = catalogue(
        clip("clotho/development/a", "freesound:7"),
        clip("clotho/evaluation/b", "freesound:7"),
        clip("wavcaps/FreeSound/7", "freesound:7"),
    )
    assert shared_sources(rows) == {"freesound:7": ["clotho/development/a", "clotho/evaluation/b"]}
