"""Rows of a build's tables, for tests of decisions."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pyarrow as pa

from sharding.fates.captions import MergedCaptions
from sharding.fates.decide import FateSettings, decide
from sharding.schema import CATALOGUE, FACTS, FATES, MATCHES

CLOTHO, EVALUATION = "clotho/development/a", "clotho/evaluation/e"
WAVCAPS, OTHER = "wavcaps/train/w", "wavcaps/train/x"
Row = dict[str, Any]


def clip(
    clip_id: str, kind: str = "machine", captions: int = 1, identity: str | None = None, problem: str | None = None
) -> Row:
    dataset, split, _ = clip_id.split("/", 2)
    return {
        "clip_id": clip_id,
        "dataset": dataset,
        "part": split,
        "split": split,
        "identity": identity,
        "problem": problem,
        "captions": [{"text": f"{clip_id} {k}", "kind": kind} for k in range(captions)],
    }


def fact(clip_id: str, duration: float | None = 10.0, error: str | None = None, bandwidth: float = 8000.0) -> Row:
    return {"clip_id": clip_id, "duration_s": duration, "error": error, "bandwidth_hz": bandwidth}


def match(
    a: str,
    b: str,
    overlap: float | None = 10.0,
    outcome: str = "same",
    method: str = "waveform",
    offset: float | None = 0.0,
) -> Row:
    a, b = sorted((a, b))
    row = {"a": a, "b": b, "method": method, "outcome": outcome, "offset_s": offset, "overlap_s": overlap}
    return row | {"score": 1.0}


def explained(*pairs: Row) -> list[Row]:
    """The pairs, and evidence that in each of them neither clip holds sound that the other one lacks."""
    return [*pairs, *(row | {"method": "residual", "score": None} for row in pairs)]


def fates(
    clips: list[Row], facts: list[Row], matches: list[Row], listed: Collection[str] = (), **policy: Any
) -> dict[str, Row]:
    table = decide(
        pa.Table.from_pylist(clips, CATALOGUE),
        pa.Table.from_pylist(facts, FACTS),
        pa.Table.from_pylist(matches, MATCHES),
        listed,
        FateSettings(**policy),
    )
    return {row["clip_id"]: row for row in table.to_pylist()}


def captions_of(
    clip_id: str, clips: list[Row], facts: list[Row], found: dict[str, Row], matches: list[Row]
) -> list[Row]:
    """The captions that are written of ``clip_id``."""
    catalogue, fact_table = pa.Table.from_pylist(clips, CATALOGUE), pa.Table.from_pylist(facts, FACTS)
    table = pa.Table.from_pylist([row | {"keys": []} for row in found.values()], FATES)
    merged = MergedCaptions(catalogue, fact_table, table, pa.Table.from_pylist(matches, MATCHES)).of([clip_id])
    return [dict(caption) for caption in merged[0]]
