"""The clips that are compared: all of them are there, and their sound can be read, whichever build they belong to."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from sharding.build.clips import FinishedBuild, OldAndNewClips, OwnClips
from sharding.common.errors import InputError
from sharding.common.storage import Storage
from sharding.layout import work_of
from sharding.schema import CATALOGUE, FACTS, FINGERPRINTS
from tests.sharding.conftest import settings_for


@pytest.fixture
def both(built: Path, corpus: Path, tmp_path: Path) -> OldAndNewClips:
    """The clips of a finished build, and no new ones."""
    old = FinishedBuild.read(Storage(built), settings_for(corpus))
    return OldAndNewClips(old, OwnClips(Storage(tmp_path / "work")))


def test_tables_hold_old_and_new_clips(both: OldAndNewClips) -> None:
    new = pa.Table.from_pylist([{"clip_id": "new/train/x"}], CATALOGUE)
    catalogue, facts = both.tables(new.cast(both.old.catalogue.schema), FACTS.empty_table().cast(both.old.facts.schema))
    assert catalogue["clip_id"].to_pylist() == [*both.old.catalogue["clip_id"].to_pylist(), "new/train/x"]
    assert facts.num_rows == both.old.facts.num_rows
    matches, compared = both.known()
    assert matches is both.old.matches
    assert compared == set(both.old.catalogue["clip_id"].to_pylist())


def test_the_sound_of_old_clips_is_read_from_shards_and_packs_also_in_another_process(both: OldAndNewClips) -> None:
    wave = pickle.loads(pickle.dumps(both.wave()))
    written, duplicate = wave("mine/train/a0", 0.5, 1.0), wave("mine/train/copy", 0.5, 1.0)
    assert len(written) == len(duplicate) == 8000
    assert np.corrcoef(written, duplicate)[0, 1] > 0.99  # the same sound at another level
    ids = {clip for table in both.fingerprints() for clip in table["clip_id"].to_pylist()}
    assert {"mine/train/a0", "mine/train/copy"} <= ids


def test_fingerprints_that_do_not_fit_together_are_named(built: Path, tmp_path: Path) -> None:
    out = Storage(shutil.copytree(built, tmp_path / "copy"))
    row = {"clip_id": "x/y/z", "codes": b"\0" * 8, "flags": b"\0" * 3}
    work_of(out).write_table("fingerprints/000000.parquet", pa.Table.from_pylist([row], FINGERPRINTS))
    with pytest.raises(InputError, match=r"000000\.parquet: not one code for each flag"):
        list(OwnClips(work_of(out)).fingerprints())
