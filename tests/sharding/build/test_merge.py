"""Which old clips a build of all datasets would treat differently."""

from __future__ import annotations

import pyarrow as pa

from sharding.build.merge import differing
from sharding.schema import DIFFERENCES, FATES


def fates(*rows: tuple[str, str, str, str | None]) -> pa.Table:
    return pa.Table.from_pylist(
        [dict(zip(("clip_id", "fate", "reason", "other"), row, strict=True)) | {"keys": []} for row in rows], FATES
    )


OLD = fates(("a", "written", "kept", None), ("b", "written", "trimmed", "p"), ("c", "duplicate", "same_interval", "a"))


def test_without_a_change_there_is_no_difference() -> None:
    found = differing(
        OLD, fates(*[tuple(row.values())[:4] for row in OLD.to_pylist()], ("new", "written", "kept", None))
    )
    assert found.num_rows == 0
    assert found.schema == DIFFERENCES


def test_another_fate_reason_or_keeper_is_a_difference() -> None:
    anew = fates(
        ("a", "withheld", "shares_sound_with_protected", "q"),
        ("b", "written", "kept", None),
        ("c", "duplicate", "same_interval", "d"),
    )
    found = {row["clip_id"]: (row["anew_fate"], row["anew_reason"], row["anew_other"]) for row in
             differing(OLD, anew).to_pylist()}  # fmt: skip
    assert found == {
        "a": ("withheld", "shares_sound_with_protected", "q"),
        "b": ("written", "kept", None),
        "c": ("duplicate", "same_interval", "d"),
    }


def test_a_trimmed_clip_of_which_another_stretch_would_be_left_is_a_difference() -> None:
    assert differing(OLD, OLD, {"a", "b"})["clip_id"].to_pylist() == ["b"]
