"""A small build for the loader's tests: plain tars and their manifest rows, written directly."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import soundfile

from sharding.common.storage import Storage
from sharding.schema import MANIFEST, sample_key
from sharding.shards.checksum import fast_checksum

RATE = 32000


@dataclass
class Build:
    table: pa.Table
    storage: Storage


def row(
    number: int,
    dataset: str = "clotho",
    split: str = "development",
    window: int = 0,
    windows: int = 1,
    **more: Any,
) -> dict[str, Any]:
    """A manifest row without audio, for tests of the order alone."""
    clip_id = f"{dataset}/{split}/clip {number}.x"
    captions = [
        {
            "text": f"Sound {number}, version {v}.",
            "kind": "human",
            "onset": None,
            "offset": None,
            "source": None,
        }
        for v in range(5 if dataset == "clotho" else 1)
    ]
    return {
        "key": sample_key(clip_id, window, windows),
        "clip_id": clip_id,
        "window": window,
        "windows": windows,
        "dataset": dataset,
        "split": split,
        "shard": f"{dataset}-{split}-{number // 100:06d}.tar",
        "index": number % 100,
        "audio": sample_key(clip_id, window, windows) + ".flac",
        "audio_offset": 0,
        "audio_bytes": 1,
        "audio_sha256": "",
        "audio_xxh3": None,
        "json_offset": 0,
        "json_bytes": 1,
        "json_sha256": "",
        "rate": RATE,
        "start_s": 300.0 * window,
        "duration_s": 5.0 + number % 37,
        "captions": captions,
        "group": clip_id,
        "kin": clip_id,
        "identity": None,
        "licence": None,
    } | more


def table_of(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=MANIFEST)


def write_build(root: Path, rows: list[dict[str, Any]], seed: int = 0, duration_s: float | None = None) -> Build:
    """Tars with noise of each row's duration (or of ``duration_s``), and the rows with true offsets."""
    draw = np.random.default_rng(seed)
    (root / "shards").mkdir(parents=True, exist_ok=True)
    by_shard: dict[str, list[dict[str, Any]]] = {}
    for one in rows:
        by_shard.setdefault(one["shard"], []).append(one)
    done = []
    for shard, members in by_shard.items():
        with tarfile.open(root / "shards" / shard, "w", format=tarfile.USTAR_FORMAT) as tar:
            for one in members:
                seconds = one["duration_s"] if duration_s is None else duration_s
                data = flac(0.1 * draw.standard_normal(round(seconds * RATE)))
                text = json.dumps({"clip_id": one["clip_id"], "captions": one["captions"]}).encode()
                done.append(one | {"duration_s": seconds} | _add(tar, one["audio"], data, "audio"))
                done[-1] |= {"audio_xxh3": fast_checksum(data)}
                done[-1] |= _add(tar, one["key"] + ".json", text, "json")
    return Build(table_of(done), Storage(root))


def flac(wave: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, wave, RATE, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes, member: str) -> dict[str, Any]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    offset = tar.offset + tarfile.BLOCKSIZE
    tar.addfile(info, io.BytesIO(data))
    return {
        f"{member}_offset": offset,
        f"{member}_bytes": len(data),
        f"{member}_sha256": hashlib.sha256(data).hexdigest(),
    }
