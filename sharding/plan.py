"""Which sample goes into which shard at which place: a pure function of tables and settings.

All sizes are known once the probe is through, so the plan knows every byte's place before any shard is
written; a shard's task is its manifest, with the JSON itself and the place of the sound in the packs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sharding.errors import InputError
from sharding.fates import merged_captions
from sharding.schema import MANIFEST, sample_key, stable_id
from sharding.tar import END, header, padding

# What makes a plan this plan, and is its hash
PLAN = ("key", "clip_id", "window", "shard", "index", "audio_sha256", "json_sha256")
# A shard's rows while it is to be written: its manifest, its JSON, and where the packs hold its sound
TASK = pa.schema([*MANIFEST, ("json", pa.binary()), ("pack", pa.string()), ("pack_offset", pa.int64())])


@dataclass(frozen=True)
class PlanSettings:
    """How samples are laid out.

    Attributes:
        shard_bytes: a shard is closed before it would grow beyond this; one larger sample is a shard of its own.
        rate: samples a second of sound that the probe encoded.
    """

    shard_bytes: int = 1_000_000_000
    rate: int = 32000

    def __post_init__(self) -> None:
        if self.shard_bytes < 1:
            raise InputError("shards need some room", value=self.shard_bytes, remedy="e.g. --shard-bytes 1e9")


def make_plan(
    catalogue: pa.Table, facts: pa.Table, fates: pa.Table, settings: PlanSettings
) -> Iterator[tuple[str, pa.Table]]:
    """(shard name, TASK rows in their order) of every shard, family after family.

    A family is a dataset and split.  Inside it clips stand in the order of a hash of their clip_id, so that any
    run of neighbours is a fair sample; a clip's windows stay together.
    """
    clips = {row["clip_id"]: row for row in catalogue.to_pylist()}
    known = {row["clip_id"]: row for row in facts.filter(pc.is_null(facts["error"])).to_pylist()}
    captions = merged_captions(catalogue, fates)
    families: dict[str, list[dict[str, Any]]] = {}
    for fate in fates.filter(pc.equal(fates["fate"], "written")).to_pylist():
        clip = clips[fate["clip_id"]]
        families.setdefault(f"{clip['dataset']}-{clip['split']}", []).append(fate)
    for family, members in sorted(families.items()):
        members.sort(key=lambda fate: (stable_id(fate["clip_id"]), fate["clip_id"]))
        samples = (
            sample
            for fate in members
            for sample in _samples(clips[fate["clip_id"]], known[fate["clip_id"]], fate, captions, settings.rate)
        )
        yield from _shards(_file_name(family), samples, settings)


def sample_json(
    clip: Mapping[str, Any],
    fact: Mapping[str, Any],
    fate: Mapping[str, Any],
    window: Mapping[str, Any],
    captions: list[dict[str, Any]],
) -> bytes:
    """The JSON beside a sample's sound: all that the tables know about it, sorted, UTF-8."""
    about = {
        "clip_id": clip["clip_id"],
        "window": window["window"],
        "windows": len(fact["windows"]),
        "start_s": window["start_s"],
        "duration_s": window["duration_s"],
        "captions": captions,
        "identity": clip["identity"],
        "interval": clip["interval"],
        "licence": clip["licence"],
        "uploader": clip["uploader"],
        "title": clip["title"],
        "keywords": clip["keywords"],
        "group": fate["group"],
        "kin": fate["kin"],
        "source": {
            "path": clip["path"],
            "sha256": fact["source_sha256"],
            "codec": fact["codec"],
            "rate": fact["source_rate"],
            "channels": fact["source_channels"],
            "duration_s": fact["duration_s"],
        },
    }
    return json.dumps(about, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def plan_hash(plan: Mapping[str, pa.Table]) -> str:
    """SHA-256 that names a plan: every sample's key, place and contents."""
    digest = hashlib.sha256()
    for shard, rows in sorted(plan.items()):
        digest.update(f"{shard}\n".encode())
        for row in rows.select(["key", "audio_sha256", "json_sha256"]).to_pylist():
            digest.update(f"{row['key']} {row['audio_sha256']} {row['json_sha256']}\n".encode())
    return digest.hexdigest()


def _file_name(family: str) -> str:
    """A family as part of a file's name: what a file system may stumble over is spelled as in keys."""
    return sample_key(family).replace("~", "_")


def _samples(
    clip: dict[str, Any],
    fact: dict[str, Any],
    fate: dict[str, Any],
    captions: dict[str, list[dict[str, Any]]],
    rate: int,
) -> Iterator[dict[str, Any]]:
    for window in fact["windows"]:
        text = sample_json(clip, fact, fate, window, captions[clip["clip_id"]])
        key = sample_key(clip["clip_id"], window["window"], len(fact["windows"]))
        yield {
            "key": key,
            "clip_id": clip["clip_id"],
            "window": window["window"],
            "windows": len(fact["windows"]),
            "dataset": clip["dataset"],
            "split": clip["split"],
            "audio": f"{key}.{fact['ext']}",
            "audio_bytes": window["bytes"],
            "audio_sha256": window["sha256"],
            "json_bytes": len(text),
            "json_sha256": hashlib.sha256(text).hexdigest(),
            "rate": fact["source_rate"] if fact["copied"] else rate,
            "start_s": window["start_s"],
            "duration_s": window["duration_s"],
            "captions": captions[clip["clip_id"]],
            "group": fate["group"],
            "kin": fate["kin"],
            "identity": clip["identity"],
            "licence": clip["licence"],
            "json": text,
            "pack": window["pack"],
            "pack_offset": window["offset"],
        }


def _shards(family: str, samples: Iterator[dict[str, Any]], settings: PlanSettings) -> Iterator[tuple[str, pa.Table]]:
    number, position = 0, 0
    rows: list[dict[str, Any]] = []

    def close() -> tuple[str, pa.Table]:
        return rows[0]["shard"], pa.Table.from_pylist(rows, TASK)

    for row in samples:
        sound = len(header(row["audio"], row["audio_bytes"]))
        text = len(header(f"{row['key']}.json", row["json_bytes"]))
        size = sound + row["audio_bytes"] + len(padding(row["audio_bytes"]))
        size += text + row["json_bytes"] + len(padding(row["json_bytes"]))
        if rows and position + size + len(END) > settings.shard_bytes:
            yield close()
            number, position, rows = number + 1, 0, []
        after_sound = position + sound + row["audio_bytes"] + len(padding(row["audio_bytes"]))
        row |= {
            "shard": f"{family}-{number:06d}.tar",
            "index": len(rows),
            "audio_offset": position + sound,
            "json_offset": after_sound + text,
        }
        rows.append(row)
        position += size
    if rows:
        yield close()
