"""The stages: slices of equal work, and what a stage finds finished."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sharding.build.claim import claim
from sharding.build.stages import BATCH_CLIPS, BATCH_SECONDS, Stages, batches
from sharding.common.errors import InputError
from sharding.common.runners import LocalRunner
from sharding.common.storage import Storage
from sharding.layout import MATCHES
from sharding.schema import CATALOGUE, INPUTS
from tests.sharding.conftest import settings_for


def catalogue(durations: list[float | None]) -> pa.Table:
    rows = [
        {"clip_id": f"mine/train/{n}", "dataset": "mine", "split": "train", "published_duration_s": duration}
        for n, duration in enumerate(durations)
    ]
    return pa.Table.from_pylist(rows, CATALOGUE)


@settings(max_examples=60, deadline=None)
@given(durations=st.lists(st.none() | st.floats(0.0, 5000.0), max_size=300))
def test_batches_hold_every_clip_once_and_are_bounded(durations: list[float | None]) -> None:
    table = catalogue(durations)
    found = batches(table, INPUTS.empty_table(), 0)
    assert [clip for batch in found for clip in batch.clips["clip_id"].to_pylist()] == table["clip_id"].to_pylist()
    assert len({batch.name for batch in found}) == len(found)
    for batch in found:
        seconds = [10.0 if s is None else s for s in batch.clips["published_duration_s"].to_pylist()]
        assert 1 <= len(seconds) <= BATCH_CLIPS
        assert sum(seconds[:-1]) < BATCH_SECONDS


def test_batches_of_a_reopened_build_have_names_of_their_own() -> None:
    table = catalogue([1.0] * 3)
    assert [batch.name for batch in batches(table, INPUTS.empty_table(), 0)] == ["000000"]
    assert [batch.name for batch in batches(table, INPUTS.empty_table(), 2)] == ["again2-000000"]


def test_long_recordings_whose_length_no_table_tells_are_not_probed_by_one_worker() -> None:
    table = catalogue([None] * 100)
    inputs = [{"clip_id": f"mine/train/{n}", "changed": 0.0, "bytes": 10_000 if n else None} for n in range(98)]
    inputs += [{"clip_id": f"mine/train/{n}", "changed": 0.0, "bytes": 2_000_000_000} for n in (98, 99)]
    found = batches(table, pa.Table.from_pylist(inputs, INPUTS), 0)
    assert [batch.clips.num_rows for batch in found] == [64, 35, 1]


def test_an_interrupted_build_goes_on_with_the_catalogue_that_it_read(small: Path, tmp_path: Path) -> None:
    out, config = Storage(tmp_path / "out"), settings_for(small)
    with claim(out) as held:
        stages = Stages(config, out, LocalRunner(1), held)
        first = stages.catalogue()
        (small / "clips.csv").write_text("path,captions\nnew.flac,new\n")
        assert stages.catalogue().equals(first)
        assert stages.marker.datasets == ["mine"]


def test_matches_that_are_there_are_not_sought_again(small: Path, tmp_path: Path) -> None:
    out = Storage(tmp_path / "out")
    with claim(out) as held:
        stages = Stages(settings_for(small), out, LocalRunner(1), held)
        clips = stages.catalogue()
        facts = stages.probe(clips)
        found = stages.match(clips, facts)
        assert out.exists(MATCHES)
        for name in stages.work.list("packs"):
            stages.work.remove(name)
        assert stages.match(clips, facts).equals(found)


@pytest.mark.parametrize("fault", ["list", "protect"])
def test_settings_that_name_what_is_not_there_are_refused_before_any_work(
    fault: str, small: Path, tmp_path: Path
) -> None:
    from sharding.sources.protected import parse_protect

    config, out = settings_for(small), Storage(tmp_path / "out")
    if fault == "list":
        config = dataclasses.replace(config, exclude=(str(tmp_path / "absent.csv"),))
    else:
        fates = dataclasses.replace(config.fates, protect=parse_protect("mine/validation"))
        config = dataclasses.replace(config, fates=fates)
    with claim(out) as held, pytest.raises(InputError, match=r"absent\.csv|mine/validation"):
        Stages(config, out, LocalRunner(1), held).catalogue()
