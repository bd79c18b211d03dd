import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sharding.common.storage import Storage
from sharding.dedup.candidates import (
    COINCIDENCE,
    POSTING,
    JoinSettings,
    Spill,
    Spilled,
    clip_postings,
    coincidences,
    join,
    vote,
)
from sharding.dedup.fingerprint import INFORMATIVE, WEAKEST_SHIFT
from sharding.schema import FINGERPRINTS


def random_codes(seed, count):
    return np.random.default_rng(seed).integers(0, 2**32, count, dtype=np.uint32)


def flags_of(codes, weakest=31):
    return np.full(len(codes), weakest << WEAKEST_SHIFT | INFORMATIVE, np.uint8)


def joined(clips, fresh=None, protected=(), hops=0, spread=map, flags=None, **bounds):
    """(a, b, offset) and votes of every candidate among codes by clip number."""
    flags = flags or {}
    rows = [
        {"clip_id": str(n), "codes": c.tobytes(), "flags": flags.get(n, flags_of(c)).tobytes()}
        for n, c in enumerate(clips)
    ]
    found = join(
        [pa.Table.from_pylist([row], FINGERPRINTS) for row in rows],
        {str(n): n for n in range(len(clips))},
        np.isin(np.arange(len(clips)), list(protected)),
        np.ones(len(clips), bool) if fresh is None else np.isin(np.arange(len(clips)), list(fresh)),
        JoinSettings(**bounds),
        spread,
        hops,
    )
    return {tuple(row[:3]): row[3] for row in found.tolist()}


def pairs(found):
    return {pair[:2] for pair in found}


def holding(element, seed, length=200):
    """Codes of a clip of its own that holds the element in its middle."""
    own = random_codes(seed, length)
    return np.concatenate([own[: length // 2], element, own[length // 2 :]])


def test_an_excerpt_is_found_at_its_offset_with_a_vote_for_each_code():
    whole = random_codes(0, 500)
    found = joined([random_codes(1, 300), whole, whole[123:323]])
    assert list(found) == [(1, 2, 123)]
    assert found[1, 2, 123] == pytest.approx(200, abs=2)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 200), st.integers(60, 200), st.integers(0, 300))
def test_a_shared_passage_is_always_found(seed, start, length, later):
    whole = random_codes(seed, 400)
    other = np.concatenate([random_codes(seed + 1, later), whole[start : start + length]])
    assert (0, 1, start - later) in joined([whole, other])


def test_one_wrong_bit_in_every_code_is_forgiven_where_it_is_the_weakest():
    codes = random_codes(2, 300)
    wrong = codes ^ np.uint32(1 << 7)
    # The codes differ, and contexts differ in one bit of each half, which still counts as agreement.
    assert (0, 1, 0) in joined([codes, wrong], flags={1: flags_of(wrong, 7)})
    assert not joined([codes, wrong])


def test_equal_codes_whose_contexts_differ_are_chance():
    a, b = random_codes(3, 400), random_codes(4, 400)
    b[::40] = a[::40]  # ten equal codes at one offset, between others that differ
    assert not joined([a, b])


@pytest.mark.parametrize(
    ("before", "after", "agree"),
    [(0, 16, True), (3, 16, True), (4, 16, False), (16, 3, True), (16, 4, False), (4, 5, True), (5, 5, False)],
)
def test_contexts_agree_in_one_half_or_nearly_in_both(before, after, agree):
    """``before`` and ``after`` are the numbers of differing bits in each half of 16."""
    rows = np.zeros(2, POSTING)
    rows["context"] = 0, (1 << before) - 1 | ((1 << after) - 1) << 16
    rows["position"] = 7, 1 << 24 | 4
    found = coincidences(rows, np.zeros(2, bool), np.ones(2, bool), JoinSettings())
    assert found.tolist() == ([(0 << 32 | 1, 3, 7)] if agree else [])


def test_votes_of_adjacent_offsets_are_added_and_others_are_not():
    rows = [(1, 10, hop) for hop in range(5)] + [(1, 11, hop) for hop in range(3)] + [(1, 13, hop) for hop in range(2)]
    rows += [(1, 10, 0), (2, 14, 0), (2, 14, 1)]  # a hop counts once at an offset, and pairs are apart
    found = vote(np.array(rows, COINCIDENCE), JoinSettings())
    assert found.tolist() == [(0, 1, 10, 8), (0, 1, 11, 8), (0, 1, 13, 2), (0, 2, 14, 2)]


def test_codes_that_are_not_informative_are_not_posted():
    codes = random_codes(5, 100)
    flags = flags_of(codes)
    flags[10:20] &= ~np.uint8(INFORMATIVE)
    rows = clip_postings(codes, flags, 3, 1)
    hops = set((rows["position"] & 0xFFFFFF).tolist())
    assert hops == set(range(100)) - set(range(10, 20))
    assert set((rows["position"] >> 24).tolist()) == {3}
    assert not len(clip_postings(codes, np.zeros(100, np.uint8), 3, 1))


def test_a_code_that_lasts_is_posted_once_and_again_after_a_gap():
    codes = np.full(30, 77, np.uint32)
    flags = flags_of(codes)
    assert len(clip_postings(codes, flags, 0, 1)) == 2  # the code itself, and with its weakest bit flipped
    flags[10] = 0
    assert len(clip_postings(codes, flags, 0, 1)) == 4


@pytest.mark.parametrize("sample", [2, 8])
def test_large_collections_post_the_same_part_of_the_codes_of_every_clip(sample):
    codes = random_codes(6, 4000)
    all_rows, some = (clip_postings(codes, flags_of(codes), 0, n) for n in (1, sample))
    assert len(some) == pytest.approx(len(all_rows) / sample, rel=0.15)
    later = clip_postings(codes[1000:], flags_of(codes[1000:]), 1, sample)
    inner = some["code"][(some["position"] & 0xFFFFFF) >= 1000]
    assert np.array_equal(later["code"], inner)


def test_a_sampled_join_finds_long_copies():
    whole = random_codes(7, 2000)
    clips = [whole, whole[500:1500], random_codes(8, 1000)]
    full, sampled = joined(clips), joined(clips, hops=4 * 600_000_000)
    assert list(full) == list(sampled) == [(0, 1, 500)]
    assert sampled[0, 1, 500] < full[0, 1, 500] / 2


def test_partitions_memory_and_the_order_of_results_change_nothing(tmp_path):
    clips = [random_codes(n, 300) for n in range(6)]
    clips += [holding(clips[n][50:150], 100 + n) for n in range(6)]

    def backwards(function, items):
        return [function(item) for item in list(items)[::-1]]

    found = joined(clips)
    assert pairs(found) == {(n, n + 6) for n in range(6)}
    assert joined(clips, partitions=1) == found
    assert joined(clips, partitions=3, memory_bytes=1000, scratch=str(tmp_path), spread=backwards) == found
    assert not list(tmp_path.iterdir())


def test_only_pairs_with_a_fresh_clip_are_found():
    passage = random_codes(9, 100)
    clips = [holding(passage, n) for n in range(4)]
    assert len(pairs(joined(clips))) == 6
    assert pairs(joined(clips, fresh={2})) == {(0, 2), (1, 2), (2, 3)}
    assert not joined(clips, fresh=())
    assert pairs(joined(clips, fresh={2}, common=2, representatives=1, protected={0})) == {(0, 2)}


def test_clips_of_a_common_element_are_paired_with_its_representatives_only():
    element = random_codes(10, 60)
    clips = [holding(element, 20 + n) for n in range(9)]
    assert len(pairs(joined(clips, common=9))) == 36
    assert pairs(joined(clips, common=8, representatives=2)) == {(a, b) for a in (0, 1) for b in range(a + 1, 9)}
    chosen = pairs(joined(clips, common=8, representatives=2, protected={5, 7}))
    assert chosen == {tuple(sorted((a, b))) for a in (5, 7) for b in range(9) if a != b}


def test_each_clip_keeps_its_best_partners_and_protected_ones_before_them():
    whole = random_codes(11, 400)
    clips = [whole[:length] for length in (400, 60, 100, 140, 180)]
    assert len(pairs(joined(clips))) == 10
    assert pairs(joined(clips, partners=1)) == {(0, 1), (0, 2), (0, 3), (0, 4)}
    assert pairs(joined(clips, partners=1, protected={1})) == {(0, 1), (1, 2), (1, 3), (1, 4)}


def test_of_many_offsets_the_best_are_kept_the_best_one_first():
    a = random_codes(12, 400)
    parts = [a[:200], random_codes(13, 50), a[:100], random_codes(14, 50), a[:60]]
    found = joined([a, np.concatenate(parts)], offsets=2)
    assert list(found) == [(0, 1, 0), (0, 1, -250)]


def test_a_loop_counts_no_more_often_than_the_bound():
    loop = np.tile(random_codes(15, 50), 40)
    few = joined([loop, random_codes(15, 50)], repeats=4, offsets=100)
    many = joined([loop, random_codes(15, 50)], repeats=100, offsets=100)
    assert len(few) < 8 and len(many) >= 39


def test_a_candidate_needs_as_many_votes_as_the_bound():
    whole = random_codes(16, 200)
    votes = joined([whole, whole[50:110]])[0, 1, 50]
    assert joined([whole, whole[50:110]], votes=votes) == {(0, 1, 50): votes}
    assert not joined([whole, whole[50:110]], votes=votes + 1)


@pytest.mark.parametrize("clips", [[], [np.empty(0, np.uint32)], [np.empty(0, np.uint32), random_codes(0, 1)]])
def test_nothing_to_join_is_no_error(clips):
    assert joined(clips) == {}


def test_clips_that_take_no_part_are_passed_over():
    codes = random_codes(17, 100)
    rows = [{"clip_id": c, "codes": codes.tobytes(), "flags": flags_of(codes).tobytes()} for c in ("a", "failed", "b")]
    table = pa.Table.from_pylist(rows, FINGERPRINTS)
    found = join([table], {"a": 0, "b": 1}, np.zeros(2, bool), np.ones(2, bool), JoinSettings())
    assert found[["a", "b", "offset"]].tolist() == [(0, 1, 0)]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.lists(st.integers(0, 4), max_size=30), max_size=6), st.sampled_from([0, 100, 1 << 30]))
def test_spilled_rows_come_back_by_partition_in_order(tmp_path_factory, chunks, limit):
    spill = Spill(POSTING, 5, limit, Storage(str(tmp_path_factory.mktemp("spill"))))
    expected: dict[int, list[int]] = {}
    number = 0
    for chunk in chunks:
        rows = np.zeros(len(chunk), POSTING)
        for row, partition in zip(rows, chunk, strict=True):
            row["position"] = number
            expected.setdefault(partition, []).append(number)
            number += 1
        spill.add(rows, np.array(chunk, np.int64))
    parts = [part.read(POSTING) if isinstance(part, Spilled) else part for part in spill.parts()]
    assert [part["position"].tolist() for part in parts] == [expected[k] for k in sorted(expected)]
