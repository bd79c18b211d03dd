"""Pairs of clips that a report shows side by side."""

from __future__ import annotations

from sharding.reports.contents import BuildContents
from sharding.reports.pairs import dropped_pairs, leak_evidence, undecided_pairs


def test_a_dropped_clip_is_on_the_left_and_the_kept_one_on_the_right(contents: BuildContents) -> None:
    (duplicate,) = dropped_pairs(contents, "duplicate")
    assert {duplicate.a.clip_id, duplicate.b.clip_id} == {"mine/train/copy", "mine/train/one"}
    (leak,) = dropped_pairs(contents, "withheld")
    assert (leak.label, leak.a.clip_id, leak.b.clip_id) == ("withheld", "mine/train/leak", "mine/test/held")
    assert leak.a.sound is not None and leak.b.sound is not None


def test_the_evidence_is_in_words(contents: BuildContents) -> None:
    (leak,) = dropped_pairs(contents, "withheld")
    assert "identical files" in leak.evidence and "6.0 s in common, shifted by 0.00 s" in leak.evidence
    assert ("identical files", 1) in leak_evidence(contents)


def test_no_pair_is_undecided_where_all_sounds_differ_or_are_the_same(contents: BuildContents) -> None:
    assert undecided_pairs(contents) == (0, [])
