"""Whether the recordings of a build are still those that were read.

When the catalogue is made, the time of the last change of every audio file is noted.  A file that has the same size and
the same time today is the same.  No clock is compared with another one: of any other time, the contents decide.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from sharding.checks import read_checked
from sharding.common.storage import Entry, Storage
from sharding.layout import Work
from sharding.rows import column, rows, to_table
from sharding.schema import INPUTS

_ABSENT = Entry(-1, math.inf)


class InputFile(NamedTuple):
    """The audio file of a clip; ``path`` is None if there is none."""

    clip_id: str
    dataset: str
    path: str | None


class _Read(NamedTuple):
    """What the probe read of a clip."""

    clip_id: str
    source_bytes: int | None
    source_sha256: str | None


def note_inputs(catalogue: pa.Table, roots: Mapping[str, str]) -> pa.Table:
    """INPUTS of a catalogue: when each audio file changed last, and its size.

    Args:
        catalogue: CATALOGUE.
        roots: dataset to folder.
    """
    listings = _listings(column(catalogue, "dataset", str), roots)
    found = (
        (clip.clip_id, _entry(*listings[clip.dataset], clip.path))
        for clip in rows(catalogue, InputFile)
        if clip.path is not None
    )
    return to_table(
        [(clip_id, entry.changed, entry.size if entry.size >= 0 else None) for clip_id, entry in found], INPUTS
    )


def noted_inputs(work: Storage) -> pa.Table:
    """INPUTS of a build; empty if an earlier version of Earshot made its catalogue."""
    return read_checked(work, Work.INPUTS, INPUTS) if work.exists(Work.INPUTS) else INPUTS.empty_table()


def unchanged(
    facts: pa.Table, former: Mapping[str, str | None], inputs: pa.Table, now: pa.Table, roots: Mapping[str, str]
) -> pa.Table:
    """FACTS of the clips that decoded well, and whose audio files have the same path and contents as then.

    Args:
        facts: FACTS.
        former: clip_id to path, of clips whose dataset lies in the same folder as then.
        inputs: INPUTS.
        now: CATALOGUE as it reads today.
        roots: dataset to folder.
    """
    well = facts.filter(pc.is_null(facts["error"]))
    known = {row.clip_id: row for row in rows(well, _Read)}
    changed = dict(zip(column(inputs, "clip_id", str), column(inputs, "changed", float), strict=True))
    clips = [c for c in rows(now, InputFile) if c.clip_id in known and c.path and former.get(c.clip_id) == c.path]
    listings = _listings({clip.dataset for clip in clips}, roots)
    same = set()
    for clip in clips:
        assert clip.path is not None
        root, entries = listings[clip.dataset]
        entry, read = _entry(root, entries, clip.path), known[clip.clip_id]
        noted = changed.get(clip.clip_id, math.inf)
        if entry.size == read.source_bytes and (
            (math.isfinite(noted) and entry.changed == noted) or _sha256(root, clip.path) == read.source_sha256
        ):
            same.add(clip.clip_id)
    return well.filter(pc.is_in(well["clip_id"], pa.array(sorted(same), pa.string())))


_Listings = dict[str, tuple[Storage, Mapping[str, Entry]]]


def _listings(datasets: Collection[str], roots: Mapping[str, str]) -> _Listings:
    """The folder of each dataset, and the entries of all files in it."""

    def listed() -> Iterator[tuple[str, tuple[Storage, Mapping[str, Entry]]]]:
        for dataset in sorted(set(datasets)):
            root = Storage(roots[dataset])
            yield dataset, (root, root.entries())

    return dict(listed())


def _entry(root: Storage, entries: Mapping[str, Entry], path: str) -> Entry:
    """The entry of a file, or of a member of an archive; if there is none, one with the size -1."""
    archive = root.archive(path)
    if archive is None:
        return entries.get(path, _ABSENT)
    try:
        return Entry(root.size(path), entries[archive].changed)
    except (OSError, KeyError):
        return _ABSENT


def _sha256(root: Storage, path: str) -> str:
    digest = hashlib.sha256()
    with root.open(path) as file:
        while data := file.read(1 << 20):
            digest.update(data)
    return digest.hexdigest()
