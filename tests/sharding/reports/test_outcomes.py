"""The fates that a report counts."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import pyarrow.compute as pc

from sharding.build.append import append
from sharding.common.runners import LocalRunner
from sharding.fates.decide import REASONS
from sharding.reports.contents import BuildContents
from sharding.reports.outcomes import TrimmedClip, differences, drop_reasons, fate_counts, split_outcomes, trimmed_clips
from sharding.shards.manifest import Manifest


def test_every_clip_has_one_fate(contents: BuildContents) -> None:
    counts = fate_counts(contents)
    assert counts == {"written": 3, "duplicate": 1, "withheld": 1, "filtered": 0, "failed": 1}
    splits = split_outcomes(contents)
    assert [(one.name, one.total, one.protected) for one in splits] == [
        ("mine/test", 1, True),
        ("mine/train", 5, False),
    ]
    assert splits[1].fates == [("written", 2), ("duplicate", 1), ("withheld", 1), ("failed", 1)]


def test_every_reason_comes_with_its_meaning_and_an_example(contents: BuildContents) -> None:
    reasons = {one.reason: one for one in drop_reasons(contents)}
    assert set(reasons) == {"same_interval", "shares_sound_with_protected", "not_audio"}
    assert [one.fate for one in reasons.values()] == ["duplicate", "withheld", "failed"]
    assert all(one.sentence == REASONS[one.reason] and one.count == 1 for one in reasons.values())
    failed = reasons["not_audio"]
    assert failed.example == "mine/train/page" and "begins with" in (failed.detail or "")
    assert reasons["same_interval"].detail is None


def test_nothing_is_trimmed_and_nothing_differs_where_neither_was_asked_for(contents: BuildContents) -> None:
    assert trimmed_clips(contents) == [] and differences(contents) is None


def test_an_appended_build_lists_old_clips_that_a_new_build_would_treat_differently(
    reported: Path, tmp_path: Path
) -> None:
    out, more = tmp_path / "out", tmp_path / "more"
    shutil.copytree(reported, out)
    more.mkdir()
    shutil.copy(reported.parent / "mine/two.wav", more / "two.wav")
    (more / "clips.csv").write_text("path,split,captions\ntwo.wav,test,Rain and a dog.\n")
    append(str(out), {}, {"more": str(more)}, LocalRunner(1))
    found = differences(BuildContents(Manifest.open(out)))
    assert found is not None and found.count == len(found.examples)


def test_a_trimmed_clip_is_listed_with_the_times_that_were_written(contents: BuildContents) -> None:
    build = copy.copy(contents)
    is_two = pc.equal(contents.fates["clip_id"], "mine/train/two")
    fates = contents.fates
    for name, value in (("reason", "trimmed"), ("other", "mine/test/held")):
        fates = fates.set_column(fates.column_names.index(name), name, pc.if_else(is_two, value, fates[name]))
    build.fates = fates
    start = contents.samples.column_names.index("start_s")
    build.samples = contents.samples.set_column(start, "start_s", pc.add(contents.samples["start_s"], 1.5))
    assert trimmed_clips(build) == [TrimmedClip("mine/train/two", "mine/test/held", "1.50 to 7.50 s")]
