"""What all readers of datasets share: the description of a dataset, and the catalogue rows that a reader collects."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa

from sharding.common.errors import InputError
from sharding.common.storage import Storage
from sharding.common.tables import FETCH_AGAIN
from sharding.schema import CAPTION, CATALOGUE, INTERVAL

ORPHANS = pa.schema(
    [
        ("dataset", pa.string()),
        ("path", pa.string()),  # below the dataset's folder; ARCHIVE.zip!/MEMBER
        ("why", pa.string()),  # in words
    ]
)


@dataclass(frozen=True)
class DatasetTables:
    """What a reader found below the folder of one dataset.

    Attributes:
        catalogue: CATALOGUE, one row a published clip, in published order.
        orphans: ORPHANS, audio files that no row of the published tables names.
        notes: remarks about the dataset as a whole, for people.
    """

    catalogue: pa.Table
    orphans: pa.Table
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PublishedDataset:
    """A published dataset, and how a build treats its splits.

    Attributes:
        name: as in ``clip_id`` and on the command line (``--clotho DIR``).
        read: reads the published tables below a folder and finds their audio, without opening it.
        published: part to (clips, captions) as the released tables count them; ``*`` stands for all parts together.
        splits: every split that its clips may belong to.
        protected: splits for evaluation; by default no training clip may share sound with their clips.
        kept: splits whose clips are never dropped as duplicates of other clips.
        least_audio: the smallest share of a split's clips for which a usual copy of the dataset has audio.  If a
            protected split has less, a build refuses, because leaks into the split would not be found.
        exclusion_lists_apply: False where published exclusion lists name the dataset's own training clips, because
            the lists were made to keep other collections away from this dataset.
    """

    name: str
    read: Callable[[Storage], DatasetTables]
    published: Mapping[str, tuple[int, int]]
    splits: tuple[str, ...]
    protected: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    least_audio: float = 0.95
    exclusion_lists_apply: bool = True


class PublishedCaption(NamedTuple):
    """A caption as its dataset publishes it.

    ``onset`` and ``offset`` are seconds in the clip; both are None if the caption describes the whole clip.
    """

    text: str
    kind: str  # human | machine | label
    onset: float | None = None
    offset: float | None = None

    @property
    def normal_form(self) -> tuple[str, float | None, float | None]:
        """The caption without differences of case and spacing; equal for two spellings of one caption."""
        return " ".join(self.text.casefold().split()), self.onset, self.offset


def fold_split(fold: str, splits: Collection[str], file: str, row: int) -> str:
    """The split ``fold<number>`` that a cell of a table names; ``InputError`` if the dataset has no such fold."""
    split = f"fold{fold.strip()}"
    if split not in splits:
        raise InputError("the dataset has no such fold", file=file, row=row, value=fold, remedy=FETCH_AGAIN)
    return split


def label_caption(name: str) -> PublishedCaption:
    """The name of a class, as a caption of kind ``label``: ``crying_baby`` becomes ``crying baby``."""
    return PublishedCaption(" ".join(name.replace("_", " ").split()), "label")


@dataclass(slots=True)
class _Clip:
    """One row of CATALOGUE; the fields are its columns."""

    clip_id: str
    dataset: str
    part: str
    split: str
    path: str | None
    problem: str | None
    captions: list[PublishedCaption]
    identity: str | None
    interval: tuple[float, float | None] | None
    licence: str | None
    uploader: str | None
    title: str | None
    keywords: list[str]
    published_duration_s: float | None
    notes: list[str] = field(default_factory=list)


class CatalogueBuilder:
    """Collects the CATALOGUE rows of one dataset.

    Args:
        dataset: its name.
        outside: paths to which links lead out of the dataset's folder; their audio is never read.
    """

    def __init__(self, dataset: str, outside: Collection[str] = ()) -> None:
        self.dataset, self._outside = dataset, outside
        self._clips: dict[str, _Clip] = {}  # by clip_id, in published order

    def __len__(self) -> int:
        return len(self._clips)

    def __contains__(self, clip_id: str) -> bool:
        return clip_id in self._clips

    def clip_id(self, part: str, stem: str) -> str:
        """``<dataset>/<part>/<stem>``, the stem verbatim."""
        return f"{self.dataset}/{part}/{stem}"

    def add(
        self,
        part: str,
        stem: str,
        *,
        path: str | None,
        captions: Sequence[PublishedCaption] = (),
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
        """Add one clip.

        Args:
            part, stem: make the clip_id.
            path: the path of the audio below the dataset's folder; None: the audio is missing.
            split: default: the part.
            interval: (start, end) in seconds of the original recording; the end is None if it is not known.
            duration_s: as published, in seconds.
            out_of_root: whether the table names a file outside the dataset's folder, which is never read.
            captions, identity, licence, uploader, title, keywords, notes: columns of CATALOGUE.

        Raises:
            InputError: there is a clip of this name already.
        """
        clip_id = self.clip_id(part, stem)
        if clip_id in self:
            raise InputError(
                "two recordings would have one name", value=clip_id, remedy="give one of them another file name"
            )
        problem = "out_of_root" if out_of_root or path in self._outside else "missing" if path is None else None
        self._clips[clip_id] = _Clip(
            clip_id, self.dataset, part, split or part, None if problem else path, problem, list(captions), identity,
            interval, licence or None, uploader or None, title or None, list(keywords), duration_s, list(notes),
        )  # fmt: skip

    def merge(self, clip_id: str, captions: Iterable[PublishedCaption], note: str) -> None:
        """Give a clip the captions that it lacks; one that differs only in case or spacing is not new."""
        own = self._clips[clip_id].captions
        known = {caption.normal_form for caption in own}
        for caption in captions:
            if caption.normal_form not in known:
                known.add(caption.normal_form)
                own.append(caption)
        self.note(clip_id, note)

    def note(self, clip_id: str, note: str) -> None:
        """Add a remark to a clip, once."""
        notes = self._clips[clip_id].notes
        if note not in notes:
            notes.append(note)

    def used_paths(self) -> set[str]:
        """The audio files that the rows name."""
        return {clip.path for clip in self._clips.values() if clip.path is not None}

    def table(self) -> pa.Table:
        """CATALOGUE.

        Raises:
            InputError: a text holds half a surrogate pair, which JSON can spell and UTF-8 cannot encode.
        """
        try:
            return pa.table([self._column(column) for column in CATALOGUE], schema=CATALOGUE)
        except UnicodeEncodeError as error:
            raise InputError(
                "the row holds half of a character (an unpaired surrogate)",
                value=self._not_encodable(),
                remedy="correct the table",
            ) from error

    def _column(self, column: pa.Field) -> pa.Array:
        values: list[Any] = list(map(operator.attrgetter(column.name), self._clips.values()))
        if column.name == "captions":
            return _captions(values)
        if column.name == "interval":
            return _intervals(values)
        return pa.array(values, column.type)

    def _not_encodable(self) -> str | None:
        """The first clip with a text that cannot be encoded."""
        for clip_id, clip in self._clips.items():
            try:
                json.dumps([getattr(clip, name) for name in CATALOGUE.names], ensure_ascii=False).encode()
            except UnicodeEncodeError:
                return clip_id
        return None


def _captions(clips: list[list[PublishedCaption]]) -> pa.Array:
    offsets = [0]
    flat: list[PublishedCaption] = []
    for captions in clips:
        flat.extend(captions)
        offsets.append(len(flat))
    columns = zip(*flat, strict=True) if flat else iter([()] * 4)
    arrays = [pa.array(list(column), field.type) for field, column in zip(CAPTION, columns, strict=False)]
    arrays.append(pa.nulls(len(flat), pa.string()))  # source: a published caption is the clip's own
    struct = pa.StructArray.from_arrays(arrays, fields=list(CAPTION))
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), struct)


def _intervals(clips: list[tuple[float, float | None] | None]) -> pa.Array:
    starts = pa.array([None if interval is None else interval[0] for interval in clips], pa.float64())
    ends = pa.array([None if interval is None else interval[1] for interval in clips], pa.float64())
    unknown = pa.array([interval is None for interval in clips], pa.bool_())
    return pa.StructArray.from_arrays([starts, ends], fields=list(INTERVAL), mask=unknown)


def orphans_table(dataset: str, why: Mapping[str, str]) -> pa.Table:
    """ORPHANS of one dataset, sorted by path; ``why`` maps each path to the reason."""
    names = sorted(why)
    columns = [[dataset] * len(names), names, [why[name] for name in names]]
    return pa.table([pa.array(column, pa.string()) for column in columns], schema=ORPHANS)
