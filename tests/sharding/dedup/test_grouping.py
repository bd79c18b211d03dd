import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharding.dedup.grouping import Relation, common_elements, connected_components, covers, groups_and_kin, relations
from sharding.schema import CATALOGUE, MATCHES


def match(a: str, b: str, method: str, outcome: str, offset: float | None = 0.0, overlap: float | None = 5.0) -> dict:
    return {"a": a, "b": b, "method": method, "offset_s": offset, "overlap_s": overlap, "outcome": outcome}


def related(*rows: dict) -> list[Relation]:
    return relations(pa.Table.from_pylist(list(rows), MATCHES))


def clips(**identities: str | None) -> pa.Table:
    return pa.Table.from_pylist([{"clip_id": c, "identity": i} for c, i in identities.items()], CATALOGUE)


@pytest.mark.parametrize("method", ["source_bytes", "pcm", "waveform"])
def test_the_strongest_outcome_of_a_pair_counts(method: str) -> None:
    rows = [match("a", "b", "waveform", "different"), match("a", "b", method, "same")]
    for order in (rows, rows[::-1]):
        assert [r.by_waveform for r in related(*order)] == ["same"]
    assert related(rows[0], match("a", "b", method, "undecided"))[0].by_waveform == "undecided"
    assert related(rows[0])[0].by_waveform == "different"


def test_coinciding_codes_decide_nothing() -> None:
    assert related(match("a", "b", "fingerprint", "undecided")) == [Relation("a", "b")]


def test_identities_and_sound_are_kept_apart() -> None:
    found = related(
        match("a", "b", "identity", "undecided", None, None),
        match("a", "b", "identity", "same", 3.0, 2.0),
        match("a", "b", "waveform", "different"),
        match("a", "c", "waveform", "same"),
    )
    assert [(r.by_identity, r.by_waveform, r.identity_overlap_s) for r in found] == [
        ("same", "different", 2.0),
        (None, "same", 0.0),
    ]


def test_the_longest_verified_overlap_gives_the_offset_seen_from_either_clip() -> None:
    relation = related(
        match("a", "b", "waveform", "same", 2.0, 4.0),
        match("a", "b", "waveform", "same", -3.0, 6.0),
        match("a", "b", "waveform", "undecided", 9.0, 8.0),
    )[0]
    assert (relation.offset_s, relation.overlap_s) == (-3.0, 6.0)
    assert (relation.time_in("a"), relation.time_in("b")) == (-3.0, 3.0)
    assert (relation.other("a"), relation.other("b")) == ("b", "a")


def test_of_equally_long_overlaps_the_smallest_offset_counts_whatever_the_order_of_rows() -> None:
    rows = [match("a", "b", "waveform", "same", offset, 4.0) for offset in (3.0, -2.0, 7.0)]
    assert [related(*order)[0].offset_s for order in (rows, rows[::-1])] == [-2.0, -2.0]


def test_an_overlap_covers_a_clip_from_the_share_on() -> None:
    relation = Relation("a", "b", "same", overlap_s=9.5)
    durations = {"a": 10.0, "b": 10.1}
    assert covers(relation, "a", durations, 0.95) and not covers(relation, "b", durations, 0.95)
    assert not covers(relation, "unknown", durations, 0.95)
    assert not covers(Relation("a", "b", "undecided", overlap_s=9.5), "a", durations, 0.95)


def test_a_part_that_more_than_the_limit_of_clips_share_is_a_common_element() -> None:
    durations = dict.fromkeys("abcde", 10.0)
    partial = [Relation("a", other, "same", overlap_s=2.0) for other in "bcd"]
    whole = [Relation("a", "e", "same", overlap_s=10.0)]  # a copy of the whole clip is never set aside
    assert common_elements(partial + whole, durations, 3) == set()
    assert common_elements(partial + whole, durations, 2) == {("a", "b"), ("a", "c"), ("a", "d")}
    unsure = [Relation("a", "d", "undecided"), Relation("a", "e", "different")]
    assert common_elements([*partial[:2], *unsure], durations, 2) == {("a", "b"), ("a", "c"), ("a", "d")}


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("abcdefghx"))))
def test_components_are_the_clips_that_edges_connect(edges: list[tuple[str, str]]) -> None:
    found = connected_components("abcdefgh", edges)
    reached = {clip: {clip} for clip in "abcdefgh"}
    for _ in reached:  # as many rounds as a path can have edges
        for a, b in edges:
            if b in reached:
                reached[a] = reached[b] = reached[a] | reached[b]
    expected = {clip: min(others) for clip, others in reached.items()}
    assert found == expected


def test_verified_pairs_form_groups_and_undecided_pairs_and_common_originals_form_kin() -> None:
    table = clips(a=None, b=None, c=None, d="freesound:7@3.000", e="freesound:7@9.000", f=None, g=None)
    found = [
        Relation("a", "b", "same", overlap_s=10.0),
        Relation("b", "c", "undecided"),
        Relation("c", "d", "different", by_identity="different"),
        Relation("f", "g", "different"),
    ]
    group, kin = groups_and_kin(table, found, dict.fromkeys("abcdefg", 10.0), 50)
    assert group == {"a": "a", "b": "a", "c": "c", "d": "d", "e": "e", "f": "f", "g": "g"}
    assert kin == {"a": "a", "b": "a", "c": "a", "d": "a", "e": "a", "f": "f", "g": "g"}


def test_a_common_element_joins_neither_groups_nor_kin_unless_identities_do() -> None:
    found = [Relation("a", other, "same", overlap_s=2.0) for other in "bcd"]
    found[0].by_identity = "undecided"
    group, kin = groups_and_kin(clips(a=None, b=None, c=None, d=None), found, dict.fromkeys("abcd", 10.0), 2)
    assert group == {clip: clip for clip in "abcd"}
    assert kin == {"a": "a", "b": "a", "c": "c", "d": "d"}
