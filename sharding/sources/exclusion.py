"""Published exclusion lists: sounds that must not be trained on."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypedDict

import pyarrow as pa

from sharding.common.errors import InputError
from sharding.common.storage import located
from sharding.common.tables import FETCH_AGAIN, csv_rows, decode
from sharding.rows import rows
from sharding.sources import DATASETS
from sharding.sources.identities import freesound, original_of, youtube

# Datasets whose clips are never excluded by a list (see ``PublishedDataset.exclusion_lists_apply``).
UNLISTED = frozenset(one.name for one in DATASETS.values() if not one.exclusion_lists_apply)
_LISTED_VIDEO = re.compile(r"Y([\w-]{11})(?:\.(?:wav|flac|mp3))?$")


@dataclass(frozen=True)
class ExclusionList:
    """A published list of sounds that must not be trained on.

    Attributes:
        name: the file's name.
        identities: originals in one spelling, without starts of excerpts.
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
    header = [cell.strip(' \t\r"') for cell in text.partition("\n")[0].split(",")]
    column = "id" if "id" in header else "sound_id"
    for row, cells in csv_rows(text, path, (column,)):
        yield row, cells[column].strip()


def _json_entries(text: str, path: str) -> Iterator[tuple[int, str]]:
    try:
        lists = json.loads(text)
    except (ValueError, RecursionError) as error:  # also numbers of thousands of digits, and brackets without end
        row = error.lineno if isinstance(error, json.JSONDecodeError) else None
        raise InputError(f"the JSON is cut off or broken ({error})", file=path, row=row, remedy=FETCH_AGAIN) from error
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


class _Clip(NamedTuple):
    clip_id: str
    dataset: str
    part: str
    identity: str | None


def listed(catalogue: pa.Table, lists: Sequence[ExclusionList]) -> dict[str, str]:
    """clip_id to the first list that names the clip's original recording.

    Clips of the datasets in UNLISTED are left out: the lists were made to keep other collections away from those
    datasets, so the lists also name the datasets' own training clips.
    """
    found: dict[str, str] = {}
    for clip in rows(catalogue, _Clip):
        if clip.identity is None or clip.dataset in UNLISTED:
            continue
        original = original_of(clip.identity)
        name = next((one.name for one in lists if original in one.identities), None)
        if name is not None:
            found[clip.clip_id] = name
    return found


class ListReport(TypedDict):
    """What one list lacks of one part of a dataset.

    Attributes:
        list: name of the list.
        entries: rows of the list.
        dataset, part: the part.
        clips: the clips of the part.
        no_id: clips without an id, which no list can name.
        ids: distinct original recordings.
        values: distinct ids as published, where all ``Not found`` count as one.
        missed: how many ids the list lacks.
        missed_ids: those ids, sorted.
    """

    list: str
    entries: int
    dataset: str
    part: str
    clips: int
    no_id: int
    ids: int
    values: int
    missed: int
    missed_ids: list[str]


def list_report(
    catalogue: pa.Table, lists: Sequence[ExclusionList], datasets: Collection[str] = UNLISTED
) -> list[ListReport]:
    """What each list lacks of each part of the given datasets.

    A part is left out where none of its ids is of a kind that the list holds: a list of Freesound ids says nothing
    about videos.
    """
    identities_of: dict[tuple[str, str], list[str | None]] = defaultdict(list)
    for clip in rows(catalogue, _Clip):
        if clip.dataset in datasets:
            identities_of[clip.dataset, clip.part].append(clip.identity)
    report: list[ListReport] = []
    for one in lists:
        kinds = {identity.partition(":")[0] for identity in one.identities}
        for (dataset, part), identities in identities_of.items():
            ids = {original_of(identity) for identity in identities if identity}
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
