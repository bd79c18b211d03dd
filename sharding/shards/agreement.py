"""Checks that the tables of a finished build name the same clips.

Checksums prove only that each file is as ``dataset.json`` says.  Somebody else may have made all of them, so whatever
is computed from several tables needs this check first.  It reads single columns.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from sharding.checks import read_checked
from sharding.common.errors import MEND, InputError
from sharding.layout import FATES, MATCHES, manifest_name
from sharding.schema import CATALOGUE as CATALOGUE_SCHEMA
from sharding.schema import FATES as FATES_SCHEMA
from sharding.schema import MATCHES as MATCHES_SCHEMA
from sharding.shards.manifest import Manifest


def require_agreement(manifest: Manifest) -> None:
    """Check that every clip of the catalogue has one fate, and that manifests and matches name no other clips.

    Raises:
        InputError: a table is missing or damaged, or a clip occurs in it twice or is missing in another one; names the
            file, the row and the clip.
    """
    storage = manifest.storage
    for name in (FATES, MATCHES, *manifest.catalogue()):
        if not storage.exists(name):
            raise InputError("missing", file=storage.name(name), remedy=MEND)
    catalogue = {
        name: read_checked(storage, name, CATALOGUE_SCHEMA, ["clip_id"])["clip_id"] for name in manifest.catalogue()
    }
    listed = pa.chunked_array([chunk for clips in catalogue.values() for chunk in clips.chunks], pa.string())
    fates = read_checked(storage, FATES, FATES_SCHEMA, ["clip_id", "fate"])
    _require_once(fates["clip_id"], storage.name(FATES))
    _require_known(fates["clip_id"], listed, storage.name(FATES), "the catalogue lacks this clip")
    for name, clips in catalogue.items():
        _require_once(clips, storage.name(name))
        _require_known(clips, fates["clip_id"], storage.name(name), f"{FATES} lacks this clip")
    matches = read_checked(storage, MATCHES, MATCHES_SCHEMA, ["a", "b"])
    for side in ("a", "b"):
        _require_known(matches[side], listed, storage.name(MATCHES), "the catalogue lacks this clip")
    written = fates.filter(pc.equal(fates["fate"], "written"))["clip_id"]
    require_samples_of(written, manifest, f"{FATES} does not say that this clip was written")


def require_samples_of(clips: pa.ChunkedArray, manifest: Manifest, what: str) -> None:
    """Check that every sample is of one of ``clips``.

    Raises:
        InputError: says ``what``, and names the manifest, the row and the clip.
    """
    row = _first_unknown(manifest.table["clip_id"], clips)
    if row >= 0:
        sample = manifest.table.slice(row, 1)
        file = manifest.storage.name(manifest_name(sample["shard"][0].as_py()))
        _refuse(what, file, sample["index"][0].as_py(), sample["clip_id"][0].as_py())


def _require_known(clips: pa.ChunkedArray, known: pa.ChunkedArray, file: str, what: str) -> None:
    row = _first_unknown(clips, known)
    if row >= 0:
        _refuse(what, file, row, clips[row].as_py())


def _require_once(clips: pa.ChunkedArray, file: str) -> None:
    if pc.count_distinct(clips).as_py() == len(clips):
        return
    seen: set[str] = set()
    for row, clip in enumerate(clips.to_pylist()):
        if clip in seen:
            _refuse("this clip has a row already", file, row, clip)
        seen.add(clip)


def _first_unknown(clips: pa.ChunkedArray, known: pa.ChunkedArray) -> int:
    """The first row whose clip is not among ``known``; -1 where all are."""
    return int(pc.index(pc.is_in(clips, value_set=known), False).as_py())


def _refuse(what: str, file: str, row: int, clip: str) -> None:
    raise InputError(what, file=file, row=row + 1, value=clip, remedy=MEND)
