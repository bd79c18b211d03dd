"""The tables of a build as CSV files for people and spreadsheets."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from sharding import layout
from sharding.checks import read_checked
from sharding.common.errors import InputError
from sharding.common.storage import Storage
from sharding.rows import CatalogueRow, Interval, rows
from sharding.schema import CAPTION, CATALOGUE, FATES, MANIFEST, MATCHES
from sharding.shards.agreement import require_agreement
from sharding.shards.manifest import Manifest

_BATCH = 8192  # rows that are turned into Python objects at once
_CLIP = [name for name in CATALOGUE.names if name not in ("captions", "interval", "keywords", "notes")]
_SAMPLE = [name for name in MANIFEST.names if name != "captions"]
_CAPTION = [field.name for field in CAPTION]
_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠", "\t", "\r", "\n", "'")  # how a formula begins; see `plain_text`


def export_csv(url: str, folder: Path) -> dict[str, int]:
    """Write ``clips, captions, samples, fates`` and ``matches`` below ``folder``; returns the rows of each file.

    The files are UTF-8 with a byte order mark, because Excel assumes another encoding without it.  The values of a list
    are separated by `` | ``.  A text that a spreadsheet would take for a formula begins with an apostrophe (see
    `plain_text`).

    Raises:
        InputError: there is no finished build, its tables disagree, or the folder cannot be written.
    """
    manifest = Manifest.open(url)
    require_agreement(manifest)
    fates = read_checked(manifest.storage, layout.FATES, FATES)
    matches = read_checked(manifest.storage, layout.MATCHES, MATCHES)
    clip_header = [*_CLIP, "start_s", "end_s", "keywords", "notes", "captions", "fate", "reason", "other"]
    try:
        return {
            "clips.csv": _write(folder / "clips.csv", clip_header, _clips(manifest, fates)),
            "captions.csv": _write(folder / "captions.csv", ["clip_id", "number", *_CAPTION], _captions(manifest)),
            "samples.csv": _write(folder / "samples.csv", _SAMPLE, _values(manifest.table, _SAMPLE)),
            "fates.csv": _write(folder / "fates.csv", FATES.names, _values(fates, FATES.names)),
            "matches.csv": _write(folder / "matches.csv", MATCHES.names, _values(matches, MATCHES.names)),
        }
    except OSError as error:
        what, file = error.strerror or str(error), error.filename or folder
        raise InputError(what, file=file, remedy="choose another --csv") from error


class _Fate(NamedTuple):
    clip_id: str
    fate: str
    reason: str
    other: str | None


def _write(path: Path, header: Sequence[str], lines: Iterable[Sequence[Any]]) -> int:
    """Write one file, whole or not at all; returns the number of its lines below the header."""
    count = 0
    with Storage(path.parent).writer(path.name) as raw:
        file = io.TextIOWrapper(raw, encoding="utf-8-sig", newline="")
        writer = csv.writer(file)
        writer.writerow(header)
        for line in lines:
            writer.writerow([_cell(value) for value in line])
            count += 1
        file.detach()  # writes what is buffered, and leaves it to the writer to close the file
    return count


def plain_text(text: str) -> str:
    """``text`` as a cell that no spreadsheet runs as a formula: an apostrophe is put before what might begin one.

    Spreadsheets take a text for a formula if it begins with ``= + - @``, also in their full-width forms, or with a tab
    or a line break before these.  An apostrophe at the beginning is doubled, so that removing one apostrophe from each
    text that begins with one gives back the original.
    """
    return f"'{text}" if text.startswith(_FORMULA) else text


def _cell(value: Any) -> Any:
    text = " | ".join(map(str, value)) if isinstance(value, list) else value
    return plain_text(text) if isinstance(text, str) else text


def _values(table: pa.Table, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    for batch in table.select(list(names)).to_batches(max_chunksize=_BATCH):
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _catalogue(manifest: Manifest) -> Iterator[CatalogueRow]:
    for name in manifest.catalogue():
        yield from rows(read_checked(manifest.storage, name, CATALOGUE), CatalogueRow)


def _clips(manifest: Manifest, fates: pa.Table) -> Iterator[list[Any]]:
    fate_of = {fate.clip_id: fate for fate in rows(fates, _Fate)}
    for clip in _catalogue(manifest):
        interval: Interval = clip.interval or {"start": None, "end": None}
        lists = [clip.keywords, clip.notes, len(clip.captions)]
        plain = (getattr(clip, name) for name in _CLIP)
        yield [*plain, interval["start"], interval["end"], *lists, *fate_of[clip.clip_id][1:]]


def _captions(manifest: Manifest) -> Iterator[list[Any]]:
    for clip in _catalogue(manifest):
        for number, caption in enumerate(clip.captions, 1):
            yield [clip.clip_id, number, *caption.values()]
