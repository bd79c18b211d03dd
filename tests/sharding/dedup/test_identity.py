import numpy as np
import pyarrow.compute as pc
import pytest

from sharding.dedup.identity import identity_matches, shared_sources
from sharding.schema import MATCHES
from tests.sharding.catalogue.clips import catalogue, clip


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


def test_sources_that_clips_of_one_dataset_share() -> None:
    rows = catalogue(
        clip("clotho/development/a", "freesound:7"),
        clip("clotho/evaluation/b", "freesound:7"),
        clip("wavcaps/FreeSound/7", "freesound:7"),
    )
    assert shared_sources(rows) == {"freesound:7": ["clotho/development/a", "clotho/evaluation/b"]}
