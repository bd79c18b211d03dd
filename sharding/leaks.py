"""What published ids can show about shared sound, and what exclusion lists would have missed.

Two clips of one source (the same Freesound sound, the same video) share sound if the parts of it that they
cover do.  The rule, with both parts known: an overlap of ``MINIMUM_OVERLAP_S``, or of half the shorter part
if that is less, is ``same``; none is ``different``; less than that is ``undecided``, as is a part that is not
known (WavCaps' AudioSet ids have no start).  A part without an end reaches to the end of its source.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sharding.errors import InputError
from sharding.schema import MATCHES
from sharding.sources import SOURCES
from sharding.sources.base import freesound, youtube
from sharding.sources.tables import FETCH_AGAIN, check_columns, decode
from sharding.storage import located

MINIMUM_OVERLAP_S = 1.0
MANY = 64  # clips of one source
DEFAULT_PROTECT = "clotho/validation,clotho/evaluation,audiocaps/val,audiocaps/test,tacos/test"
# Lists keep other collections away from these datasets, and name the datasets' own training clips too.
NEVER_LISTED = frozenset({"clotho", "audiocaps"})

SHARED_CAPTIONS = pa.schema(
    [
        ("caption", pa.string()),  # lower case, single spaces, no punctuation
        ("protected", pa.list_(pa.string())),  # clip_ids
        ("training", pa.list_(pa.string())),
    ]
)
_NOT_WORDS = re.compile(r"[^\w\s]|_")
_LISTED_VIDEO = re.compile(r"Y([\w-]{11})(?:\.(?:wav|flac|mp3))?$")


def parse_protect(text: str = DEFAULT_PROTECT) -> frozenset[tuple[str, str]]:
    """``DATASET/SPLIT,...`` as a set of (dataset, split); an empty text protects nothing.

    Raises:
        InputError: an entry is not DATASET/SPLIT, or a published dataset has no such split.
    """
    found = set()
    for entry in filter(None, (part.strip() for part in text.split(","))):
        dataset, slash, split = entry.partition("/")
        if not slash or not dataset or not split or "/" in split:
            raise InputError(
                "not a protected split", value=entry, remedy="write DATASET/SPLIT,... such as clotho/evaluation"
            )
        if dataset in SOURCES and split not in SOURCES[dataset].splits:
            raise InputError(
                f"{dataset} has no such split", value=entry, remedy=f"one of {', '.join(SOURCES[dataset].splits)}"
            )
        found.add((dataset, split))
    return frozenset(found)


def source_of(identity: str) -> str:
    """The identity without the start of an excerpt: what clips of one recording have in common."""
    return identity.partition("@")[0]


@dataclass(frozen=True, slots=True)
class _Part:
    clip_id: str
    interval: tuple[float, float] | None  # the end may be infinite


def identity_matches(catalogue: pa.Table) -> pa.Table:
    """MATCHES rows, method ``identity``, for every two clips of one source, sorted by (a, b).

    Of a source with more than ``MANY`` clips, those whose intervals do not meet have no row: they are kin through
    their source, and a recording of days in a thousand excerpts would have a million such pairs.

    ``offset_s`` and ``overlap_s`` are null where an interval is unknown; ``score`` is the share of the shorter
    interval that the overlap covers.
    """
    sources: dict[str, list[_Part]] = defaultdict(list)
    rows = catalogue.select(["clip_id", "identity", "interval"]).filter(pc.is_valid(catalogue["identity"]))
    starts, ends = (pc.struct_field(rows["interval"], name).to_pylist() for name in ("start", "end"))
    ids, identities = rows["clip_id"].to_pylist(), rows["identity"].to_pylist()
    for clip_id, identity, start, end in zip(ids, identities, starts, ends, strict=True):
        empty = start is None or (end is not None and end <= start)  # of no length: nothing is known, nothing proved
        interval = None if empty else (start, math.inf if end is None else end)
        sources[source_of(identity)].append(_Part(clip_id, interval))
    found = [
        _match(*sorted(pair, key=lambda part: part.clip_id)) for parts in sources.values() for pair in _pairs(parts)
    ]
    found.sort()
    columns = list(zip(*found, strict=True)) or [()] * len(MATCHES)
    return pa.table(
        [pa.array(list(column), f.type) for column, f in zip(columns, MATCHES, strict=True)], schema=MATCHES
    )


def _pairs(parts: list[_Part]) -> Iterator[tuple[_Part, _Part]]:
    """Every two parts of a source; of many, only those that may meet."""
    if len(parts) <= MANY:
        yield from combinations(parts, 2)
        return
    unknown = [part for part in parts if part.interval is None]
    yield from combinations(unknown, 2)
    begun: list[tuple[float, _Part]] = []  # (end, part) of those that may reach to where the next begins
    known = [(part.interval, part) for part in parts if part.interval is not None]
    for (start, end), part in sorted(known, key=lambda item: (*item[0], item[1].clip_id)):
        begun = [(last, other) for last, other in begun if last > start]
        yield from ((other, part) for _, other in begun)
        yield from ((other, part) for other in unknown)
        begun.append((end, part))


def _match(a: _Part, b: _Part) -> tuple[str, str, str, float | None, float | None, float | None, str]:
    if a.interval is None or b.interval is None:
        return a.clip_id, b.clip_id, "identity", None, None, None, "undecided"
    overlap = max(0.0, min(a.interval[1], b.interval[1]) - max(a.interval[0], b.interval[0]))
    shorter = min(a.interval[1] - a.interval[0], b.interval[1] - b.interval[0])
    if overlap <= 0:
        outcome = "different"
    else:
        outcome = "same" if overlap >= min(MINIMUM_OVERLAP_S, shorter / 2) else "undecided"
    offset = b.interval[0] - a.interval[0]
    if math.isinf(overlap):  # both reach to the end of the source
        return a.clip_id, b.clip_id, "identity", offset, None, None, outcome
    score = overlap / shorter if 0 < shorter < math.inf else None
    return a.clip_id, b.clip_id, "identity", offset, overlap, score, outcome


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


def shared_sources(catalogue: pa.Table) -> dict[str, list[str]]:
    """Sources from which several clips come although all are of one dataset: source to sorted clip_ids."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    columns = catalogue.select(["clip_id", "dataset", "identity"]).to_pydict()
    for clip_id, dataset, identity in zip(*columns.values(), strict=True):
        if identity:
            found[dataset, source_of(identity)].append(clip_id)
    return {source: sorted(clips) for (_, source), clips in sorted(found.items()) if len(clips) > 1}


def plain_caption(text: str) -> str:
    """A caption in lower case, without punctuation, words one space apart."""
    return " ".join(_NOT_WORDS.sub(" ", text.lower()).split())


def shared_captions(catalogue: pa.Table, protect: Collection[tuple[str, str]]) -> pa.Table:
    """SHARED_CAPTIONS: captions that a protected clip and an unprotected one have in common.

    Common words are no evidence of common sound: these are reported, and decide nothing.
    """
    protected: dict[str, list[str]] = defaultdict(list)
    training: dict[str, list[str]] = defaultdict(list)
    splits = catalogue.select(["dataset", "split"]).to_pydict()
    guarded = [pair in protect for pair in zip(*splits.values(), strict=True)]
    for want in (True, False):  # the protected first: only their captions are remembered for the others
        chosen = pa.array([flag is want for flag in guarded], pa.bool_())
        rows = catalogue.select(["clip_id", "captions"]).filter(chosen)
        for text, clip_id in _texts(rows):
            plain = plain_caption(text)
            if want:
                protected[plain].append(clip_id)
            elif plain in protected:
                training[plain].append(clip_id)
    shared = sorted(text for text in training if text)
    return pa.table(
        {
            "caption": shared,
            "protected": [sorted(set(protected[text])) for text in shared],
            "training": [sorted(set(training[text])) for text in shared],
        },
        schema=SHARED_CAPTIONS,
    )


def _texts(rows: pa.Table) -> Iterator[tuple[str, str]]:
    """(text, clip_id) of every caption."""
    for batch in rows.to_batches():
        captions = batch["captions"]
        parents = pc.list_parent_indices(captions)
        texts = pc.struct_field(captions.flatten(), "text")
        yield from zip(texts.to_pylist(), batch["clip_id"].take(parents).to_pylist(), strict=True)
