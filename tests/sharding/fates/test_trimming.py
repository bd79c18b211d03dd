"""What is left of a training clip that holds protected sound."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sharding.common.errors import InputError
from sharding.dedup.identity import identity_matches
from sharding.dedup.spans import LEAST_S, MARGIN_S
from sharding.fates.decide import FateSettings, decide, trimmed_parts
from sharding.fates.trimming import captions_within, cut_windows, extent
from sharding.schema import CATALOGUE, FACTS, MATCHES

TRAIN, EVALUATION, VALIDATION = "wavcaps/train/t", "clotho/evaluation/e", "clotho/validation/v"


def decided(matches: list[dict[str, Any]], captions: list[dict[str, Any]], **policy: Any) -> tuple[dict, dict]:
    durations = {TRAIN: 60.0, EVALUATION: 10.0, VALIDATION: 20.0}
    clips = [
        {"clip_id": c, "dataset": c.split("/")[0], "split": c.split("/")[1], "captions": captions} for c in durations
    ]
    windows = [{"window": k, "start_s": 20.0 * k, "duration_s": 20.0} for k in range(3)]
    facts = [{"clip_id": c, "duration_s": d, "windows": windows} for c, d in durations.items()]
    tables = [
        pa.Table.from_pylist(rows, schema) for rows, schema in ((clips, CATALOGUE), (facts, FACTS), (matches, MATCHES))
    ]
    rule = FateSettings(leaks="trim", **policy)
    rows = {row["clip_id"]: row for row in decide(*tables, settings=rule).to_pylist()}
    return rows, trimmed_parts(*tables, rule)


def occurrence(other: str, at: float | None, method: str = "waveform", outcome: str = "same") -> dict[str, Any]:
    """``other`` begins at ``at`` seconds of TRAIN; the protected names sort first."""
    return {"a": other, "b": TRAIN, "method": method, "offset_s": None if at is None else -at, "outcome": outcome,
            "overlap_s": 3.0, "score": 1.0}  # fmt: skip


CAPTION = [{"text": "x", "kind": "human", "onset": None, "offset": None, "source": None}]


@settings(max_examples=80, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([EVALUATION, VALIDATION]),
            st.floats(-25, 62),
            st.sampled_from(["waveform", "pcm"]),
            st.sampled_from(["same", "same", "undecided", "different"]),
        ),
        max_size=6,
    )
)
def test_no_second_that_is_written_overlaps_a_protected_clip(rows: list[tuple[str, float, str, str]]) -> None:
    matches = [occurrence(*row) for row in rows]
    rows_of, left = decided(matches, CAPTION)
    same = [(at, at + (10.0 if other == EVALUATION else 20.0)) for other, at, _, result in rows if result == "same"]
    if not same:
        assert rows_of[TRAIN]["reason"] == "kept"
    elif rows_of[TRAIN]["fate"] == "written":
        assert rows_of[TRAIN]["reason"] == "trimmed" and rows_of[TRAIN]["other"] in (EVALUATION, VALIDATION)
        for part in left[TRAIN]:
            for start, end in same:
                assert (
                    part.start_s + part.duration_s <= start - 0.99 * MARGIN_S or part.start_s >= end + 0.99 * MARGIN_S
                )
        start, end = extent([part[1:3] for part in left[TRAIN]])
        assert end - start > LEAST_S - 2.0
    else:
        assert rows_of[TRAIN]["fate"] == "withheld"
    assert decided(list(reversed(matches)), CAPTION) == (rows_of, left)


def test_an_unknown_part_of_a_protected_original_cannot_be_cut_away() -> None:
    rows = [occurrence(EVALUATION, 5.0), occurrence(VALIDATION, None, "identity", "undecided")]
    assert decided(rows, CAPTION)[0][TRAIN]["fate"] == "withheld"
    kept, left = decided(rows, CAPTION, withhold_unknown_part=False)
    assert kept[TRAIN]["reason"] == "trimmed" and left[TRAIN][0].start_s == 16.0


def test_captions_with_times_are_cut_and_a_stretch_without_any_is_withheld() -> None:
    early = [CAPTION[0] | {"text": "a dog", "onset": 1.0, "offset": 4.0}]
    assert decided([occurrence(VALIDATION, 0.0)], early)[0][TRAIN]["fate"] == "withheld"
    captions = [*early, *CAPTION, CAPTION[0] | {"text": "rain", "onset": 15.0, "offset": 50.0}]
    assert decided([occurrence(VALIDATION, 0.0)], captions)[0][TRAIN]["reason"] == "trimmed"
    cut = captions_within(captions, 21.0, 40.0)
    assert [(c["text"], c.get("onset"), c.get("offset")) for c in cut] == [("x", None, None), ("rain", 21.0, 40.0)]


def test_a_span_that_only_ids_show_is_cut_away() -> None:
    def clip(clip_id: str, start: float, end: float | None) -> dict[str, Any]:
        dataset, split, _ = clip_id.split("/")
        return {"clip_id": clip_id, "dataset": dataset, "split": split, "captions": CAPTION,
                "identity": "freesound:7", "interval": {"start": start, "end": end}}  # fmt: skip

    catalogue = pa.Table.from_pylist([clip(TRAIN, 100.0, 160.0), clip(EVALUATION, 150.0, None)], CATALOGUE)
    window = {"window": 0, "start_s": 0.0, "duration_s": 60.0}
    facts = pa.Table.from_pylist(
        [{"clip_id": TRAIN, "duration_s": 60.0, "windows": [window]}, {"clip_id": EVALUATION, "error": "missing"}],
        FACTS,
    )
    evidence = catalogue, facts, identity_matches(catalogue)
    rule = FateSettings(leaks="trim")
    row = {row["clip_id"]: row for row in decide(*evidence, settings=rule).to_pylist()}[TRAIN]
    assert (row["fate"], row["reason"], row["other"]) == ("written", "trimmed", EVALUATION)
    assert [part[:3] for part in trimmed_parts(*evidence, rule)[TRAIN]] == [(0, 0.0, 49.0)]


def test_windows_that_the_stretch_only_touches_are_left_out() -> None:
    windows = [{"window": k, "start_s": 10.0 * k, "duration_s": 10.0} for k in range(3)]
    assert [part[0] for part in cut_windows(windows, (9.5, 20.5))] == [1]


def test_an_unknown_treatment_of_leaks_is_refused() -> None:
    with pytest.raises(InputError, match="withhold"):
        FateSettings(leaks="ignore")
