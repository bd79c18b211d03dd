"""Pairs of clips that a report shows side by side."""

from __future__ import annotations

import copy
import dataclasses
from collections import defaultdict

import pytest

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


@pytest.mark.parametrize(
    ("offset_s", "starts"), [(2.5, {"held": 2.5, "leak": 0.0}), (-1.0, {"held": 0.0, "leak": 1.0})]
)
def test_both_players_start_where_the_shared_sound_starts(
    offset_s: float, starts: dict[str, float], contents: BuildContents
) -> None:
    pair = ("mine/test/held", "mine/train/leak")
    build = copy.copy(contents)
    relation = dataclasses.replace(contents.relations[pair], offset_s=offset_s)
    build.relations = contents.relations | {pair: relation}
    (leak,) = dropped_pairs(build, "withheld")
    assert f"shifted by {abs(offset_s):.2f} s" in leak.evidence
    assert leak.a == contents.view("mine/train/leak", starts["leak"])
    assert leak.b == contents.view("mine/test/held", starts["held"])


def test_a_pair_that_only_other_clips_connect_says_so(contents: BuildContents) -> None:
    build = copy.copy(contents)
    build.relations, build.methods = {}, defaultdict(set)
    (leak,) = dropped_pairs(build, "withheld")
    assert leak.evidence == "connected through other clips"
    assert leak_evidence(build) == [("shares_sound_with_protected", 1)]
