"""The tables of a finished build as its pages need them, and the sound of its clips."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections import defaultdict
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple, TypedDict, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import soundfile as sf
from numpy.typing import NDArray

from sharding import layout
from sharding.audio import AudioError, decode_segment
from sharding.catalogue.overview import read_overview
from sharding.checks import conform, read_checked
from sharding.common.errors import InputError
from sharding.common.excerpts import excerpt, player, spectrogram
from sharding.common.storage import Storage
from sharding.dedup.grouping import relations
from sharding.reports.facts import finished_facts
from sharding.rows import Caption, MatchRow, rows
from sharding.schema import CATALOGUE, FATES, MATCHES
from sharding.shards.agreement import require_agreement
from sharding.shards.manifest import Manifest

EXCERPT_S = 6.0  # of each sound, so that a page stays below about 5 MB
Row = TypeVar("Row", bound=tuple)


class CatalogueEntry(NamedTuple):
    """The columns of CATALOGUE that pages use."""

    clip_id: str
    dataset: str
    split: str
    path: str | None
    captions: list[Caption]
    notes: list[str]


class FirstSample(NamedTuple):
    """The columns of MANIFEST that pages use, for the first window of a clip."""

    clip_id: str
    dataset: str
    split: str
    shard: str
    audio_offset: int
    audio_bytes: int
    start_s: float
    duration_s: float
    captions: list[Caption]
    licence: str | None


class SourceFacts(NamedTuple):
    """The columns of FACTS that pages use: the probe's remark about a clip, and which file it read."""

    clip_id: str
    detail: str | None
    source_sha256: str | None


class _DatasetFolders(TypedDict):
    """What pages use of the settings of a build: the folder of each published dataset and of each other source."""

    roots: dict[str, str]
    sources: dict[str, str]


@dataclass(frozen=True)
class ClipView:
    """A clip as a page shows it; ``sound`` and ``picture`` are data URIs, or None if no sound can be read."""

    clip_id: str
    caption: str
    sound: str | None
    picture: str | None


class BuildContents:
    """Everything that a page shows of a build.

    Clips stay in Arrow tables, because half a million of them as Python objects fill gigabytes.

    Attributes:
        samples: MANIFEST.
        first: the rows of MANIFEST of every clip's first window, with the columns of FirstSample.
        fates: FATES.
        catalogue: the columns of CatalogueEntry.
        relations: the Relation of each pair of clips with evidence; a pair has the smaller clip_id first.
        methods: the kinds of evidence (``method`` of MATCHES) that do not say that the two clips differ, by pair.
        overview: ``overview.json``.

    Raises:
        InputError: a file is damaged, or two tables disagree about which clips the build has.
    """

    def __init__(self, manifest: Manifest) -> None:
        self.manifest, self.storage = manifest, manifest.storage
        self.dataset, self.samples = manifest.dataset, manifest.table
        require_agreement(manifest)
        self.fates = read_checked(self.storage, layout.FATES, FATES)
        matches = read_checked(self.storage, layout.MATCHES, MATCHES)
        self.relations = {(one.a, one.b): one for one in relations(matches)}
        self.methods: dict[tuple[str, str], set[str]] = defaultdict(set)
        for match in rows(matches, MatchRow):
            if match.outcome != "different":
                self.methods[match.a, match.b].add(match.method)
        columns = list(CatalogueEntry._fields)
        parts = [read_checked(self.storage, name, CATALOGUE, columns) for name in manifest.catalogue()]
        self.catalogue = pa.concat_tables(parts or [CATALOGUE.empty_table().select(columns)])
        self._facts = finished_facts(self.storage, list(SourceFacts._fields))
        first_windows = self.samples.filter(pc.equal(self.samples["window"], 0))
        self.first = first_windows.select(list(FirstSample._fields))
        self.overview = read_overview(self.storage)
        self._folders = self._dataset_folders()

    def _dataset_folders(self) -> dict[str, Storage]:
        """The folder of each dataset when the build was made; empty if the build does not have it any more."""
        work = layout.work_of(self.storage)
        if not work.exists(layout.Work.SETTINGS):
            return {}
        settings = work.read_json(layout.Work.SETTINGS)
        found = conform(settings, _DatasetFolders, work.name(layout.Work.SETTINGS))
        follow_links = settings.get("follow_links") is True
        return {name: Storage(folder, follow_links) for name, folder in {**found["roots"], **found["sources"]}.items()}

    def wave(self, clip_id: str, seconds: float = EXCERPT_S, start_s: float = 0.0) -> tuple[NDArray, int] | None:
        """A part of a clip as mono float32 [n], and its rate in Hz; None if no sound can be read.

        The sound comes from the shards where these hold it, else from the dataset's folder.  A file of this folder is
        played only if it is still the one that the build read: the build may come from somebody else, and name any
        folder of this machine.
        """
        try:
            sample = _find(self.first, FirstSample, clip_id)
            if sample is not None and 0 <= start_s - sample.start_s < sample.duration_s:
                shard = layout.shard_name(sample.shard)
                contents = self.storage.read(shard, sample.audio_offset, sample.audio_bytes)
                wave, rate = decode_segment(contents, start_s - sample.start_s, seconds)
                return np.asarray(wave), rate
            entry, facts = _find(self.catalogue, CatalogueEntry, clip_id), _find(self._facts, SourceFacts, clip_id)
            if entry is None or facts is None or entry.path is None or entry.dataset not in self._folders:
                return None
            with self._folders[entry.dataset].open(entry.path) as source:
                if _sha256(source) != facts.source_sha256:
                    return None
                source.seek(0)
                return excerpt(source, seconds, start_s)
        except (InputError, OSError, AudioError, sf.LibsndfileError, zipfile.BadZipFile, zlib.error):
            return None

    def view(self, clip_id: str, start_s: float = 0.0) -> ClipView:
        """A clip as a page shows it, with a player that starts at ``start_s`` of the clip."""
        sound, entry = self.wave(clip_id, start_s=start_s), _find(self.catalogue, CatalogueEntry, clip_id)
        return ClipView(
            clip_id,
            first_caption(entry.captions if entry else []),
            player(*sound) if sound else None,
            spectrogram(*sound, columns=240) if sound else None,
        )

    def detail(self, clip_id: str) -> str | None:
        """The probe's remark about a clip, in words."""
        found = _find(self._facts, SourceFacts, clip_id)
        return found.detail if found else None


def _sha256(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def first_caption(captions: list[Caption]) -> str:
    """The text of the first caption."""
    return captions[0]["text"] if captions else "(no caption)"


def _find(table: pa.Table, row: type[Row], clip_id: str) -> Row | None:
    """The first row of a clip; None if the table has none."""
    position = pc.index(table["clip_id"], clip_id).as_py()
    return next(rows(table.slice(position, 1), row)) if position >= 0 else None
