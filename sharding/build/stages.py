"""The stages of a build.  Each keeps its result in files, so that a killed build finds what is finished.

==============  ==============================================  =====================================================
stage           what it does                                    what shows that it is finished
==============  ==============================================  =====================================================
catalogue       reads the published tables                      ``OUT/.build/catalogue.json``
probe           decodes every clip once                         the facts of each batch of clips
match           compares the sound of all clips                 ``OUT/matches.parquet``
decide          gives every clip one fate                       nothing: it is a pure function of the above
plan            chooses the shard and the place of each sample  ``OUT/.build/plan.json``
write           copies the samples into shards                  the record of each shard
==============  ==============================================  =====================================================
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from sharding import layout
from sharding.audio import AudioForm
from sharding.build.claim import Claim
from sharding.build.clips import Clips, OwnClips
from sharding.build.failure_limit import FailureLimit, count_failed
from sharding.build.finish import store_final_facts
from sharding.build.inputs import note_inputs, noted_inputs
from sharding.build.state import Marker
from sharding.catalogue.archives import require_unpacked
from sharding.catalogue.table import Catalogue, build_catalogue, check_protected
from sharding.checks import conform, read_checked
from sharding.common.errors import InputError
from sharding.common.progress import Progress
from sharding.common.runners import Runner
from sharding.common.storage import Storage
from sharding.dedup.candidates import JoinSettings
from sharding.dedup.comparing import MatchSettings
from sharding.dedup.identity import identity_matches
from sharding.dedup.matching import find_matches
from sharding.fates.decide import decide, trimmed_parts
from sharding.fates.moments import Outside, captions_outside
from sharding.fates.protection import SplitProtection, check_protection, protection
from sharding.fates.trimming import WindowPart
from sharding.layout import Work, catalogue_name, facts_name, trimmed_name, work_of
from sharding.probe.batch import Batch, Prober
from sharding.probe.trim import trim_batch
from sharding.reports.facts import read_facts
from sharding.rows import column, optional_column
from sharding.schema import CATALOGUE, FACTS, MATCHES
from sharding.settings import BuildSettings
from sharding.shards.manifest import ShardRecord
from sharding.shards.plan import make_plan, with_keys
from sharding.shards.write import StoredPlan, store_plan, write_shards
from sharding.sources.exclusion import listed, read_exclusion_list
from sharding.sources.generic import row_of_times

BATCH_CLIPS = 64
BATCH_SECONDS = 1200.0
_UNKNOWN_DURATION_S = 10.0  # assumed at least for a clip whose duration no table gives
_BYTES_A_SECOND = 176_400  # 44.1 kHz, 16 bit, stereo: few recordings take more, so this is the shortest duration
Item = TypeVar("Item")
Result = TypeVar("Result")


class Written(NamedTuple):
    """The shards of a build: their records, and the hash of the plan."""

    records: list[ShardRecord]
    plan: str


class Stages:
    """The stages of one build.

    Args:
        settings: what to build.
        out: the storage of OUT.
        runner: where batches are probed and shards written.
        claim: the lock on OUT; the stages stop when another builder took it.
        clips: all clips that are compared; None: those of this build alone.
        reopenings: how often a finished build, to which this one will be added, was reopened.
        allow_unprotected: go on where too little audio of a protected split can be read.
        max_failed: how many clips may fail; None: all.
    """

    def __init__(
        self,
        settings: BuildSettings,
        out: Storage,
        runner: Runner,
        claim: Claim,
        clips: Clips | None = None,
        reopenings: int = 0,
        allow_unprotected: bool = False,
        max_failed: FailureLimit | None = None,
    ) -> None:
        self.settings, self.out, self.runner, self.claim = settings, out, runner, claim
        self.work = work_of(out)
        self.clips = clips or OwnClips(self.work)
        self._reopenings = reopenings
        self.allow_unprotected, self.max_failed = allow_unprotected, max_failed

    @property
    def marker(self) -> Marker:
        """The marker that the catalogue is complete; it must exist."""
        return Marker.read(self.work)

    def read_sources(self) -> Catalogue:
        """The catalogue as the published tables read today.

        Raises:
            InputError: a table, an exclusion list or a protected split is not what the settings say, or too many audio
                files of a protected split are missing.
        """
        for path in self.settings.exclude:
            read_exclusion_list(str(path))
        found = build_catalogue(
            self.settings.roots, self.settings.sources, self.settings.follow_links, self.settings.split_seed
        )
        require_unpacked(found, {**self.settings.roots, **self.settings.sources})
        check_protected(found.table, self.settings.sources, self.settings.fates.protect)
        self.protection(found.table, None)
        return found

    def catalogue(self) -> pa.Table:
        """CATALOGUE.  The published tables are read once, so that an interrupted build continues with the same rows."""
        if not self.work.exists(Work.MARKER):
            found = self.read_sources()
            for dataset in (*self.settings.roots, *self.settings.sources):
                self.out.write_table(catalogue_name(dataset), found.of(dataset))
            self.out.write_table(layout.ORPHANS, found.orphans)
            roots = {**self.settings.roots, **self.settings.sources}
            self.work.write_table(Work.INPUTS, note_inputs(found.table, roots).sort_by("clip_id"))
            self.work.write(Work.MARKER, Marker.of(found, self._reopenings).as_bytes())
        return pa.concat_tables(
            [read_checked(self.out, catalogue_name(name), CATALOGUE) for name in self.marker.datasets]
        )

    def probe(self, catalogue: pa.Table) -> pa.Table:
        """FACTS of every clip.  A batch that has its facts already is not probed again."""
        finished = set(self.work.list(Work.FACTS))
        unknown = catalogue
        if Work.KEPT_FACTS in finished:
            kept = read_checked(self.work, Work.KEPT_FACTS, FACTS, ["clip_id"])["clip_id"]
            unknown = catalogue.filter(pc.invert(pc.is_in(catalogue["clip_id"], kept)))
        every = batches(unknown, noted_inputs(self.work), self.marker.reopenings)
        todo = [batch for batch in every if facts_name(batch.name) not in finished]
        prober = Prober(self.settings.dataset_folders(), self.work, self.settings.probe)
        remaining = sum(batch.clips.num_rows for batch in todo)
        todo[:1] = [batch._replace(in_steps=True) for batch in todo[:1]]  # builds that are often killed advance too
        progress = self.progress("probe", catalogue.num_rows, "clips", done=catalogue.num_rows - remaining)
        for probed in self.spread(prober, todo):
            progress.add(probed.clips, probed.failures)
            self._check_failed(progress.failed - progress.failures["missing"], catalogue)
        progress.finish()
        facts = read_facts(self.work)
        self._check_failed(count_failed(facts), catalogue)
        return facts

    def _check_failed(self, failed: int, catalogue: pa.Table) -> None:
        if self.max_failed is not None:
            self.max_failed.check(failed, catalogue.num_rows, self.out.url)

    def protection(self, catalogue: pa.Table, facts: pa.Table | None) -> list[SplitProtection]:
        """How many clips of each protected split could be compared (see ``sharding.fates.protection``).

        Raises:
            InputError: too little audio of a protected split can be read, unless that is allowed.
        """
        found = protection(catalogue, facts, self.settings.fates.protect)
        if not self.allow_unprotected:
            check_protection(found)
        return found

    def captions_outside(self, catalogue: pa.Table, facts: pa.Table) -> Iterator[Outside]:
        """The captions of users' own datasets whose times are not in their recordings."""
        return captions_outside(catalogue, facts, self.settings.sources)

    def check_times(self, catalogue: pa.Table, facts: pa.Table) -> None:
        """Refuse captions whose times are not in their recordings.

        Raises:
            InputError: there is one; names the row of the user's table.
        """
        if (one := next(self.captions_outside(catalogue, facts), None)) is not None:
            root = Storage(self.settings.sources[one.dataset], self.settings.follow_links)
            file, row = row_of_times(root, one.path, one.onset, one.offset)
            raise InputError(
                f"a caption describes a part of {one.path} that does not exist: the file is {one.duration_s:g} s long",
                file=file,
                row=row,
                value=f"{one.onset:g} to {one.offset:g} s",
                remedy="give onset and offset in seconds of the file; then run the same command again, it continues",
            )

    def match(self, catalogue: pa.Table, facts: pa.Table) -> pa.Table:
        """MATCHES of all clips, from ids and from sound; what an earlier or a killed build compared is not repeated."""
        if not self.out.exists(layout.MATCHES):
            all_clips, all_facts = self.clips.tables(catalogue, facts)
            fates = self.settings.fates
            settings = MatchSettings(
                protect=fates.protect,
                every_place=fates.leaks == "trim",  # what is cut out must be known in full
                join=JoinSettings(scratch=self.work.url),  # workers on other nodes see this folder too
                removal_share=fates.same_interval,
            )
            found = find_matches(
                all_clips,
                all_facts,
                self.clips.fingerprints(),
                self.clips.wave(),
                identity_matches(all_clips),
                settings,
                self.spread,
                *self.clips.known(),
                self.progress,
                self.work.child(Work.MATCHING),
            )
            self.claim.check()
            self.out.write_table(layout.MATCHES, found)
        self.work.remove_tree(Work.MATCHING)
        return read_checked(self.out, layout.MATCHES, MATCHES)

    def decide(self, catalogue: pa.Table, facts: pa.Table, matches: pa.Table) -> pa.Table:
        """FATES, without the keys of samples."""
        return decide(catalogue, facts, matches, self.excluded(catalogue), self.settings.fates)

    def excluded(self, catalogue: pa.Table) -> set[str]:
        """Clips that an exclusion list names."""
        lists = [read_exclusion_list(str(path)) for path in self.settings.exclude]
        return set(listed(catalogue, lists))

    def write(self, catalogue: pa.Table, facts: pa.Table, matches: pa.Table, fates: pa.Table) -> Written:
        """The shards and their manifests, by a plan; ``fates.parquet`` gets the keys of each clip's samples.

        Shards that have a record are finished; the others are written.
        """
        if not self.work.exists(Work.PLAN):
            what_is_written = self._trim(catalogue, facts, matches, fates)
            rate = self.settings.probe.form.rate
            rows = make_plan(catalogue, what_is_written, fates, matches, self.settings.plan, rate)
            stored, samples = store_plan(rows, self.out)
            self.out.write_table(layout.FATES, with_keys(fates, samples))
            self.claim.check()
            self.work.write(Work.PLAN, json.dumps(stored).encode())
        plan = conform(self.work.read_json(Work.PLAN), StoredPlan, self.work.name(Work.PLAN))
        records = write_shards(plan["shards"], self.out, self.spread, self.progress)
        store_final_facts(self.out, facts, plan["shards"])
        self.claim.check()
        return Written(records, plan["hash"])

    def _trim(self, catalogue: pa.Table, facts: pa.Table, matches: pa.Table, fates: pa.Table) -> pa.Table:
        """FACTS of what is written: windows of trimmed clips are cut to the part that is left, and encoded again."""
        trimmed = pc.equal(fates["reason"], "trimmed")
        if not pc.any(trimmed, min_count=0).as_py():
            return facts
        chosen = pc.is_in(facts["clip_id"], fates.filter(trimmed)["clip_id"].combine_chunks())
        left = trimmed_parts(*self.clips.tables(catalogue, facts), matches, self.settings.fates)
        todo = _trim_batches(facts.filter(chosen), left, self.marker.reopenings)
        unfinished = [batch for batch in todo if not self.work.exists(trimmed_name(batch.name))]
        clips = sum(batch.facts.num_rows for batch in todo)
        remaining = sum(batch.facts.num_rows for batch in unfinished)
        progress = self.progress("trim", clips, "clips", done=clips - remaining)
        for count in self.spread(functools.partial(_trim, work=self.work, form=self.settings.probe.form), unfinished):
            progress.add(count)
        progress.finish()
        cut = [read_checked(self.work, trimmed_name(batch.name), FACTS) for batch in todo]
        return pa.concat_tables([facts.filter(pc.invert(chosen)), *cut])

    def progress(self, what: str, total: int | None, unit: str, done: int = 0) -> Progress:
        """Begins to show progress; ``done`` units of the total were done by an earlier run."""
        return Progress(what, total, unit, self.runner.watch, done=done)

    def spread(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """The runner's ``map``; it ends with an error when another builder took the lock."""
        return self.claim.guarded(self.runner.map(function, items))


def batches(catalogue: pa.Table, inputs: pa.Table, reopenings: int) -> list[Batch]:
    """Cut a catalogue into batches of about equal work; they depend on the arguments only.

    Args:
        catalogue: CATALOGUE of the clips.
        inputs: INPUTS: a large file lasts long, also where no table tells how long.
        reopenings: how often the build was reopened.
    """
    sizes = dict(zip(column(inputs, "clip_id", str), optional_column(inputs, "bytes", int), strict=True))
    prefix = f"again{reopenings}-" if reopenings else ""
    durations = [
        max(_UNKNOWN_DURATION_S, (sizes.get(clip) or 0) / _BYTES_A_SECOND) if published is None else published
        for clip, published in zip(
            column(catalogue, "clip_id", str), optional_column(catalogue, "published_duration_s", float), strict=True
        )
    ]
    return [Batch(f"{prefix}{number:06d}", catalogue.take(some)) for number, some in enumerate(_portions(durations))]


def _portions(durations: Sequence[float]) -> Iterator[list[int]]:
    """The rows of each batch: at most BATCH_CLIPS clips, which last about BATCH_SECONDS together.

    They are taken from a table, not sliced: a pickled slice carries the whole table to the worker.
    """
    start, seconds = 0, 0.0
    for row, duration in enumerate(durations):
        seconds += duration
        if row == len(durations) - 1 or row + 1 - start >= BATCH_CLIPS or seconds >= BATCH_SECONDS:
            yield list(range(start, row + 1))
            start, seconds = row + 1, 0.0


class TrimBatch(NamedTuple):
    """Clips that are trimmed together: the name of their files, their FACTS, and what is left of each."""

    name: str
    facts: pa.Table
    left: dict[str, list[WindowPart]]


def _trim_batches(facts: pa.Table, left: Mapping[str, list[WindowPart]], reopenings: int) -> list[TrimBatch]:
    found = []
    for portion in _portions(column(facts, "duration_s", float)):
        some = facts.take(portion)
        parts = {clip_id: left[clip_id] for clip_id in column(some, "clip_id", str)}
        found.append(TrimBatch(f"trimmed-{reopenings}-{portion[0]:06d}-{portion[-1]:06d}", some, parts))
    return found


def _trim(batch: TrimBatch, work: Storage, form: AudioForm) -> int:
    return trim_batch(batch.name, batch.facts, batch.left, work, form)
