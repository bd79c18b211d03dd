"""Writes shards from their tasks; bytes are copied, nothing is decoded."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, BinaryIO, TypedDict

import pyarrow as pa

from sharding.checks import check_table, conform
from sharding.common.errors import InputError
from sharding.common.progress import Progress
from sharding.common.storage import Storage
from sharding.dedup.candidates import Spread
from sharding.layout import Work, manifest_name, plan_name, record_name, shard_name, task_name, work_of
from sharding.schema import MANIFEST, TASK
from sharding.shards.checksum import fast_checksum
from sharding.shards.manifest import ShardRecord
from sharding.shards.plan import PLAN, plan_hash, shard_hash
from sharding.shards.tar import END, header, padding


class _HashedFile:
    """A file that knows its position and the SHA-256 of what was written to it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.position, self._digest = file, 0, hashlib.sha256()

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self.position += len(data)

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()


class StoredPlan(TypedDict):
    """``OUT/.build/plan.json``: the plan is complete."""

    shards: list[str]  # file names, sorted
    hash: str


def store_plan(plan: Iterable[tuple[str, pa.Table]], out: Storage) -> tuple[StoredPlan, list[pa.Table]]:
    """Write the task of each shard, and its part of the plan.

    Args:
        plan: (shard name, TASK rows) of every shard.
        out: the storage of OUT.

    Returns:
        the plan's shards and hash; and of each shard a table of ``clip_id`` and ``key``.
    """
    digests: dict[str, str] = {}
    samples = []
    for shard, rows in plan:
        work_of(out).write_table(task_name(shard), rows)
        out.write_table(plan_name(shard), rows.select(PLAN))
        digests[shard] = shard_hash(rows)
        samples.append(rows.select(["clip_id", "key"]))
    return {"shards": sorted(digests), "hash": plan_hash(digests)}, samples


def write_shards(
    shards: Sequence[str], out: Storage, spread: Spread, begin: Callable[..., Progress], packs: Storage | None = None
) -> list[ShardRecord]:
    """Write the shards that have no record yet; returns the records of all.

    Args:
        shards: their file names.
        out, packs: see ``write_shard``.
        spread: ``spread(function, items)`` gives results in any order.
        begin: ``begin(what, total, unit, done)`` begins to show progress.
    """
    work = work_of(out)
    have = set(work.list(Work.RECORDS))
    todo = [shard for shard in shards if record_name(shard) not in have]
    progress = begin("write", len(shards), "shards", done=len(shards) - len(todo))
    for _ in spread(functools.partial(write_shard, out=out, packs=packs), todo):
        progress.add(1)
    progress.finish()
    names = [record_name(shard) for shard in shards]
    return [conform(work.read_json(name), ShardRecord, work.name(name)) for name in names]


def write_shard(shard: str, out: Storage, packs: Storage | None = None) -> ShardRecord:
    """Write a shard and its manifest from its task and the packs, and last its record, which says that both are there.

    Args:
        shard: its file name.
        out: the storage of OUT.
        packs: where the packs lie; None: below ``OUT/.build/packs``.

    Returns:
        the record.

    Raises:
        InputError: a pack disagrees with the plan.
    """
    build = work_of(out)
    packs = packs or build.child(Work.PACKS)
    rows = check_table(build.read_table(task_name(shard)), TASK, build.name(task_name(shard)))
    with out.writer(shard_name(shard)) as file:
        tar = _HashedFile(file)
        checksums = [_write_sample(tar, row, packs) for row in rows.to_pylist()]
        tar.write(END)
    manifest = manifest_name(shard)
    out.write_table(manifest, _with_checksums(rows, checksums))
    contents = out.read(manifest)
    record: ShardRecord = {
        "name": shard,
        "bytes": tar.position,
        "sha256": tar.sha256,
        "samples": rows.num_rows,
        "manifest_bytes": len(contents),
        "manifest_sha256": hashlib.sha256(contents).hexdigest(),
    }
    build.write(record_name(shard), json.dumps(record).encode())
    return record


def _with_checksums(rows: pa.Table, checksums: list[int]) -> pa.Table:
    """The MANIFEST of TASK rows, with the fast checksums of their sound."""
    index = MANIFEST.get_field_index("audio_xxh3")
    rest = rows.select([name for name in MANIFEST.names if name != "audio_xxh3"])
    return rest.add_column(index, MANIFEST.field(index), pa.array(checksums, pa.uint64()))


def _write_sample(tar: _HashedFile, row: dict[str, Any], packs: Storage) -> int:
    """Write a sample's sound and JSON, and return the fast checksum of the sound."""
    sound = _checked(packs, row, "audio", row["pack_offset"])
    text = row["json"] if row["json"] is not None else _checked(packs, row, "json", row["pack_json_offset"])
    for name, data, offset in (
        (row["audio"], sound, row["audio_offset"]),
        (f"{row['key']}.json", text, row["json_offset"]),
    ):
        tar.write(header(name, len(data)))
        assert tar.position == offset, (row["key"], tar.position, offset)
        tar.write(data)
        tar.write(padding(len(data)))
    return fast_checksum(sound)


def _checked(packs: Storage, row: dict[str, Any], member: str, offset: int) -> bytes:
    data = packs.read(row["pack"], offset, row[f"{member}_bytes"])
    if hashlib.sha256(data).hexdigest() != row[f"{member}_sha256"]:
        raise InputError(
            f"does not hold what the plan says of {row['key']}",
            file=packs.name(row["pack"]),
            remedy="the disk damaged it, or somebody changed it: remove what is built here and build again",
        )
    return data
