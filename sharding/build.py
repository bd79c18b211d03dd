"""A build: the stages in order, each of which a killed build finds finished or does again.

What is finished is told by files alone: a batch's facts, the matches, the fates, a shard's record, and
``dataset.json``, which is written last.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import platform
import sys
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sharding.catalogue import Catalogue, build_catalogue
from sharding.claim import claim, settle
from sharding.errors import InputError
from sharding.fates import FateSettings, decide
from sharding.leaks import identity_matches, listed, read_exclusion_list
from sharding.manifest import dataset_bytes, read_dataset
from sharding.matching import MatchSettings, find_matches
from sharding.plan import PLAN, PlanSettings, make_plan, plan_hash
from sharding.probe import PackReader, ProbeSettings, probe_batch
from sharding.progress import Progress
from sharding.retry import KEPT, KNOWN, choose, finish_reopening, read_facts, reopen, unwritten, unwritten_pack
from sharding.runners import Runner
from sharding.schema import FATES, FORMAT_VERSION
from sharding.storage import Storage, is_full
from sharding.writing import record_name, task_name, write_shard

BATCH_CLIPS = 64
BATCH_SECONDS = 1200.0
_GUESS_S = 10.0  # duration of a clip whose tables do not tell it


@dataclass(frozen=True)
class BuildSettings:
    """All that decides the bytes of a build.

    Attributes:
        roots: published dataset to folder.
        sources: name of a generic source to folder.
        exclude: files of excluded ids.
        probe, fates, plan: settings of the stages.
    """

    roots: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    exclude: Sequence[str] = ()
    probe: ProbeSettings = field(default_factory=ProbeSettings)
    fates: FateSettings = field(default_factory=FateSettings)
    plan: PlanSettings = field(default_factory=PlanSettings)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON; ``exclude`` holds the lists' checksums as well, for their contents decide."""
        settings = dataclasses.asdict(self)
        settings["exclude"] = {str(path): _checksum(str(path)) for path in self.exclude}
        return dict(json.loads(json.dumps(settings, default=sorted)))


def build(
    settings: BuildSettings, out_url: str, runner: Runner, new_plan: bool = False, retry: str | None = None
) -> dict[str, Any]:
    """Build shards, or go on with a build that was interrupted.

    Args:
        settings: what to build.
        out_url: OUT, local or in an object store.
        runner: where batches are probed and shards written.
        new_plan: where OUT holds a build with other settings, throw that away.
        retry: an error class: where OUT holds a finished build, its clips that failed like this are tried again,
            and only they; a build that is not finished just goes on.

    Returns:
        ``out, plan, shards, samples, bytes, fates`` (fate: count), ``reasons`` ((fate, reason): count as
        ``fate/reason``) and ``datasets``.

    Raises:
        InputError: bad input, other settings, a second builder, or a full disk; says how to go on.
    """
    out = Storage(out_url)
    if not settings.roots and not settings.sources:
        raise InputError("nothing to build from", remedy="name at least one dataset, e.g. --clotho DIR")
    try:
        with claim(out):
            settle(out, settings.as_dict(), new_plan)
            finish_reopening(out)
            stages = _Stages(settings, out, runner)
            if retry is not None and out.exists("dataset.json"):
                stages.tidy()
                if chosen := choose(out, retry):
                    reopen(out, chosen, stages.read_sources())
            if not out.exists("dataset.json"):
                stages.run()
            stages.tidy()
            return summary(out)
    except FileNotFoundError:
        raise  # no failing storage: a file of the build itself is gone
    except OSError as error:
        if is_full(error):
            what, remedy = "no space left", "make room and run the same command again: it goes on"
        else:
            what, remedy = f"reading or writing failed: {error}", "once that is mended, the same command goes on"
        raise InputError(what, file=out.url, remedy=remedy) from error


def summary(out: Storage) -> dict[str, Any]:
    """What a finished build holds, for people and machines."""
    dataset = read_dataset(out)
    return {
        "out": out.url,
        "plan": dataset["plan"],
        "shards": len(dataset["shards"]),
        "samples": sum(shard["samples"] for shard in dataset["shards"]),
        "bytes": sum(shard["bytes"] for shard in dataset["shards"]),
        "clips": sum(dataset["fates"].values()),
        "fates": dataset["fates"],
        "reasons": dataset["reasons"],
        "datasets": dataset["datasets"],
    }


def _checksum(path: str) -> str:
    folder, _, name = path.rpartition("/")
    try:
        return hashlib.sha256(Storage(folder or ".").read(name)).hexdigest()
    except FileNotFoundError:
        raise InputError("no such exclusion list", file=path) from None


def _batches(catalogue: pa.Table, generation: int) -> list[tuple[str, pa.Table]]:
    """Slices of a catalogue of about equal work; they depend on the catalogue alone."""
    prefix = f"retry{generation}-" if generation else ""
    batches: list[tuple[str, pa.Table]] = []
    start, seconds = 0, 0.0
    durations = catalogue["published_duration_s"].to_pylist()
    for row, duration in enumerate(durations):
        seconds += _GUESS_S if duration is None else duration
        last = row == len(durations) - 1
        if last or row + 1 - start >= BATCH_CLIPS or seconds >= BATCH_SECONDS:
            # take, not slice: a pickled slice carries the whole table to the worker
            rows = catalogue.take(list(range(start, row + 1)))
            batches.append((f"{prefix}{len(batches):06d}", rows))
            start, seconds = row + 1, 0.0
    return batches


def _probe(batch: tuple[str, pa.Table], roots: dict[str, str], url: str, settings: ProbeSettings) -> dict[str, Any]:
    name, rows = batch
    return probe_batch(name, rows, roots, Storage(url), settings)


@functools.lru_cache(maxsize=1)
def _packs(url: str, run: str) -> PackReader:
    """A worker's view of the packs, read once a run of the builder: it is too large to travel with every task."""
    work = Storage(url)
    return PackReader(work, read_facts(work))


def _wave(clip_id: str, start_s: float, duration_s: float, url: str, run: str) -> np.ndarray:
    return _packs(url, run).wave(clip_id, start_s, duration_s)


class _Stages:
    """The stages of one build."""

    def __init__(self, settings: BuildSettings, out: Storage, runner: Runner) -> None:
        self.settings, self.out, self.runner = settings, out, runner
        self.work = out.child(".build")
        self.roots = {**settings.roots, **settings.sources}

    def run(self) -> None:
        catalogue = self.catalogue()
        facts = self.probe(catalogue)
        matches = self.matches(catalogue, facts)
        fates = self.fates(catalogue, facts, matches)
        shards, digest = self.plan(catalogue, facts, fates)
        records = self.write(shards)
        self.keep_unwritten(facts, fates)
        self.commit(catalogue, records, digest)

    def read_sources(self) -> Catalogue:
        """The catalogue as the published tables read today."""
        return build_catalogue(dict(self.settings.roots), dict(self.settings.sources))

    def catalogue(self) -> pa.Table:
        """The catalogue; read from the published tables once, so that an interrupted build goes on with the same."""
        if not self.work.exists("catalogue.json"):
            found = self.read_sources()
            for dataset in self.roots:
                self.out.write_table(f"catalogue/{dataset}.parquet", found.of(dataset))
            self.out.write_table("orphans.parquet", found.orphans)
            marker = {"datasets": sorted(self.roots), "generation": 0}
            self.work.write("catalogue.json", json.dumps(marker).encode())
        names = self._marker()["datasets"]
        return pa.concat_tables([self.out.read_table(f"catalogue/{name}.parquet") for name in names])

    def _marker(self) -> dict[str, Any]:
        return dict(json.loads(self.work.read("catalogue.json")))

    def probe(self, catalogue: pa.Table) -> pa.Table:
        """Facts of every clip: batches whose facts are there are done."""
        have = set(self.work.list("facts"))
        rows = catalogue
        if KEPT in have:
            kept = self.work.read_table(KEPT, ["clip_id"])["clip_id"]
            rows = catalogue.filter(pc.invert(pc.is_in(catalogue["clip_id"], kept)))
        batches = _batches(rows, self._marker()["generation"])
        todo = [batch for batch in batches if f"facts/{batch[0]}.parquet" not in have]
        progress = Progress("probe", sum(rows.num_rows for _, rows in todo), "clips")
        one = functools.partial(_probe, roots=self.roots, url=self.work.url, settings=self.settings.probe)
        for record in self.runner.map(one, todo):
            progress.add(record["clips"], sum(record["errors"].values()))
        progress.finish()
        return read_facts(self.work)

    def matches(self, catalogue: pa.Table, facts: pa.Table) -> pa.Table:
        """The evidence: ids and sound; what an earlier build knows is not sought again."""
        if not self.out.exists("matches.parquet"):
            print(f"  match: comparing {catalogue.num_rows} clips", file=sys.stderr, flush=True)
            prints = (self.work.read_table(name) for name in self.work.list("fingerprints"))
            known, old = None, set[str]()
            if self.work.exists(KNOWN):
                known = self.work.read_table(KNOWN)
                old = set(self.work.read_table(KEPT, ["clip_id"])["clip_id"].to_pylist())
            found = find_matches(
                catalogue,
                facts,
                prints,
                functools.partial(_wave, url=self.work.url, run=uuid.uuid4().hex),
                identity_matches(catalogue),
                MatchSettings(protect=self.settings.fates.protect),
                self.runner.map,
                known,
                old,
            )
            self.out.write_table("matches.parquet", found)
        return self.out.read_table("matches.parquet")

    def fates(self, catalogue: pa.Table, facts: pa.Table, matches: pa.Table) -> pa.Table:
        """One fate a clip."""
        lists = [read_exclusion_list(str(path)) for path in self.settings.exclude]
        return decide(catalogue, facts, matches, set(listed(catalogue, lists)), self.settings.fates)

    def plan(self, catalogue: pa.Table, facts: pa.Table, fates: pa.Table) -> tuple[list[str], str]:
        """Names of the shards, and the plan's hash; ``fates.parquet`` learns each clip's samples."""
        if not self.work.exists("plan.json"):
            settings = dataclasses.replace(self.settings.plan, rate=self.settings.probe.form.rate)
            plan = dict(make_plan(catalogue, facts, fates, settings))
            for shard, rows in plan.items():
                self.work.write_table(task_name(shard), rows)
                self.out.write_table(f"plan/{PurePosixPath(shard).stem}.parquet", rows.select(PLAN))
            self.out.write_table("fates.parquet", _with_keys(fates, plan))
            about = {"shards": sorted(plan), "hash": plan_hash(plan)}
            self.work.write("plan.json", json.dumps(about).encode())
        about = json.loads(self.work.read("plan.json"))
        return about["shards"], about["hash"]

    def write(self, shards: list[str]) -> list[dict[str, Any]]:
        """Shards that have a record are done; the others are written."""
        have = set(self.work.list("records"))
        todo = [shard for shard in shards if record_name(shard) not in have]
        progress = Progress("write", len(todo), "shards")
        for _ in self.runner.map(functools.partial(write_shard, out=self.out), todo):
            progress.add(1)
        progress.finish()
        return [json.loads(self.work.read(record_name(shard))) for shard in shards]

    def commit(self, catalogue: pa.Table, records: list[dict[str, Any]], digest: str) -> None:
        """``dataset.json``: from here on the build is finished."""
        fates = self.out.read_table("fates.parquet").to_pylist()
        if Counter(row["clip_id"] for row in fates) != Counter(catalogue["clip_id"].to_pylist()):
            raise InputError("the fates do not add up to the catalogue", file=self.out.name("fates.parquet"))
        settings = self.settings.as_dict()
        # where the datasets lie is no part of what they became
        settings |= {"roots": sorted(settings["roots"]), "sources": sorted(settings["sources"])}
        settings["exclude"] = sorted(settings["exclude"].values())
        dataset = {
            "format": FORMAT_VERSION,
            "plan": digest,
            "settings": settings,
            "versions": _versions(),
            "cpu": _cpu(),
            "datasets": dict(sorted(Counter(catalogue["dataset"].to_pylist()).items())),
            "fates": dict(sorted(Counter(row["fate"] for row in fates).items())),
            "reasons": dict(sorted(Counter(f"{row['fate']}/{row['reason']}" for row in fates).items())),
            "tables": {name: self._entry(name) for name in self._tables()},
            "shards": records,
        }
        self.out.write("dataset.json", dataset_bytes(dataset))

    def keep_unwritten(self, facts: pa.Table, fates: pa.Table) -> None:
        """Sound that reached no shard is kept: later clips are compared with it, and it may yet be written."""
        pack = f"packs/{unwritten_pack(self._marker()['generation'])}"
        if self.work.exists(pack):
            return
        written = set(fates.filter(pc.equal(fates["fate"], "written"))["clip_id"].to_pylist())
        with self.work.writer(pack) as file:
            for window in unwritten(facts, written):
                file.write(self.work.read(f"packs/{window['pack']}", window["offset"], window["bytes"]))

    def tidy(self) -> None:
        """Remove what a finished build needs no more."""
        last = f"packs/{unwritten_pack(self._marker()['generation'])}"
        for name in self.work.list("packs"):
            if name != last:
                self.work.remove(name)
        for folder in ("tasks", "records", "reopened"):
            self.work.remove_tree(folder)
        self.work.remove(KNOWN)

    def _tables(self) -> list[str]:
        tables = ["fates.parquet", "matches.parquet", "orphans.parquet"]
        return tables + self.out.list("catalogue") + self.out.list("plan")

    def _entry(self, name: str) -> dict[str, Any]:
        contents = self.out.read(name)
        return {"bytes": len(contents), "sha256": hashlib.sha256(contents).hexdigest()}


def _with_keys(fates: pa.Table, plan: Mapping[str, pa.Table]) -> pa.Table:
    keys: dict[str, list[str]] = {}
    for _, rows in sorted(plan.items()):
        for clip_id, key in zip(rows["clip_id"].to_pylist(), rows["key"].to_pylist(), strict=True):
            keys.setdefault(clip_id, []).append(key)
    rows = [row | {"keys": keys.get(row["clip_id"], [])} for row in fates.to_pylist()]
    return pa.Table.from_pylist(rows, FATES)


def _versions() -> dict[str, str]:
    """Of everything that has a say in the bytes."""
    import av
    import numpy
    import soundfile
    import soxr

    return {
        "av": av.__version__,
        "libsndfile": soundfile.__libsndfile_version__,
        "numpy": numpy.__version__,
        "pyarrow": pa.__version__,
        "soundfile": soundfile.__version__,
        "soxr": soxr.__version__,
    }


def _cpu() -> str:
    """The kind of CPU: resamplers may round differently on another."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"{platform.machine()} {line.partition(':')[2].strip()}"
    return platform.machine()
