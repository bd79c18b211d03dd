"""Published exclusion lists: sounds that must not be trained on."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from sharding.common.errors import InputError
from sharding.common.storage import located
from sharding.sources.base import freesound, youtube
from sharding.sources.protected import NEVER_LISTED, source_of
from sharding.sources.tables import FETCH_AGAIN, check_columns, decode

_LISTED_VIDEO = re.compile(r"Y([\w-]{11})(?:\.(?:wav|flac|mp3))?$")


@dataclass(frozen=True)
class ExclusionList:
    """A published list of sounds that must not be trained on.

    Attributes:
        name: the file's name.
        identities: sources in one spelling, without starts.
        entries: rows of the file.
        unusable: rows that name no sound (``Not found``).
    """

    name: str
    identities: frozenset[str]
    entries: int
    unusable: int


def exclusion_bytes(path: str) -> bytes:
    """The contents of a list, local or in an object store; InputError where there is none."""
    storage, name = located(path)
    if not storage.exists(name):
        raise InputError("no such exclusion list", file=path, remedy="give the path of a CSV or JSON list")
    return storage.read(name)


def read_exclusion_list(path: str) -> ExclusionList:
    """A list in any of the published forms.

    The challenge's CSV (column ``sound_id``), the CSV of aac-datasets (``index,id``), and WavCaps' JSON
    (``{"AudioSet": ["Y<id>.wav", ...], "FreeSound": ["<id>", ...]}``).

    Raises:
        InputError: the file is missing or broken, or has another form.
    """
    text = decode(exclusion_bytes(path), path)
    entries = list(_json_entries(text, path) if text.lstrip().startswith("{") else _csv_entries(text, path))
    identities = []
    for row, entry in entries:
        identity = _listed_identity(entry)
        if identity is None and entry.lower() not in ("not found", ""):
            raise InputError(
                "the entry names no sound", file=path, row=row, value=entry,
                remedy="give Freesound ids or Y<youtube id>.wav",
            )  # fmt: skip
        identities.append(identity)
    known, (_, name) = [identity for identity in identities if identity], located(path)
    return ExclusionList(name, frozenset(known), len(entries), len(entries) - len(known))


def _listed_identity(entry: str) -> str | None:
    video = _LISTED_VIDEO.fullmatch(entry)
    return youtube(video[1]) if video else freesound(entry.removesuffix(".wav"))


def _csv_entries(text: str, path: str) -> Iterator[tuple[int, str]]:
    reader = csv.reader(io.StringIO(text, newline=""))
    header = [cell.strip() for cell in next(reader, [])]
    column = "id" if "id" in header else "sound_id"
    check_columns(header, (column,), path)
    place = header.index(column)
    for cells in reader:
        if cells and len(cells) <= place:
            raise InputError("the row is too short", file=path, row=reader.line_num, value=cells[0], remedy=FETCH_AGAIN)
        if cells:
            yield reader.line_num, cells[place].strip()


def _json_entries(text: str, path: str) -> Iterator[tuple[int, str]]:
    try:
        lists = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(
            f"the JSON is cut off or broken ({error.msg})", file=path, row=error.lineno, remedy=FETCH_AGAIN
        ) from error
    number = 0
    for key, entries in lists.items():
        if key not in ("AudioSet", "FreeSound") or not isinstance(entries, list):
            raise InputError(
                "not a list of AudioSet or FreeSound ids", file=path, value=key,
                remedy='give {"AudioSet": [...], "FreeSound": [...]}',
            )  # fmt: skip
        for entry in entries:
            number += 1
            yield number, str(entry).strip()


def listed(catalogue: pa.Table, lists: Sequence[ExclusionList]) -> dict[str, str]:
    """clip_id to the first list that names its source.

    Clips of Clotho and AudioCaps are never listed: the lists keep other collections away from those two, and
    so name their own training clips as well.
    """
    found: dict[str, str] = {}
    names = catalogue.select(["clip_id", "dataset", "identity"]).to_pydict()
    for clip_id, dataset, identity in zip(*names.values(), strict=True):
        if identity is None or dataset in NEVER_LISTED:
            continue
        source = source_of(identity)
        name = next((one.name for one in lists if source in one.identities), None)
        if name is not None:
            found[clip_id] = name
    return found


def list_report(
    catalogue: pa.Table, lists: Sequence[ExclusionList], datasets: Collection[str] = NEVER_LISTED
) -> list[dict[str, Any]]:
    """List by list and split by split: what the list would have missed.

    One dict a list and split of ``datasets``: ``list, entries, dataset, part, clips, no_id`` (clips whose
    source no list can name), ``ids`` (distinct sources), ``values`` (as published: ``Not found`` counts once),
    ``missed`` (ids that the list lacks) and ``missed_ids`` (sorted).  Freesound lists say nothing about videos:
    a split none of whose ids is of a kind that the list holds is left out.
    """
    splits: dict[tuple[str, str], list[str | None]] = defaultdict(list)
    columns = catalogue.select(["dataset", "part", "identity"]).to_pydict()
    for dataset, part, identity in zip(*columns.values(), strict=True):
        if dataset in datasets:
            splits[dataset, part].append(identity)
    report = []
    for one in lists:
        kinds = {identity.partition(":")[0] for identity in one.identities}
        for (dataset, part), identities in splits.items():
            ids = {source_of(identity) for identity in identities if identity}
            if not {identity.partition(":")[0] for identity in ids} & kinds:
                continue
            no_id = identities.count(None)
            missed = sorted(ids - one.identities)
            report.append(
                {
                    "list": one.name, "entries": one.entries, "dataset": dataset, "part": part,
                    "clips": len(identities), "no_id": no_id, "ids": len(ids), "values": len(ids) + (no_id > 0),
                    "missed": len(missed), "missed_ids": missed,
                }
            )  # fmt: skip
    return report
