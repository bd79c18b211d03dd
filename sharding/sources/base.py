"""What every source has in common: the rows that it collects and the tables that it hands over."""

from __future__ import annotations

import ast
import functools
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa

from sharding.common.errors import InputError
from sharding.schema import CAPTION, CATALOGUE, INTERVAL

ORPHANS = pa.schema(
    [
        ("dataset", pa.string()),
        ("path", pa.string()),  # below the dataset's folder; ARCHIVE.zip!/MEMBER
        ("why", pa.string()),  # in words
    ]
)
_LONGEST_ID = 18  # digits of a Freesound id; more are none
_FREESOUND = re.compile(r"(?:freesound\.org/(?:people/[^/]+/sounds|s)/)(\d+)")
_YOUTUBE = re.compile(r"(?:youtu\.be/|[?&]v=)([\w-]{11})(?:.*[?&](?:t|start)=(\d+(?:\.\d+)?)s?(?=[&#]|$))?")


@dataclass(frozen=True)
class SourceTables:
    """What a source found.

    Attributes:
        catalogue: CATALOGUE, one row a published clip, in published order.
        orphans: ORPHANS, audio files that belong to no row.
        notes: remarks about the dataset as a whole, for a person.
    """

    catalogue: pa.Table
    orphans: pa.Table
    notes: tuple[str, ...] = ()


class Caption(NamedTuple):
    """A caption as published; ``onset`` and ``offset`` in seconds in the clip, None where it speaks of all."""

    text: str
    kind: str  # human | machine | label
    onset: float | None = None
    offset: float | None = None

    @property
    def plain(self) -> tuple[str, float | None, float | None]:
        """What two spellings of one caption have in common: case and spacing do not count."""
        return " ".join(self.text.casefold().split()), self.onset, self.offset


class Rows:
    """Collects the CATALOGUE rows of one dataset column by column."""

    def __init__(self, dataset: str) -> None:
        self.dataset = dataset
        self._place: dict[str, int] = {}
        self._columns: dict[str, list] = {name: [] for name in CATALOGUE.names if name not in ("dataset",)}

    def __len__(self) -> int:
        return len(self._place)

    def clip_id(self, part: str, stem: str) -> str:
        """``<dataset>/<part>/<stem>``, the stem verbatim."""
        return f"{self.dataset}/{part}/{stem}"

    def __contains__(self, clip_id: str) -> bool:
        return clip_id in self._place

    def add(
        self,
        part: str,
        stem: str,
        *,
        path: str | None,
        captions: Sequence[Caption] = (),
        split: str | None = None,
        identity: str | None = None,
        interval: tuple[float, float | None] | None = None,
        licence: str | None = None,
        uploader: str | None = None,
        title: str | None = None,
        keywords: Sequence[str] = (),
        duration_s: float | None = None,
        out_of_root: bool = False,
        notes: Sequence[str] = (),
    ) -> None:
        """One clip; without a path it is ``missing``.

        Raises:
            InputError: there is a clip of this name already.
        """
        clip_id = self.clip_id(part, stem)
        if clip_id in self:
            raise InputError(
                "two recordings would have one name", value=clip_id, remedy="give one of them another file name"
            )
        self._place[clip_id] = len(self._place)
        problem = "out_of_root" if out_of_root else "missing" if path is None else None
        values = {
            "clip_id": clip_id, "part": part, "split": split or part, "path": None if problem else path,
            "problem": problem, "captions": list(captions), "identity": identity, "interval": interval,
            "licence": licence or None, "uploader": uploader or None, "title": title or None,
            "keywords": list(keywords), "published_duration_s": duration_s, "notes": list(notes),
        }  # fmt: skip
        for name, column in self._columns.items():
            column.append(values[name])

    def merge(self, clip_id: str, captions: Iterable[Caption], note: str) -> None:
        """Give a clip the captions that it lacks; those that differ only in case or spacing are not new."""
        place = self._place[clip_id]
        mine: list[Caption] = self._columns["captions"][place]
        known = {caption.plain for caption in mine}
        for caption in captions:
            if caption.plain not in known:
                known.add(caption.plain)
                mine.append(caption)
        self.note(clip_id, note)

    def note(self, clip_id: str, note: str) -> None:
        """Add a remark to a clip, once."""
        notes = self._columns["notes"][self._place[clip_id]]
        if note not in notes:
            notes.append(note)

    def used_paths(self) -> set[str]:
        """The audio that the rows name."""
        return {path for path in self._columns["path"] if path is not None}

    def table(self) -> pa.Table:
        """CATALOGUE.

        Raises:
            InputError: a text holds what no encoding can hold (JSON can spell halves of a character).
        """
        try:
            return self._table()
        except UnicodeEncodeError as error:
            raise InputError(
                "its row holds half a character (a surrogate)", value=self._broken_text(), remedy="mend the table"
            ) from error

    def _broken_text(self) -> str | None:
        """The first clip with a text that cannot be encoded."""
        for place, clip_id in enumerate(self._columns["clip_id"]):
            row = [column[place] for column in self._columns.values()]
            try:
                json.dumps(row, ensure_ascii=False).encode()
            except UnicodeEncodeError:
                return clip_id
        return None

    def _table(self) -> pa.Table:
        columns = self._columns
        arrays = []
        for field in CATALOGUE:
            if field.name == "dataset":
                arrays.append(pa.array([self.dataset] * len(self), pa.string()))
            elif field.name == "captions":
                arrays.append(_captions(columns["captions"]))
            elif field.name == "interval":
                arrays.append(_intervals(columns["interval"]))
            else:
                arrays.append(pa.array(columns[field.name], field.type))
        return pa.table(arrays, schema=CATALOGUE)


def _captions(rows: list[list[Caption]]) -> pa.Array:
    offsets = [0]
    flat: list[Caption] = []
    for captions in rows:
        flat.extend(captions)
        offsets.append(len(flat))
    columns = zip(*flat, strict=True) if flat else iter([()] * 4)
    arrays = [pa.array(list(column), field.type) for field, column in zip(CAPTION, columns, strict=False)]
    arrays.append(pa.nulls(len(flat), pa.string()))  # source: these captions are the clip's own
    struct = pa.StructArray.from_arrays(arrays, fields=list(CAPTION))
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), struct)


def _intervals(rows: list[tuple[float, float | None] | None]) -> pa.Array:
    starts = pa.array([None if row is None else row[0] for row in rows], pa.float64())
    ends = pa.array([None if row is None else row[1] for row in rows], pa.float64())
    unknown = pa.array([row is None for row in rows], pa.bool_())
    return pa.StructArray.from_arrays([starts, ends], fields=list(INTERVAL), mask=unknown)


def orphans_table(dataset: str, why: Mapping[str, str]) -> pa.Table:
    """ORPHANS of one dataset, sorted by path; ``why`` is said of each."""
    names = sorted(why)
    columns = [[dataset] * len(names), names, [why[name] for name in names]]
    return pa.table([pa.array(column, pa.string()) for column in columns], schema=ORPHANS)


def freesound(sound_id: str) -> str | None:
    """``freesound:<id>``, or None: ``Not found`` and blanks name no sound and never match anything."""
    digits = sound_id.strip()
    known = digits.isascii() and digits.isdigit() and len(digits) <= _LONGEST_ID
    return f"freesound:{int(digits)}" if known else None


def id_remark(sound_id: str) -> str | None:
    """A remark on an id that ought to be Freesound's and is none: a leak that ids could have shown stays hidden."""
    told = sound_id.strip().lower()
    return None if told in ("", "not found") or freesound(told) else f"not a Freesound id: {sound_id.strip()}"


def youtube(video_id: str, start_s: float | None = None) -> str:
    """``youtube:<id>``, with ``@<start>`` in seconds to three places where the start is known."""
    return f"youtube:{video_id}" if start_s is None else f"youtube:{video_id}@{start_s:.3f}"


def normalised_identity(text: str) -> str | None:
    """One spelling for an identity that a user wrote: ``scheme:value`` or a Freesound or YouTube address.

    Raises:
        ValueError: it is neither.
    """
    text = text.strip()
    if text.lower() in ("", "not found", "none", "null"):
        return None
    if found := _FREESOUND.search(text):
        return freesound(found[1])
    if found := _YOUTUBE.search(text):
        return youtube(found[1], float(found[2]) if found[2] else None)
    scheme, colon, value = text.partition(":")
    scheme, value = scheme.strip().lower(), value.strip()
    if not colon or not value or not re.fullmatch(r"[a-z][a-z0-9_-]*", scheme) or value.startswith("//"):
        raise ValueError(text)
    if scheme == "freesound":
        identity = freesound(value)
        if identity is None and value.lower() != "not found":
            raise ValueError(text)
        return identity
    if scheme == "youtube":
        video_id, at, start = value.partition("@")
        if at and not 0 <= float(start) < math.inf:
            raise ValueError(text)
        return youtube(video_id, float(start) if at else None)
    return f"{scheme}:{value}"


@functools.lru_cache(maxsize=4096)
def keywords(cell: str) -> tuple[str, ...]:
    """Words between ``;``, or a list that was written out as text (``"['Nature']"``)."""
    if cell.startswith("["):
        try:
            return tuple(str(word) for word in ast.literal_eval(cell))
        except (ValueError, SyntaxError, TypeError):
            return (cell,)
    return tuple(word for word in cell.split(";") if word.strip())


def finite(text: str | float | None) -> float | None:
    """A finite number, or None."""
    try:
        number = float(text) if text is not None else math.nan
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
