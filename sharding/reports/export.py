"""A build's tables for people: CSV files that any spreadsheet opens."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from sharding import layout
from sharding.common.errors import InputError
from sharding.common.storage import Storage
from sharding.schema import CATALOGUE, FATES, MANIFEST, MATCHES
from sharding.shards.manifest import Manifest

_CLIP = [name for name in CATALOGUE.names if name not in ("captions", "interval", "keywords", "notes")]
_SAMPLE = [name for name in MANIFEST.names if name != "captions"]
_CAPTION = ["text", "kind", "onset", "offset", "source"]


def export_csv(url: str, folder: Path) -> dict[str, int]:
    """Write ``clips, captions, samples, fates`` and ``matches`` below ``folder``; rows of each file.

    UTF-8 with a byte order mark, without which Excel takes it for something else.  Lists are separated by `` | ``.
    Raises ``InputError`` where there is no finished build, or the folder cannot be written.
    """
    manifest = Manifest.open(url)
    storage = manifest.storage
    fates = storage.read_table(layout.FATES)
    try:
        return {
            "clips.csv": _write(
                folder / "clips.csv",
                [*_CLIP, "start_s", "end_s", "keywords", "notes", "captions", "fate", "reason", "other"],
                _clips(manifest, fates),
            ),
            "captions.csv": _write(folder / "captions.csv", ["clip_id", "number", *_CAPTION], _captions(manifest)),
            "samples.csv": _write(folder / "samples.csv", _SAMPLE, _plain(manifest.table, _SAMPLE)),
            "fates.csv": _write(folder / "fates.csv", FATES.names, _plain(fates, FATES.names)),
            "matches.csv": _write(
                folder / "matches.csv", MATCHES.names, _plain(storage.read_table(layout.MATCHES), MATCHES.names)
            ),
        }
    except OSError as error:
        raise InputError(error.strerror or str(error), file=error.filename or folder, remedy="another --csv") from error


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> int:
    count = 0
    with Storage(path.parent).writer(path.name) as raw:
        file = io.TextIOWrapper(raw, encoding="utf-8-sig", newline="")
        writer = csv.writer(file)
        writer.writerow(header)
        for row in rows:
            writer.writerow([_cell(value) for value in row])
            count += 1
        file.detach()  # flushes; the file beneath is not this wrapper's to close
    return count


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        return " | ".join(map(str, value))
    return value


def _plain(table: pa.Table, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    for batch in table.select(list(names)).to_batches(max_chunksize=8192):
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _catalogue(manifest: Manifest) -> Iterator[dict[str, Any]]:
    for name in manifest.catalogue():
        for batch in manifest.storage.read_table(name).to_batches(max_chunksize=8192):
            yield from batch.to_pylist()


def _clips(manifest: Manifest, fates: pa.Table) -> Iterator[list[Any]]:
    names = ("clip_id", "fate", "reason", "other")
    found = {row[0]: row[1:] for row in zip(*(fates[name].to_pylist() for name in names), strict=True)}
    for row in _catalogue(manifest):
        interval = row["interval"] or {"start": None, "end": None}
        lists = [row["keywords"], row["notes"], len(row["captions"] or [])]
        yield [*(row[name] for name in _CLIP), *interval.values(), *lists, *found[row["clip_id"]]]


def _captions(manifest: Manifest) -> Iterator[list[Any]]:
    for row in _catalogue(manifest):
        for number, caption in enumerate(row["captions"] or [], 1):
            yield [row["clip_id"], number, *(caption[name] for name in _CAPTION)]
