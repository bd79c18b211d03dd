"""The clips that a build compares: its own, and, where it is added to a finished build, those of that build too."""

from __future__ import annotations

import functools
import itertools
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sharding import layout
from sharding.build.state import Marker
from sharding.checks import read_checked
from sharding.common.errors import MEND, InputError
from sharding.common.storage import Storage
from sharding.dedup.comparing import Wave
from sharding.dedup.fingerprint import RATE
from sharding.layout import Work, catalogue_name, finished_pack_name, work_of
from sharding.probe.packs import PackReader
from sharding.reports.facts import read_facts
from sharding.rows import column
from sharding.schema import CATALOGUE, FACTS, FATES, FINGERPRINTS, MATCHES
from sharding.settings import BuildSettings
from sharding.shards.contents import require_whole
from sharding.shards.manifest import Manifest


class Clips(Protocol):
    """Gives the stages of a build all clips that are compared."""

    def tables(self, catalogue: pa.Table, facts: pa.Table) -> tuple[pa.Table, pa.Table]:
        """CATALOGUE and FACTS of all clips, given those of the build's own."""
        ...

    def known(self) -> tuple[pa.Table | None, set[str]]:
        """MATCHES that were found before, or None; and the clips that were compared then."""
        ...

    def fingerprints(self) -> Iterator[pa.Table]:
        """FINGERPRINTS of all clips, table after table."""
        ...

    def wave(self) -> Wave:
        """A function that reads the sound of any clip, in any worker."""
        ...


@dataclass(frozen=True)
class OwnClips:
    """The clips of a build that is not added to another one.

    Attributes:
        work: its work folder.
    """

    work: Storage

    def tables(self, catalogue: pa.Table, facts: pa.Table) -> tuple[pa.Table, pa.Table]:
        return catalogue, facts

    def known(self) -> tuple[pa.Table | None, set[str]]:
        if not self.work.exists(Work.KNOWN_MATCHES):
            return None, set()
        kept = read_checked(self.work, Work.KEPT_FACTS, FACTS, ["clip_id"])
        return read_checked(self.work, Work.KNOWN_MATCHES, MATCHES), set(column(kept, "clip_id", str))

    def fingerprints(self) -> Iterator[pa.Table]:
        return (_fingerprints(self.work, name) for name in self.work.list(Work.FINGERPRINTS))

    def wave(self) -> Wave:
        return functools.partial(_wave, work=self.work, run=uuid.uuid4().hex)


@dataclass(frozen=True)
class FinishedBuild:
    """The tables of a finished build to which datasets are added.

    Attributes:
        out: its storage.
        settings, marker, manifest: what they are named for.
        catalogue, facts, matches, fates: CATALOGUE, FACTS, MATCHES and FATES of its clips.
    """

    out: Storage
    settings: BuildSettings
    marker: Marker
    manifest: Manifest
    catalogue: pa.Table
    facts: pa.Table
    matches: pa.Table
    fates: pa.Table

    @staticmethod
    def read(out: Storage, settings: BuildSettings) -> FinishedBuild:
        """Read the tables.

        Raises:
            InputError: a shard, a manifest or a file of the work folder is damaged.
        """
        require_whole(out)
        manifest, marker = Manifest.open(out.url), Marker.read(work_of(out))
        catalogue = pa.concat_tables([read_checked(out, catalogue_name(name), CATALOGUE) for name in marker.datasets])
        facts = read_checked(work_of(out), Work.KEPT_FACTS, FACTS)
        matches, fates = read_checked(out, layout.MATCHES, MATCHES), read_checked(out, layout.FATES, FATES)
        return FinishedBuild(out, settings, marker, manifest, catalogue, facts, matches, fates)


@dataclass(frozen=True)
class OldAndNewClips:
    """The clips of a finished build, and new ones.

    Attributes:
        old: the finished build.
        new: the new clips.
    """

    old: FinishedBuild
    new: OwnClips

    def tables(self, catalogue: pa.Table, facts: pa.Table) -> tuple[pa.Table, pa.Table]:
        return pa.concat_tables([self.old.catalogue, catalogue]), pa.concat_tables([self.old.facts, facts])

    def known(self) -> tuple[pa.Table | None, set[str]]:
        return self.old.matches, set(column(self.old.catalogue, "clip_id", str))

    def fingerprints(self) -> Iterator[pa.Table]:
        return itertools.chain(OwnClips(work_of(self.old.out)).fingerprints(), self.new.fingerprints())

    def wave(self) -> Wave:
        return functools.partial(_wave_of_both, old=self.old.out, work=self.new.work, run=uuid.uuid4().hex)


def _fingerprints(work: Storage, name: str) -> pa.Table:
    table = read_checked(work, name, FINGERPRINTS)
    sizes = (pc.binary_length(table[part]) for part in ("codes", "flags"))
    if not pc.all(pc.equal(next(sizes), pc.multiply(next(sizes), 4)), min_count=0).as_py():
        raise InputError("not one code for each flag", file=work.name(name), remedy=MEND)
    return table


# Workers read the facts once a run of the builder, because they are too large to travel with every task.  A worker may
# outlive a run, so the name of the run is part of the caches' keys.


@functools.lru_cache(maxsize=1)
def _reader(work: Storage, run: str) -> PackReader:
    return PackReader(work, read_facts(work))


@functools.lru_cache(maxsize=1)
def _old_reader(old: Storage, run: str) -> tuple[frozenset[str], PackReader]:
    facts = read_checked(work_of(old), Work.KEPT_FACTS, FACTS)
    return frozenset(column(facts, "clip_id", str)), PackReader(old, facts, finished_pack_name)


def _wave(clip_id: str, start_s: float, duration_s: float, rate: int = RATE, *, work: Storage, run: str) -> np.ndarray:
    return _reader(work, run).wave(clip_id, start_s, duration_s, rate)


def _wave_of_both(
    clip_id: str, start_s: float, duration_s: float, rate: int = RATE, *, old: Storage, work: Storage, run: str
) -> np.ndarray:
    ids, reader = _old_reader(old, run)
    if clip_id in ids:
        return reader.wave(clip_id, start_s, duration_s, rate)
    return _wave(clip_id, start_s, duration_s, rate, work=work, run=run)
