"""Shards are written from their tasks: what a task says is what the shard holds, or it is refused."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
from pathlib import Path

import pyarrow as pa
import pytest

from sharding.common.errors import InputError
from sharding.common.storage import Storage
from sharding.layout import shard_name, task_name, work_of
from sharding.schema import TASK
from sharding.shards.manifest import Manifest
from sharding.shards.write import write_shard


@pytest.fixture
def task(built: Path, tmp_path: Path) -> tuple[Storage, Storage, str, pa.Table]:
    """(OUT, packs, shard, TASK rows) of a shard that copies the first shard of a finished build."""
    manifest = Manifest.open(built)
    first = manifest.table.filter(pa.compute.equal(manifest.table["shard"], manifest.table["shard"][0]))
    samples = [
        row
        | {
            "pack": row["shard"],
            "pack_offset": row["audio_offset"],
            "pack_json_offset": row["json_offset"],
            "json": None,
        }
        for row in first.to_pylist()
    ]
    out, rows = Storage(tmp_path / "out"), pa.Table.from_pylist(samples, TASK)
    work_of(out).write_table(task_name("new.tar"), rows)
    packs = Storage(shutil.copytree(built / "shards", tmp_path / "packs"))
    return out, packs, first["shard"][0].as_py(), rows


def test_the_record_describes_the_shard_and_its_manifest(task: tuple[Storage, Storage, str, pa.Table]) -> None:
    out, packs, former, rows = task
    record = write_shard("new.tar", out, packs)
    contents = out.read(shard_name("new.tar"))
    assert contents == packs.read(former)
    assert (record["bytes"], record["sha256"]) == (len(contents), hashlib.sha256(contents).hexdigest())
    manifest = out.read("manifest/new.parquet")
    assert record["manifest_sha256"] == hashlib.sha256(manifest).hexdigest()
    assert record["samples"] == rows.num_rows
    with tarfile.open(out.local / shard_name("new.tar")) as archive:  # type: ignore[operator]
        assert len(archive.getnames()) == 2 * rows.num_rows


def test_a_pack_that_changed_is_refused_and_no_shard_appears(task: tuple[Storage, Storage, str, pa.Table]) -> None:
    out, packs, former, rows = task
    contents = bytearray(packs.read(former))
    contents[rows["audio_offset"][0].as_py() + 7] ^= 1
    packs.write(former, bytes(contents))
    with pytest.raises(InputError, match=str(rows["key"][0])):
        write_shard("new.tar", out, packs)
    assert out.list("shards") == []
    assert work_of(out).list("records") == []
