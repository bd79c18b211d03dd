"""Which sample goes into which shard at which place: a pure function of tables and settings.

All sizes are known once the probe is through, so the plan knows every byte's place before any shard is
written; a shard's task is its manifest, with the JSON itself and the place of the sound in the packs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sharding.common.errors import InputError
from sharding.fates.captions import MergedCaptions
from sharding.fates.trimming import extent, told_in
from sharding.schema import FATES, MANIFEST, sample_key, stable_id
from sharding.shards.tar import END, header_size, padded

# What makes a plan this plan, and is its hash
PLAN = ("key", "clip_id", "window", "shard", "index", "audio_sha256", "json_sha256")
# A shard's rows while it is to be written: its manifest, its JSON (null: it is copied), and where both are found
TASK = pa.schema(
    [
        *MANIFEST,
        ("json", pa.binary()),
        ("pack", pa.string()),
        ("pack_offset", pa.int64()),
        ("pack_json_offset", pa.int64()),
    ]
)
_JSON = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"))
_CHUNK = 8192  # clips that are Python objects at once
_OF_CLIP = ["clip_id", "dataset", "split", "path", "captions", "identity", "interval", "licence", "uploader", "title",
            "keywords"]  # fmt: skip
_OF_FACT = ["clip_id", "ext", "copied", "windows", "source_sha256", "codec", "source_rate", "source_channels",
            "duration_s"]  # fmt: skip
_OF_FATE = ["clip_id", "reason", "other", "group", "kin"]


@dataclass(frozen=True)
class PlanSettings:
    """How samples are laid out.

    Attributes:
        shard_bytes: a shard is closed before it would grow beyond this; one larger sample is a shard of its own.
    """

    shard_bytes: int = 1_000_000_000

    def __post_init__(self) -> None:
        if self.shard_bytes < 1:
            raise InputError("shards need some room", value=self.shard_bytes, remedy="e.g. --shard-size 1GB")


def make_plan(
    catalogue: pa.Table, facts: pa.Table, fates: pa.Table, matches: pa.Table, settings: PlanSettings, rate: int
) -> Iterator[tuple[str, pa.Table]]:
    """(shard name, TASK rows in their order) of every shard, family after family.

    The windows of ``facts`` are what is written.  A family is a dataset and split.  Inside it clips stand in the
    order of a hash of their clip_id, so that any run of neighbours is a fair sample; a clip's windows stay together.
    ``matches`` tell where the sound of a clip that yielded to another lies in that.  What was encoded, not copied, has
    ``rate`` samples a second.
    """
    catalogue, facts = catalogue.select(_OF_CLIP).combine_chunks(), facts.select(_OF_FACT).combine_chunks()
    row_of = {clip_id: row for row, clip_id in enumerate(catalogue["clip_id"].to_pylist())}
    fact_of = {clip_id: row for row, clip_id in enumerate(facts["clip_id"].to_pylist())}
    captions = MergedCaptions(catalogue, facts, fates, matches)
    written = fates.filter(pc.equal(fates["fate"], "written")).select(_OF_FATE).combine_chunks()
    datasets, splits = catalogue["dataset"].to_pylist(), catalogue["split"].to_pylist()
    families: dict[str, list[tuple[int, str, int]]] = {}
    for row, clip_id in enumerate(written["clip_id"].to_pylist()):
        place = row_of[clip_id]
        families.setdefault(f"{datasets[place]}-{splits[place]}", []).append((stable_id(clip_id), clip_id, row))

    def samples(members: list[tuple[int, str, int]]) -> Iterator[dict[str, Any]]:
        for start in range(0, len(members), _CHUNK):
            chosen = written.take([row for _, _, row in members[start : start + _CHUNK]]).to_pylist()
            clips = catalogue.take([row_of[fate["clip_id"]] for fate in chosen]).to_pylist()
            known = facts.take([fact_of[fate["clip_id"]] for fate in chosen]).to_pylist()
            merged = captions.of([fate["clip_id"] for fate in chosen])
            for clip, fact, fate, texts in zip(clips, known, chosen, merged, strict=True):
                yield from _samples(clip, fact, fate, texts, rate)

    for family, members in sorted(families.items()):
        yield from lay_out(_file_name(family), samples(sorted(members)), settings.shard_bytes)


def sample_json(
    clip: Mapping[str, Any],
    fact: Mapping[str, Any],
    fate: Mapping[str, Any],
    window: Mapping[str, Any],
    captions: list[dict[str, Any]],
) -> bytes:
    """The JSON beside a sample's sound: all that the tables know about it, sorted, UTF-8.

    Of a clip of which only a stretch is written, ``trimmed`` says which, and for the sake of whom: captions without
    times then speak of more than the stretch.
    """
    interval, trimmed = clip["interval"], {}
    if fate["reason"] == "trimmed":
        start, end = _extent(fact)
        trimmed = {"trimmed": {"start_s": start, "end_s": end, "for": fate["other"]}}
        if interval and interval["start"] is not None:
            interval = {"start": interval["start"] + start, "end": interval["start"] + end}
    about = {
        "clip_id": clip["clip_id"],
        "window": window["window"],
        "windows": len(fact["windows"]),
        "start_s": window["start_s"],
        "duration_s": window["duration_s"],
        "captions": captions,
        "identity": clip["identity"],
        "interval": interval,
        "licence": clip["licence"],
        "uploader": clip["uploader"],
        "title": clip["title"],
        "keywords": clip["keywords"],
        "group": fate["group"],
        "kin": fate["kin"],
        **trimmed,
        "source": {
            "path": clip["path"],
            "sha256": fact["source_sha256"],
            "codec": fact["codec"],
            "rate": fact["source_rate"],
            "channels": fact["source_channels"],
            "duration_s": fact["duration_s"],
        },
    }
    return _JSON.encode(about).encode()


def _extent(fact: Mapping[str, Any]) -> tuple[float, float]:
    return extent([(window["start_s"], window["duration_s"]) for window in fact["windows"]])


def shard_hash(rows: pa.Table) -> str:
    """SHA-256 of what a plan says of one shard: every sample's key and contents, in order.  ``rows`` has PLAN."""
    digest = hashlib.sha256()
    columns = (rows[name].to_pylist() for name in ("key", "audio_sha256", "json_sha256"))
    for line in zip(*columns, strict=True):
        digest.update(" ".join((*line, "")).encode())
    return digest.hexdigest()


def plan_hash(shards: Mapping[str, str]) -> str:
    """SHA-256 that names a plan: every shard's name and ``shard_hash``."""
    lines = "".join(f"{shard} {digest}\n" for shard, digest in sorted(shards.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def with_keys(fates: pa.Table, samples: Sequence[pa.Table]) -> pa.Table:
    """FATES whose ``keys`` are each clip's samples; ``samples`` are tables of ``clip_id`` and ``key``, in order."""
    keys: dict[str, list[str]] = {}
    for rows in samples:
        for clip_id, key in zip(rows["clip_id"].to_pylist(), rows["key"].to_pylist(), strict=True):
            keys.setdefault(clip_id, []).append(key)
    index = FATES.get_field_index("keys")
    column = pa.array([keys.get(clip_id, []) for clip_id in fates["clip_id"].to_pylist()], FATES.field(index).type)
    return fates.set_column(index, FATES.field(index), column)


def _file_name(family: str) -> str:
    """A family as part of a file's name: what a file system may stumble over is spelled as in keys."""
    return sample_key(family).replace("~", "_")


def _samples(
    clip: dict[str, Any],
    fact: dict[str, Any],
    fate: dict[str, Any],
    captions: list[dict[str, Any]],
    rate: int,
) -> Iterator[dict[str, Any]]:
    if fate["reason"] == "trimmed":
        captions = told_in(captions, *_extent(fact))
    for window in fact["windows"]:
        text = sample_json(clip, fact, fate, window, captions)
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
            "captions": captions,
            "group": fate["group"],
            "kin": fate["kin"],
            "identity": clip["identity"],
            "licence": clip["licence"],
            "json": text,
            "pack": window["pack"],
            "pack_offset": window["offset"],
            "pack_json_offset": None,
        }


def lay_out(family: str, samples: Iterator[dict[str, Any]], shard_bytes: int) -> Iterator[tuple[str, pa.Table]]:
    """(shard name, TASK rows) of a family's shards, each closed before it would grow beyond ``shard_bytes``.

    Args:
        family: what the names of its shards begin with.
        samples: TASK rows as dicts, in order, without ``shard``, ``index`` and the members' offsets.
        shard_bytes: see ``PlanSettings``.
    """
    number, position = 0, 0
    rows: list[dict[str, Any]] = []
    for row in samples:
        sound, text = (
            header_size(row["audio"], row["audio_bytes"]),
            header_size(f"{row['key']}.json", row["json_bytes"]),
        )
        after_sound = sound + padded(row["audio_bytes"])
        size = after_sound + text + padded(row["json_bytes"])
        if rows and position + size + len(END) > shard_bytes:
            yield rows[0]["shard"], pa.Table.from_pylist(rows, TASK)
            number, position, rows = number + 1, 0, []
        place = {
            "shard": f"{family}-{number:06d}.tar",
            "index": len(rows),
            "audio_offset": position + sound,
            "json_offset": position + after_sound + text,
        }
        rows.append(row | place)
        position += size
    if rows:
        yield rows[0]["shard"], pa.Table.from_pylist(rows, TASK)
