"""The contents of a finished build's work folder: the size and SHA-256 of every file that later commands rely on.

``OUT/.build/contents.json`` is written when a build has tidied up, and removed by the first step that changes the work
folder.  ``verify`` compares the files with it, and so does every command that changes the build.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TypedDict

from sharding.checks import checksummed_bytes, conform, read_checksummed
from sharding.common.errors import InputError
from sharding.common.storage import Storage
from sharding.layout import Work, in_work, work_of
from sharding.shards.manifest import FileEntry

_FILES = (Work.SETTINGS, Work.MARKER, Work.INPUTS, Work.PLAN, Work.RESHARD)
_FOLDERS = tuple(f"{folder}/" for folder in (Work.FACTS, Work.FINGERPRINTS, Work.PACKS))
_REMEDY = "put the file back from a copy, or build into an empty folder; the shards can be read as before"


class Contents(TypedDict):
    """``contents.json``, all but its checksum."""

    files: dict[str, FileEntry]  # by their names below the work folder


def file_entry(storage: Storage, name: str) -> FileEntry:
    """The size and SHA-256 of a file."""
    digest, size = hashlib.sha256(), 0
    with storage.open(name) as file:
        while data := file.read(8 << 20):
            digest.update(data)
            size += len(data)
    return {"bytes": size, "sha256": digest.hexdigest()}


def store_contents(out: Storage) -> None:
    """Write what the work folder of a finished build contains, unless that is known."""
    work = work_of(out)
    if not work.exists(Work.CONTENTS):
        files = {name: file_entry(work, name) for name in work.list() if _is_listed(name)}
        work.write(Work.CONTENTS, checksummed_bytes({"files": files}))


def read_contents(out: Storage) -> dict[str, FileEntry] | None:
    """The files of the work folder by their names below OUT; None if an earlier version of Earshot wrote the build.

    Raises:
        InputError: ``contents.json`` is damaged.
    """
    work = work_of(out)
    if not work.exists(Work.CONTENTS):
        return None
    contents = conform(read_checksummed(work, Work.CONTENTS), Contents, work.name(Work.CONTENTS))
    return {in_work(name): entry for name, entry in contents["files"].items()}


def unknown_files(names: Mapping[str, int], listed: Mapping[str, FileEntry]) -> list[str]:
    """Files of a work folder that ``contents.json`` should list and does not; names are below OUT."""
    return [name for name in names if _is_listed(name.removeprefix(in_work(""))) and name not in listed]


def require_whole(out: Storage) -> None:
    """Refuse to continue a build whose work folder is damaged.

    Raises:
        InputError: names the first file that is missing, or not as it was written.
    """
    for name, entry in sorted((read_contents(out) or {}).items()):
        try:
            found = file_entry(out, name)
        except FileNotFoundError:
            raise InputError("missing", file=out.name(name), remedy=_REMEDY) from None
        if found != entry:
            raise InputError("damaged: not the contents that were written", file=out.name(name), remedy=_REMEDY)


def _is_listed(name: str) -> bool:
    return name in _FILES or name.startswith(_FOLDERS)
