"""The stages of a build in order, each of which a killed build finds finished or does again.

What is finished is told by files alone: a batch's facts, the matches, the fates, a shard's record, and
``dataset.json``, which is written last.
"""

from __future__ import annotations

import functools
import hashlib
import json
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sharding import layout
from sharding.audio import AudioForm
from sharding.build.claim import Claim
from sharding.build.reopening import catalogue_marker
from sharding.catalogue.overview import overview, overview_bytes
from sharding.catalogue.table import Catalogue, build_catalogue, check_protected
from sharding.common.errors import InputError
from sharding.common.progress import Progress
from sharding.common.runners import Runner
from sharding.common.storage import Storage
from sharding.dedup.candidates import JoinSettings
from sharding.dedup.identity import identity_matches
from sharding.dedup.matching import MatchSettings, Wave, find_matches
from sharding.fates.decide import decide, stretches
from sharding.fates.trimming import Part
from sharding.layout import Work, catalogue_name, facts_name, manifest_name, pack_name, plan_name, trimmed_name, work_of
from sharding.probe.batch import Prober
from sharding.probe.packs import PackReader
from sharding.probe.trim import trim_batch
from sharding.reports.facts import read_facts
from sharding.schema import FORMAT_VERSION
from sharding.settings import BuildSettings, cpu, versions
from sharding.shards.manifest import dataset_bytes
from sharding.shards.plan import make_plan, with_keys
from sharding.shards.write import store_plan, write_shards
from sharding.sources.exclusion import listed, read_exclusion_list

BATCH_CLIPS = 64
BATCH_SECONDS = 1200.0
_GUESS_S = 10.0  # duration of a clip whose tables do not tell it


class Stages:
    """The stages of one build.

    Args:
        settings: what to build.
        out: the storage of OUT.
        runner: where batches are probed and shards written.
        claim: the right to build here; the stages stop where it is lost.
    """

    def __init__(self, settings: BuildSettings, out: Storage, runner: Runner, claim: Claim) -> None:
        self.settings, self.out, self.runner, self.claim = settings, out, runner, claim
        self.work = work_of(out)
        self.roots = {**settings.roots, **settings.sources}

    def run(self) -> None:
        catalogue = self.catalogue()
        facts = self.probe(catalogue)
        matches = self.matches(catalogue, facts)
        fates = self.fates(catalogue, facts, matches)
        shards, digest = self.plan(catalogue, facts, matches, fates)
        records = self.write(shards)
        self.settle_facts(facts, shards)
        self.claim.check()
        self.commit(catalogue, records, digest)

    def read_sources(self) -> Catalogue:
        """The catalogue as the published tables read today; what is wrong with what was asked for is refused here."""
        for path in self.settings.exclude:
            read_exclusion_list(str(path))
        found = build_catalogue(dict(self.settings.roots), dict(self.settings.sources))
        check_protected(found.table, self.settings.sources, self.settings.fates.protect)
        return found

    def catalogue(self) -> pa.Table:
        """The catalogue; read from the published tables once, so that an interrupted build goes on with the same."""
        if not self.work.exists(Work.MARKER):
            found = self.read_sources()
            for dataset in self.roots:
                self.out.write_table(catalogue_name(dataset), found.of(dataset))
            self.out.write_table(layout.ORPHANS, found.orphans)
            self.work.write(Work.MARKER, json.dumps(catalogue_marker(found, self.first_generation())).encode())
        names = self.marker()["datasets"]
        return pa.concat_tables([self.out.read_table(catalogue_name(name)) for name in names])

    def first_generation(self) -> int:
        """The number that names what this build adds to a work folder; see ``reopening.catalogue_marker``."""
        return 0

    def marker(self) -> dict[str, Any]:
        return self.work.read_json(Work.MARKER)

    def probe(self, catalogue: pa.Table) -> pa.Table:
        """Facts of every clip: batches whose facts are there are done."""
        have = set(self.work.list(Work.FACTS))
        rows = catalogue
        if Work.KEPT_FACTS in have:
            kept = self.work.read_table(Work.KEPT_FACTS, ["clip_id"])["clip_id"]
            rows = catalogue.filter(pc.invert(pc.is_in(catalogue["clip_id"], kept)))
        todo = [batch for batch in batches(rows, self.marker()["generation"]) if facts_name(batch[0]) not in have]
        prober = Prober(self.roots, self.work, self.settings.probe)
        progress = self.progress("probe", sum(rows.num_rows for _, rows in todo), "clips")
        for probed in self.spread(prober, todo):
            progress.add(probed.clips, probed.failed)
        progress.finish()
        return read_facts(self.work)

    def progress(self, what: str, total: int | None, unit: str) -> Progress:
        return Progress(what, total, unit, self.runner.watch)

    def spread(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        """The runner's ``map``, as long as nobody else took over."""
        return self.claim.guarded(self.runner.map(function, items))

    def known(self) -> tuple[pa.Table | None, set[str]]:
        """Matches of an earlier build, and the clips that it compared."""
        if not self.work.exists(Work.KNOWN_MATCHES):
            return None, set()
        kept = self.work.read_table(Work.KEPT_FACTS, ["clip_id"])["clip_id"]
        return self.work.read_table(Work.KNOWN_MATCHES), set(kept.to_pylist())

    def fingerprints(self) -> Iterator[pa.Table]:
        """All fingerprints, table after table."""
        return fingerprints(self.work)

    def wave(self) -> Wave:
        """Reads the sound of any clip, in any worker."""
        return functools.partial(_wave, url=self.work.url, run=uuid.uuid4().hex)

    def match_settings(self) -> MatchSettings:
        """How sound is compared: where leaks are trimmed, every place of a leak is sought."""
        fates = self.settings.fates
        scratch = JoinSettings(scratch=self.work.url)  # a place that the workers of other nodes see as well
        return MatchSettings(protect=fates.protect, every_place=fates.leaks == "trim", join=scratch)

    def matches(self, catalogue: pa.Table, facts: pa.Table) -> pa.Table:
        """The evidence: ids and sound; what an earlier build knows is not sought again."""
        if not self.out.exists(layout.MATCHES):
            everything, all_facts = self.evidence(catalogue, facts)
            known, old = self.known()
            found = find_matches(
                everything,
                all_facts,
                self.fingerprints(),
                self.wave(),
                identity_matches(everything),
                self.match_settings(),
                self.spread,
                known,
                old,
                self.progress,
            )
            self.claim.check()
            self.out.write_table(layout.MATCHES, found)
        return self.out.read_table(layout.MATCHES)

    def fates(self, catalogue: pa.Table, facts: pa.Table, matches: pa.Table) -> pa.Table:
        """One fate a clip."""
        return decide(catalogue, facts, matches, self.listed(catalogue), self.settings.fates)

    def listed(self, catalogue: pa.Table) -> set[str]:
        """Clips that an exclusion list names."""
        lists = [read_exclusion_list(str(path)) for path in self.settings.exclude]
        return set(listed(catalogue, lists))

    def evidence(self, catalogue: pa.Table, facts: pa.Table) -> tuple[pa.Table, pa.Table]:
        """The catalogue and facts of all clips of which the matches speak."""
        return catalogue, facts

    def trim(self, catalogue: pa.Table, facts: pa.Table, matches: pa.Table, fates: pa.Table) -> pa.Table:
        """Facts of what is written: the windows of trimmed clips are what is left of them, cut and encoded anew."""
        chosen = pc.equal(fates["reason"], "trimmed")
        if not pc.any(chosen, min_count=0).as_py():
            return facts
        wanted = pc.is_in(facts["clip_id"], fates.filter(chosen)["clip_id"].combine_chunks())
        rows, left = facts.filter(wanted), stretches(*self.evidence(catalogue, facts), matches, self.settings.fates)
        todo = []
        for number, start in enumerate(range(0, rows.num_rows, BATCH_CLIPS)):
            some = rows.take(list(range(start, min(start + BATCH_CLIPS, rows.num_rows))))
            name = f"trimmed-{self.marker()['generation']}-{number:06d}"
            todo.append((name, some, {clip_id: left[clip_id] for clip_id in some["clip_id"].to_pylist()}))
        progress = self.progress("trim", rows.num_rows, "clips")
        lacking = [batch for batch in todo if not self.work.exists(trimmed_name(batch[0]))]
        one = functools.partial(_trim, url=self.work.url, form=self.settings.probe.form)
        progress.add(rows.num_rows - sum(some.num_rows for _, some, _ in lacking))
        for clips in self.spread(one, lacking):
            progress.add(clips)
        progress.finish()
        cut = [self.work.read_table(trimmed_name(name)).cast(facts.schema) for name, _, _ in todo]
        return pa.concat_tables([facts.filter(pc.invert(wanted)), *cut])

    def plan(self, catalogue: pa.Table, facts: pa.Table, matches: pa.Table, fates: pa.Table) -> tuple[list[str], str]:
        """Names of the shards, and the plan's hash; ``fates.parquet`` learns each clip's samples."""
        if not self.work.exists(Work.PLAN):
            facts = self.trim(catalogue, facts, matches, fates)
            settings, rate = self.settings.plan, self.settings.probe.form.rate
            plan, samples = store_plan(make_plan(catalogue, facts, fates, matches, settings, rate), self.out)
            self.out.write_table(layout.FATES, with_keys(fates, samples))
            self.describe_inputs(catalogue)
            self.claim.check()
            self.work.write(Work.PLAN, json.dumps(plan).encode())
        plan = self.work.read_json(Work.PLAN)
        return plan["shards"], plan["hash"]

    def describe_inputs(self, catalogue: pa.Table) -> None:
        """``overview.json``: what is remarkable about the datasets, beside their clips' fates."""
        about = overview(catalogue, self.marker()["notes"], self.settings)
        self.out.write(layout.OVERVIEW, overview_bytes(about))

    def write(self, shards: list[str]) -> list[dict[str, Any]]:
        """Shards that have a record are done; the others are written."""
        return write_shards(shards, self.out, self.spread, self.progress)

    def settle_facts(self, facts: pa.Table, shards: list[str]) -> None:
        """The facts as they stand once the build is finished: sound lies in its shards, or in a pack of its own.

        Sound that reached no shard is kept: later clips are compared with it, and it may yet be written.
        """
        if self.work.exists(Work.FINAL_FACTS):
            return
        places = shard_places(self.out, shards)
        pack = f"unwritten-{self.marker()['generation']}.pack"
        with self.work.writer(pack_name(pack)) as file:
            at = 0
            for clip_id, windows in decoded_windows(facts):
                for window in windows:
                    if (clip_id, window["window"]) not in places:
                        file.write(self.work.read(pack_name(window["pack"]), window["offset"], window["bytes"]))
                        places[clip_id, window["window"]] = pack, at
                        at += window["bytes"]
        self.work.write_table(Work.FINAL_FACTS, with_places(facts, places))

    def commit(self, catalogue: pa.Table, records: list[dict[str, Any]], digest: str) -> None:
        """``dataset.json``: from here on the build is finished."""
        fates = self.out.read_table(layout.FATES, ["clip_id", "fate", "reason"])
        if sorted(fates["clip_id"].to_pylist()) != sorted(catalogue["clip_id"].to_pylist()):
            raise InputError("the fates do not add up to the catalogue", file=self.out.name(layout.FATES))
        names = [layout.FATES, layout.MATCHES, layout.ORPHANS, layout.OVERVIEW]
        names += [catalogue_name(dataset) for dataset in self.marker()["datasets"]]
        tables = {name: table_entry(self.out, name) for name in names}
        tables |= {plan_name(record["name"]): table_entry(self.out, plan_name(record["name"])) for record in records}
        dataset = describe(self.settings, catalogue["dataset"], fates, digest) | {"tables": tables, "shards": records}
        self.out.write(layout.DATASET, dataset_bytes(dataset))

    def tidy(self) -> None:
        """Remove what a finished build needs no more, and what killed workers left behind."""
        self.out.sweep()
        if self.work.exists(Work.FINAL_FACTS):
            self.work.write(Work.KEPT_FACTS, self.work.read(Work.FINAL_FACTS))
            for name in self.work.list(Work.FACTS):
                if name != Work.KEPT_FACTS:
                    self.work.remove(name)
            self.work.remove(Work.FINAL_FACTS)
        windows = pc.list_flatten(self.work.read_table(Work.KEPT_FACTS, ["windows"])["windows"])
        needed = set(pc.unique(pc.struct_field(windows, "pack")).to_pylist())
        for name in self.work.list(Work.PACKS):
            if name.removeprefix(f"{Work.PACKS}/") not in needed or name.startswith(
                f"{pack_name(Work.FORMER_SHARDS)}/"
            ):
                self.work.remove(name)
        for folder in (Work.TASKS, Work.RECORDS, Work.REOPENED):
            self.work.remove_tree(folder)
        self.work.remove(Work.KNOWN_MATCHES)


def batches(catalogue: pa.Table, generation: int) -> list[tuple[str, pa.Table]]:
    """(name, rows): slices of a catalogue of about equal work; they depend on the catalogue alone."""
    prefix = f"again{generation}-" if generation else ""
    found: list[tuple[str, pa.Table]] = []
    start, seconds = 0, 0.0
    durations = catalogue["published_duration_s"].to_pylist()
    for row, duration in enumerate(durations):
        seconds += _GUESS_S if duration is None else duration
        last = row == len(durations) - 1
        if last or row + 1 - start >= BATCH_CLIPS or seconds >= BATCH_SECONDS:
            # take, not slice: a pickled slice carries the whole table to the worker
            rows = catalogue.take(list(range(start, row + 1)))
            found.append((f"{prefix}{len(found):06d}", rows))
            start, seconds = row + 1, 0.0
    return found


def fingerprints(work: Storage) -> Iterator[pa.Table]:
    """All fingerprints below a build's work folder, table after table."""
    return (work.read_table(name) for name in work.list(Work.FINGERPRINTS))


def decoded_windows(facts: pa.Table) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """(clip_id, windows) of every clip that decoded."""
    well = facts.filter(pc.is_null(facts["error"])).select(["clip_id", "windows"])
    for batch in well.to_batches(max_chunksize=8192):
        yield from zip(batch["clip_id"].to_pylist(), batch["windows"].to_pylist(), strict=True)


def shard_places(out: Storage, shards: Iterable[str]) -> dict[tuple[str, int], tuple[str, int]]:
    """(clip_id, window): (pack, offset) of all sound in shards, which are packs once their build is reopened.

    Of trimmed clips the shards do not hold all.
    """
    fates = out.read_table(layout.FATES, ["clip_id", "reason"])
    trimmed = set(fates.filter(pc.equal(fates["reason"], "trimmed"))["clip_id"].to_pylist())
    places: dict[tuple[str, int], tuple[str, int]] = {}
    for shard in shards:
        rows = out.read_table(manifest_name(shard), ["clip_id", "window", "audio_offset"])
        for clip_id, window, offset in zip(*(column.to_pylist() for column in rows.columns), strict=True):
            if clip_id not in trimmed:
                places[clip_id, window] = f"{Work.FORMER_SHARDS}/{shard}", offset
    return places


def with_places(facts: pa.Table, places: dict[tuple[str, int], tuple[str, int]]) -> pa.Table:
    """Facts whose windows lie at ``places``; (clip_id, window): (pack, offset)."""
    chunks = []
    for batch in facts.combine_chunks().to_batches():
        lists = batch["windows"]
        windows = lists.flatten()
        clips = batch["clip_id"].take(pc.list_parent_indices(lists)).to_pylist()
        numbers = windows.field("window").to_pylist()
        found = [places[key] for key in zip(clips, numbers, strict=True)]
        fields = {field.name: windows.field(field.name) for field in windows.type}
        fields["pack"] = pa.array([pack for pack, _ in found], pa.string())
        fields["offset"] = pa.array([offset for _, offset in found], pa.int64())
        moved = pa.StructArray.from_arrays(list(fields.values()), fields=list(windows.type))
        lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
        offsets = pa.array(np.append(0, np.cumsum(lengths)), pa.int32())
        index = batch.schema.get_field_index("windows")
        chunks.append(batch.set_column(index, facts.schema.field(index), pa.ListArray.from_arrays(offsets, moved)))
    return pa.Table.from_batches(chunks, facts.schema)


def table_entry(out: Storage, name: str) -> dict[str, Any]:
    """What ``dataset.json`` says of a file."""
    contents = out.read(name)
    return {"bytes": len(contents), "sha256": hashlib.sha256(contents).hexdigest()}


def describe(settings: BuildSettings, datasets: pa.ChunkedArray, fates: pa.Table, digest: str) -> dict[str, Any]:
    """``dataset.json`` without its tables and shards.

    Args:
        settings: of the build.
        datasets: the dataset of each row of the catalogue.
        fates: at least the columns ``fate`` and ``reason``.
        digest: the plan's hash.
    """
    plain = settings.as_dict()
    # where the datasets lie is no part of what they became
    plain |= {"roots": sorted(plain["roots"]), "sources": sorted(plain["sources"])}
    plain["exclude"] = sorted(plain["exclude"].values())
    pairs = Counter(zip(fates["fate"].to_pylist(), fates["reason"].to_pylist(), strict=True))
    return {
        "format": FORMAT_VERSION,
        "plan": digest,
        "settings": plain,
        "versions": versions(),
        "cpu": cpu(),
        "datasets": dict(sorted(Counter(datasets.to_pylist()).items())),
        "fates": dict(sorted(Counter(fates["fate"].to_pylist()).items())),
        "reasons": {f"{fate}/{reason}": count for (fate, reason), count in sorted(pairs.items())},
    }


def _trim(batch: tuple[str, pa.Table, dict[str, list[Part]]], url: str, form: AudioForm) -> int:
    name, rows, left = batch
    return trim_batch(name, rows, left, Storage(url), form)


@functools.lru_cache(maxsize=1)
def _packs(url: str, run: str) -> PackReader:
    """A worker's view of the packs, read once a run of the builder: it is too large to travel with every task."""
    work = Storage(url)
    return PackReader(work, read_facts(work))


def _wave(clip_id: str, start_s: float, duration_s: float, url: str, run: str) -> np.ndarray:
    return _packs(url, run).wave(clip_id, start_s, duration_s)
