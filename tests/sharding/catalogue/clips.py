"""Catalogue rows for tests that need no files."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from sharding.schema import CATALOGUE


def clip(clip_id: str, identity: str | None, start: float | None = None, end: float | None = None, **more: Any) -> dict:
    dataset, part = clip_id.split("/")[:2]
    interval = None if start is None else {"start": start, "end": end}
    row = dict.fromkeys(CATALOGUE.names)
    return row | {
        "clip_id": clip_id, "dataset": dataset, "part": part, "split": part, "identity": identity,
        "interval": interval, "captions": [], **more,
    }  # fmt: skip


def catalogue(*rows: dict) -> pa.Table:
    return pa.Table.from_pylist(list(rows), CATALOGUE)
