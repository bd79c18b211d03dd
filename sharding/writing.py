"""One shard from its plan: bytes are copied, nothing is decoded."""

from __future__ import annotations

import hashlib
import json
from pathlib import PurePosixPath
from typing import Any, BinaryIO

from sharding.errors import InputError
from sharding.schema import MANIFEST
from sharding.storage import Storage
from sharding.tar import END, header, padding


class _Counted:
    """Writes on, and knows the position and the checksum."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.position, self._digest = file, 0, hashlib.sha256()

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self.position += len(data)

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()


def manifest_name(shard: str) -> str:
    """The manifest's file of a shard, below OUT."""
    return f"manifest/{PurePosixPath(shard).stem}.parquet"


def task_name(shard: str) -> str:
    """The file below OUT/.build with the rows of a shard that is to be written."""
    return f"tasks/{PurePosixPath(shard).stem}.parquet"


def record_name(shard: str) -> str:
    """The file below OUT/.build that says that a shard is finished."""
    return f"records/{PurePosixPath(shard).stem}.json"


def write_shard(shard: str, out: Storage, packs: Storage | None = None) -> dict[str, Any]:
    """Write a shard and its manifest from its task and the packs, and then the record that commits both.

    Args:
        shard: its file name.
        out: the storage of OUT.
        packs: where the packs lie; None: below ``OUT/.build/packs``.

    Returns:
        the record: ``name, bytes, sha256, samples`` and the manifest's ``bytes`` and ``sha256``.

    Raises:
        InputError: a pack disagrees with the plan.
    """
    build = out.child(".build")
    packs = packs or build.child("packs")
    rows = build.read_table(task_name(shard))
    with out.writer(f"shards/{shard}") as file:
        tar = _Counted(file)
        for row in rows.to_pylist():
            _write_sample(tar, row, packs)
        tar.write(END)
    manifest = manifest_name(shard)
    out.write_table(manifest, rows.select(MANIFEST.names))
    contents = out.read(manifest)
    record = {
        "name": shard,
        "bytes": tar.position,
        "sha256": tar.sha256,
        "samples": rows.num_rows,
        "manifest_bytes": len(contents),
        "manifest_sha256": hashlib.sha256(contents).hexdigest(),
    }
    build.write(record_name(shard), json.dumps(record).encode())
    return record


def _write_sample(tar: _Counted, row: dict[str, Any], packs: Storage) -> None:
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


def _checked(packs: Storage, row: dict[str, Any], member: str, offset: int) -> bytes:
    data = packs.read(row["pack"], offset, row[f"{member}_bytes"])
    if hashlib.sha256(data).hexdigest() != row[f"{member}_sha256"]:
        raise InputError(
            f"does not hold what the plan says of {row['key']}",
            file=packs.name(row["pack"]),
            remedy="the disk damaged it, or somebody changed it: remove what is built here and build again",
        )
    return data
