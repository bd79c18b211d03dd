"""The checksum that training compares."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharding.build.append import append
from sharding.build.reshard import reshard
from sharding.checks import checksummed_bytes
from sharding.common.errors import InputError
from sharding.common.runners import LocalRunner
from sharding.common.storage import Storage
from sharding.layout import DATASET, manifest_name, shard_name
from sharding.rows import ManifestRow, rows
from sharding.schema import FORMAT_VERSION
from sharding.shards.checksum import fast_checksum, is_changed
from sharding.shards.integrity import verify
from sharding.shards.manifest import Manifest
from tests.sharding.corpora import write_extra


def test_it_is_xxh3_as_published() -> None:
    # test vectors of the xxHash project: the empty input with seed 0
    assert fast_checksum(b"") == 0x2D06800538D394C2


@given(data=st.binary(min_size=1, max_size=2000), at=st.integers(0), bit=st.integers(0, 7))
def test_any_changed_bit_is_found_by_either_checksum(data: bytes, at: int, bit: int) -> None:
    other = bytearray(data)
    other[at % len(data)] ^= 1 << bit
    sha256 = hashlib.sha256(data).hexdigest()
    for xxh3 in (fast_checksum(data), None):
        assert not is_changed(data, xxh3, sha256)
        assert is_changed(bytes(other), xxh3, sha256)


def test_a_sample_without_a_checksum_is_never_called_changed() -> None:
    assert not is_changed(b"anything", None, "")


def assert_checksums(url: Path, *, without: int = 0) -> None:
    """Every sample but ``without`` has the checksum of its sound."""
    manifest = Manifest.open(url)
    assert manifest.table["audio_xxh3"].null_count == without
    for row in rows(manifest.table, ManifestRow):
        data = manifest.storage.read(shard_name(row.shard), row.audio_offset, row.audio_bytes)
        assert row.audio_xxh3 in (None, fast_checksum(data)), row.key


@pytest.fixture
def former(built: Path, tmp_path: Path) -> Path:
    """The build as format 1 had it: its manifests have no such column."""
    out = tmp_path / "former"
    shutil.copytree(built, out)
    storage = Storage(out)
    dataset = json.loads(storage.read(DATASET))
    for shard in dataset["shards"]:
        name = manifest_name(shard["name"])
        storage.write_table(name, storage.read_table(name).drop_columns(["audio_xxh3"]))
        contents = storage.read(name)
        shard |= {"manifest_bytes": len(contents), "manifest_sha256": hashlib.sha256(contents).hexdigest()}
    storage.write(DATASET, checksummed_bytes(dataset | {"format": 1}))
    return out


def test_builds_and_their_copies_have_the_checksum_of_every_sample(built: Path, tmp_path: Path) -> None:
    assert_checksums(built)
    reshard(str(built), str(tmp_path / "copy"), 10**6, LocalRunner(1))
    assert_checksums(tmp_path / "copy")


def test_a_build_of_format_1_is_read_and_a_copy_of_it_has_checksums(former: Path, tmp_path: Path) -> None:
    samples = Manifest.open(former).table.num_rows
    assert_checksums(former, without=samples)
    assert verify(str(former), "full", LocalRunner(1)) == []
    reshard(str(former), str(tmp_path / "copy"), 10**6, LocalRunner(1))
    assert_checksums(tmp_path / "copy")


def test_samples_that_are_appended_to_a_build_of_format_1_have_checksums(former: Path, tmp_path: Path) -> None:
    old = Manifest.open(former).table
    append(str(former), {}, {"extra": str(write_extra(tmp_path / "extra"))}, LocalRunner(1))
    both = Manifest.open(former)
    assert both.dataset["format"] == FORMAT_VERSION
    assert both.table.num_rows > old.num_rows
    assert_checksums(former, without=pc.sum(pc.is_in(both.table["key"], old["key"].combine_chunks())).as_py())
    assert verify(str(former), "full", LocalRunner(1)) == []


def test_a_format_that_nobody_knows_is_refused(former: Path) -> None:
    storage = Storage(former)
    storage.write(DATASET, checksummed_bytes(json.loads(storage.read(DATASET)) | {"format": 99}))
    with pytest.raises(InputError, match="format 99, and this version of Earshot reads 1 and 2"):
        Manifest.open(former)
