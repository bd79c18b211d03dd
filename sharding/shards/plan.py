"""The plan says which shard holds each sample, and at which offset: a pure function of tables and settings.

The probe has measured the size of every sample, so all offsets are known before any shard is written.  A shard is
written from its *task*: the rows of its manifest, with each sample's JSON and the location of its sound in the packs.
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
from sharding.fates.trimming import captions_within, extent
from sharding.rows import Caption, column
from sharding.schema import FATES, TASK, sample_key, stable_id
from sharding.shards.tar import END, header_size, padded

# The columns that the plan stores; two builds have the same plan if these are equal
PLAN = ("key", "clip_id", "window", "shard", "index", "audio_sha256", "json_sha256")
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
        shard_bytes: the largest size of a shard; only a single sample that is larger gets a larger shard.
    """

    shard_bytes: int = 1_000_000_000

    def __post_init__(self) -> None:
        if self.shard_bytes < 1:
            raise InputError(
                "the size of a shard must be above 0", value=self.shard_bytes, remedy="e.g. --shard-size 1GB"
            )


def make_plan(
    catalogue: pa.Table, facts: pa.Table, fates: pa.Table, matches: pa.Table, settings: PlanSettings, rate: int
) -> Iterator[tuple[str, pa.Table]]:
    """(shard name, TASK rows in their order) of every shard.

    Each dataset and split has shards of its own.  Inside a split the clips are ordered by a hash of their clip_id, so
    that any run of neighbours is a fair sample.  The windows of a clip stay together.

    Args:
        catalogue: CATALOGUE.
        facts: FACTS; their windows are written.
        fates: FATES.
        matches: MATCHES; they tell where the sound of a duplicate lies in the clip that is kept.
        settings: see ``PlanSettings``.
        rate: samples a second of sound that was encoded, and not copied.
    """
    clips = _Clips(catalogue, facts, fates, matches)
    for split, members in sorted(clips.by_split().items()):
        yield from lay_out(_file_name(split), clips.samples(sorted(members), rate), settings.shard_bytes)


class _Clips:
    """The clips that are written, with what all tables know about them."""

    def __init__(self, catalogue: pa.Table, facts: pa.Table, fates: pa.Table, matches: pa.Table) -> None:
        self._catalogue = catalogue.select(_OF_CLIP).combine_chunks()
        self._facts = facts.select(_OF_FACT).combine_chunks()
        self._row = _row_numbers(self._catalogue)
        self._facts_row = _row_numbers(self._facts)
        self._captions = MergedCaptions(self._catalogue, self._facts, fates, matches)
        self._written = fates.filter(pc.equal(fates["fate"], "written")).select(_OF_FATE).combine_chunks()

    def by_split(self) -> dict[str, list[_Member]]:
        """The clips of each ``<dataset>-<split>``."""
        datasets, splits = (column(self._catalogue, name, str) for name in ("dataset", "split"))
        found: dict[str, list[_Member]] = {}
        for row, clip_id in enumerate(column(self._written, "clip_id", str)):
            clip = self._row[clip_id]
            found.setdefault(f"{datasets[clip]}-{splits[clip]}", []).append((stable_id(clip_id), clip_id, row))
        return found

    def samples(self, members: list[_Member], rate: int) -> Iterator[dict[str, Any]]:
        """The samples of some clips, in order: TASK rows as dicts, without what ``lay_out`` adds."""
        for start in range(0, len(members), _CHUNK):
            chosen = members[start : start + _CHUNK]
            ids = [clip_id for _, clip_id, _ in chosen]
            fates = self._written.take([row for _, _, row in chosen]).to_pylist()
            clips = self._catalogue.take([self._row[clip_id] for clip_id in ids]).to_pylist()
            facts = self._facts.take([self._facts_row[clip_id] for clip_id in ids]).to_pylist()
            for clip, fact, fate, captions in zip(clips, facts, fates, self._captions.of(ids), strict=True):
                yield from _samples(clip, fact, fate, captions, rate)


_Member = tuple[int, str, int]  # the hash that orders the clips, clip_id, row of the written clips' FATES


def _row_numbers(table: pa.Table) -> dict[str, int]:
    return {clip_id: row for row, clip_id in enumerate(column(table, "clip_id", str))}


def sample_json(
    clip: Mapping[str, Any],
    fact: Mapping[str, Any],
    fate: Mapping[str, Any],
    window: Mapping[str, Any],
    captions: list[Caption],
) -> bytes:
    """The JSON of a sample: all that the tables know about it, with sorted keys, in UTF-8.

    If a clip is trimmed, ``trimmed`` says which stretch of it is written, and which protected clip shares sound with
    the rest.  Captions without times then describe more than the stretch.
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
    """SHA-256 of what the plan says of one shard: the key and contents of every sample, in order.

    ``rows`` has the columns PLAN.
    """
    digest = hashlib.sha256()
    columns = (rows[name].to_pylist() for name in ("key", "audio_sha256", "json_sha256"))
    for line in zip(*columns, strict=True):
        digest.update(" ".join((*line, "")).encode())
    return digest.hexdigest()


def plan_hash(shards: Mapping[str, str]) -> str:
    """SHA-256 that names a plan: the name and ``shard_hash`` of every shard."""
    lines = "".join(f"{shard} {digest}\n" for shard, digest in sorted(shards.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def with_keys(fates: pa.Table, samples: Sequence[pa.Table]) -> pa.Table:
    """FATES whose ``keys`` name the samples of each clip.

    ``samples`` are tables of ``clip_id`` and ``key``, in order.
    """
    keys: dict[str, list[str]] = {}
    for rows in samples:
        for clip_id, key in zip(rows["clip_id"].to_pylist(), rows["key"].to_pylist(), strict=True):
            keys.setdefault(clip_id, []).append(key)
    index = FATES.get_field_index("keys")
    column = pa.array([keys.get(clip_id, []) for clip_id in fates["clip_id"].to_pylist()], FATES.field(index).type)
    return fates.set_column(index, FATES.field(index), column)


def _file_name(split: str) -> str:
    """``<dataset>-<split>`` as part of a file's name, spelled as in sample keys."""
    return sample_key(split).replace("~", "_")


def _samples(
    clip: dict[str, Any],
    fact: dict[str, Any],
    fate: dict[str, Any],
    captions: list[Caption],
    rate: int,
) -> Iterator[dict[str, Any]]:
    if fate["reason"] == "trimmed":
        captions = captions_within(captions, *_extent(fact))
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


def lay_out(prefix: str, samples: Iterator[dict[str, Any]], shard_bytes: int) -> Iterator[tuple[str, pa.Table]]:
    """(shard name, TASK rows) of the shards of a dataset and split.

    Args:
        prefix: the beginning of the names of its shards.
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
        location = {
            "shard": f"{prefix}-{number:06d}.tar",
            "index": len(rows),
            "audio_offset": position + sound,
            "json_offset": position + after_sound + text,
        }
        rows.append(row | location)
        position += size
    if rows:
        yield rows[0]["shard"], pa.Table.from_pylist(rows, TASK)
