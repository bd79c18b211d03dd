"""New datasets into a finished build: its shards stay as they are, and so do the fates of its clips.

All work is done below ``OUT/.build/append`` as a build of its own, whose clips are compared with the old ones too;
until its last, short step OUT is the build that it was.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import uuid
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sharding import layout
from sharding.build.claim import Claim, claim
from sharding.build.reopening import differences, settings_bytes
from sharding.build.stages import Stages, describe, fingerprints, table_entry
from sharding.catalogue.overview import overview, overview_bytes
from sharding.catalogue.table import check_shard_names
from sharding.common.errors import InputError
from sharding.common.runners import Runner
from sharding.common.storage import Storage
from sharding.dedup.matching import Wave
from sharding.fates.decide import decide, stretches
from sharding.layout import Work, catalogue_name, in_work, manifest_name, plan_name, work_of
from sharding.probe.packs import PackReader
from sharding.reports.facts import read_facts
from sharding.schema import FATES
from sharding.settings import BuildSettings
from sharding.shards.manifest import Manifest, dataset_bytes
from sharding.shards.plan import plan_hash, shard_hash

FOLDER = in_work(Work.ADDITION)
_INTENT = in_work("merge.json")
_MERGED = "merged"  # below FOLDER: files of OUT as they will be
DIFFERENCES = pa.schema(
    [
        ("clip_id", pa.string()),
        ("fate", pa.string()),  # as it stands
        ("reason", pa.string()),
        ("other", pa.string()),
        ("anew_fate", pa.string()),  # as a build of all datasets from the beginning decides
        ("anew_reason", pa.string()),
        ("anew_other", pa.string()),
    ]
)


def former_settings(out: Storage) -> BuildSettings:
    """The settings of the finished build at ``out``."""
    plain = out.read_json(in_work(Work.SETTINGS)) if out.exists(in_work(Work.SETTINGS)) else {}
    if not out.exists(layout.DATASET) or not plain:  # none, or one that is being removed
        raise InputError(
            "no finished build that could grow",
            file=out.url,
            remedy="give a folder that `build` finished, with its .build folder; finish it first where it was killed",
        )
    former = BuildSettings.from_dict(plain)
    changed = sorted(differences(plain["exclude"], former.as_dict()["exclude"], "exclude"))
    if changed:
        raise InputError(
            "an exclusion list has changed since the build:\n    " + "\n    ".join(changed),
            file=out.url,
            remedy="put the former list back, or build all anew with `build --new-plan`",
        )
    return former


def added_settings(former: BuildSettings, roots: Mapping[str, str], sources: Mapping[str, str]) -> BuildSettings:
    """Settings of the added datasets alone: all else is as it was."""
    there = {**former.roots, **former.sources}
    for name in (*roots, *sources):
        if name in there:
            raise InputError(
                "a dataset of this name is in the build already",
                value=name,
                remedy="give it another name, or build all anew with `build --new-plan`",
            )
    return BuildSettings(roots, sources, former.exclude, former.probe, former.fates, former.plan)


def finish_append(out: Storage) -> None:
    """Go on with a merge that was interrupted after it was decided; where there is none, nothing happens."""
    if not out.exists(_INTENT):
        return
    moves = json.loads(out.read(_INTENT))
    if out.exists(f"{FOLDER}/{_MERGED}/{layout.DATASET}"):  # the last that is moved: else all is in place
        out.remove(layout.DATASET)
        for source, target in moves:
            out.move(source, target)
    out.remove_tree(FOLDER)
    out.remove_tree(layout.REPORT)
    out.remove(_INTENT)


class Addition(Stages):
    """The stages of what is added; ``out`` is the storage of ``OUT/.build/append``."""

    def __init__(self, settings: BuildSettings, base: Storage, runner: Runner, claim: Claim) -> None:
        super().__init__(settings, base.child(FOLDER), runner, claim)
        self.base = base
        self.former = former_settings(base)
        self.manifest = Manifest.open(base.url)

    def first_generation(self) -> int:
        return int(self.base.read_json(in_work(Work.MARKER))["generation"]) + 1

    @functools.cached_property
    def old_catalogue(self) -> pa.Table:
        names = self.base.read_json(in_work(Work.MARKER))["datasets"]
        return pa.concat_tables([self.base.read_table(catalogue_name(name)) for name in names])

    @functools.cached_property
    def old_facts(self) -> pa.Table:
        return work_of(self.base).read_table(Work.KEPT_FACTS)

    def catalogue(self) -> pa.Table:
        added = super().catalogue()
        check_shard_names(pa.concat_tables([self.old_catalogue, added]))
        return added

    def known(self) -> tuple[pa.Table, set[str]]:
        return self.base.read_table(layout.MATCHES), set(self.old_catalogue["clip_id"].to_pylist())

    def fingerprints(self) -> Iterator[pa.Table]:
        return itertools.chain(fingerprints(work_of(self.base)), super().fingerprints())

    def wave(self) -> Wave:
        return functools.partial(_wave, base=self.base.url, work=self.work.url, run=uuid.uuid4().hex)

    def evidence(self, catalogue: pa.Table, facts: pa.Table) -> tuple[pa.Table, pa.Table]:
        return pa.concat_tables([self.old_catalogue, catalogue]), pa.concat_tables([self.old_facts, facts])

    def fates(self, catalogue: pa.Table, facts: pa.Table, matches: pa.Table) -> pa.Table:
        """Fates of the added clips; all fates, and what would be decided otherwise, stand in files beside."""
        both, all_facts = self.evidence(catalogue, facts)
        evidence = (both, all_facts, matches, self.listed(both), self.settings.fates)
        standing = self.base.read_table(layout.FATES)
        found = decide(*evidence, standing=standing)
        former = (self.old_catalogue, self.old_facts, self.base.read_table(layout.MATCHES))
        was, now = (stretches(*tables, self.settings.fates) for tables in (former, evidence[:3]))
        cut = {clip_id for clip_id in was if was[clip_id] != now.get(clip_id)}
        self.out.write_table(f"{_MERGED}/{layout.DIFFERENCES}", differing(standing, decide(*evidence), cut))
        self.out.write_table(f"{_MERGED}/{layout.FATES}", found)
        return found.filter(pc.is_in(found["clip_id"], catalogue["clip_id"].combine_chunks()))

    def describe_inputs(self, catalogue: pa.Table) -> None:
        """Inputs are described when all are together."""

    def commit(self, catalogue: pa.Table, records: list[dict[str, Any]], digest: str) -> None:
        """Merge into OUT: the new ``dataset.json`` goes there last."""
        merged = self.out.child(_MERGED)
        both = pa.concat_tables([self.old_catalogue, catalogue])
        fates = self._merged_fates()
        merged.write_table(layout.FATES, fates)
        merged.write(layout.MATCHES, self.out.read(layout.MATCHES))
        orphans = [storage.read_table(layout.ORPHANS) for storage in (self.base, self.out)]
        merged.write_table(layout.ORPHANS, pa.concat_tables(orphans))
        marker = self.marker()
        old_marker = self.base.read_json(in_work(Work.MARKER))
        notes = {**old_marker["notes"], **marker["notes"]}
        settings = dataclasses.replace(
            self.former,
            roots={**self.former.roots, **self.settings.roots},
            sources={**self.former.sources, **self.settings.sources},
        )
        merged.write(layout.OVERVIEW, overview_bytes(overview(both, notes, settings)))
        old_records = self._with_new_kin(fates, merged)
        self._write_work(merged, settings, {**marker, "datasets": sorted(notes), "notes": notes})
        tables = dict(self.manifest.dataset["tables"])
        for name in (layout.FATES, layout.MATCHES, layout.ORPHANS, layout.OVERVIEW, layout.DIFFERENCES):
            tables[name] = table_entry(merged, name)
        added = [*self.out.list(layout.CATALOGUE), *(plan_name(record["name"]) for record in records)]
        tables |= {name: table_entry(self.out, name) for name in added}
        about = describe(settings, both["dataset"], fates, self._plan_hash(records))
        shards = sorted([*old_records, *records], key=lambda record: record["name"])
        dataset = about | {"tables": dict(sorted(tables.items())), "shards": shards}
        merged.write(layout.DATASET, dataset_bytes(dataset))
        added += [layout.shard_name(record["name"]) for record in records]
        added += [manifest_name(record["name"]) for record in records]
        self.base.write(_INTENT, json.dumps(self._moves(added, merged)).encode())
        finish_append(self.base)

    def _moves(self, added: list[str], merged: Storage) -> list[tuple[str, str]]:
        """(from, to) below OUT, of all that is added or replaced."""
        pack = f"{Work.PACKS}/unwritten-{self.marker()['generation']}.pack"
        moves = [(f"{FOLDER}/{name}", name) for name in added]
        moves += [(f"{FOLDER}/{in_work(name)}", in_work(name)) for name in [*self.work.list(Work.FINGERPRINTS), pack]]
        names = [name for name in merged.list() if name != layout.DATASET]
        return moves + [(f"{FOLDER}/{_MERGED}/{name}", name) for name in [*names, layout.DATASET]]

    def _merged_fates(self) -> pa.Table:
        """All fates with their samples' keys: old clips' as they stood, new ones' as they were planned."""
        keys: dict[str, list[str]] = {}
        for storage in (self.base, self.out):
            table = storage.read_table(layout.FATES, ["clip_id", "keys"])
            keys.update(zip(table["clip_id"].to_pylist(), table["keys"].to_pylist(), strict=True))
        fates = self.out.read_table(f"{_MERGED}/{layout.FATES}")
        column = pa.array([keys[clip_id] for clip_id in fates["clip_id"].to_pylist()], FATES.field("keys").type)
        return fates.set_column(fates.schema.get_field_index("keys"), FATES.field("keys"), column)

    def _with_new_kin(self, fates: pa.Table, merged: Storage) -> list[dict[str, Any]]:
        """Records of the old shards; manifests learn which clips new ones have made kin, so that training does."""
        names = ("clip_id", "group", "kin")
        now = {clip_id: ids for clip_id, *ids in zip(*(fates[name].to_pylist() for name in names), strict=True)}
        records = []
        for record in self.manifest.dataset["shards"]:
            rows = self.base.read_table(manifest_name(record["name"]))
            ids = [now[clip_id] for clip_id in rows["clip_id"].to_pylist()]
            changed = rows
            for number, name in enumerate(("group", "kin")):
                column = pa.array([pair[number] for pair in ids], pa.string())
                changed = changed.set_column(rows.schema.get_field_index(name), rows.schema.field(name), column)
            if not changed.equals(rows):
                merged.write_table(manifest_name(record["name"]), changed)
                entry = table_entry(merged, manifest_name(record["name"]))
                record = record | {"manifest_bytes": entry["bytes"], "manifest_sha256": entry["sha256"]}
            records.append(record)
        return records

    def _write_work(self, merged: Storage, settings: BuildSettings, marker: dict[str, Any]) -> None:
        """What a later retry, append or plan goes on with."""
        facts = pa.concat_tables([self.old_facts, self.work.read_table(Work.FINAL_FACTS)])
        merged.write_table(in_work(Work.KEPT_FACTS), facts)
        merged.write(in_work(Work.SETTINGS), settings_bytes(settings.as_dict()))
        merged.write(in_work(Work.MARKER), json.dumps(marker).encode())

    def _plan_hash(self, records: list[dict[str, Any]]) -> str:
        old = {record["name"]: self.base for record in self.manifest.dataset["shards"]}
        new = {record["name"]: self.out for record in records}
        return plan_hash(
            {shard: shard_hash(storage.read_table(plan_name(shard))) for shard, storage in {**old, **new}.items()}
        )


def differing(standing: pa.Table, anew: pa.Table, cut: Collection[str] = ()) -> pa.Table:
    """DIFFERENCES: old clips whose fate, reason or keeper would be another one were all decided anew.

    ``cut``: clips of which another stretch would be left, should they be trimmed.
    """
    names = ("clip_id", "fate", "reason", "other")
    fresh = {row[0]: row[1:] for row in zip(*(anew[name].to_pylist() for name in names), strict=True)}
    rows = [
        (*row, *fresh[row[0]])
        for row in zip(*(standing[name].to_pylist() for name in names), strict=True)
        if row[1:] != fresh[row[0]] or (row[2] == "trimmed" and row[0] in cut)
    ]
    columns = list(zip(*rows, strict=True)) or [()] * len(DIFFERENCES)
    arrays = [pa.array(list(column), field.type) for column, field in zip(columns, DIFFERENCES, strict=True)]
    return pa.table(arrays, schema=DIFFERENCES)


class _Finished(Storage):
    """The packs of a finished build: sound that was written lies in its shards."""

    def read(self, path: str, offset: int = 0, size: int | None = None) -> bytes:
        shard = path.removeprefix(f"{layout.pack_name(Work.FORMER_SHARDS)}/")
        return super().read(in_work(path) if shard == path else layout.shard_name(shard), offset, size)


@functools.lru_cache(maxsize=1)
def _sounds(base: str, work: str, run: str) -> tuple[frozenset[str], PackReader, PackReader]:
    """A worker's view of all sound, read once a run of the builder."""
    old = work_of(Storage(base)).read_table(Work.KEPT_FACTS)
    new = read_facts(Storage(work))
    ids = frozenset(old["clip_id"].to_pylist())
    return ids, PackReader(_Finished(base), old), PackReader(Storage(work), new)


def _wave(clip_id: str, start_s: float, duration_s: float, base: str, work: str, run: str) -> np.ndarray:
    ids, old, new = _sounds(base, work, run)
    return (old if clip_id in ids else new).wave(clip_id, start_s, duration_s)


def append(out_url: str, roots: Mapping[str, str], sources: Mapping[str, str], runner: Runner) -> dict[str, Any]:
    """Add datasets to the finished build at ``out_url``, or go on with adding them.

    Args:
        out_url: OUT, local or in an object store.
        roots: published dataset to folder.
        sources: name of a generic source to folder.
        runner: where batches are probed and shards written.

    Returns:
        ``out``, ``added`` (dataset: fate: clips), ``reasons`` (dataset: ``fate/reason``: clips), ``shards`` (how many
        are new), ``differences`` (old clips of which a build of all datasets from the beginning would decide
        otherwise: ``OUT/differences.parquet``), ``leaks`` (how many of them are in training shards and share sound
        with clips that are protected now) and ``examples``.

    Raises:
        InputError: no finished build, a name that is taken, an unfinished append of other datasets, another builder.
    """
    out = Storage(out_url)
    if not roots and not sources:
        raise InputError("nothing to append", remedy="name at least one dataset, e.g. --source mine=DIR")
    with claim(out) as held:
        finish_append(out)
        former = former_settings(out)
        Stages(former, out, runner, held).tidy()
        there = {**former.roots, **former.sources}
        asked = {**roots, **sources}
        # what an earlier append added is there: then its outcome is told once more
        if not out.exists(layout.DIFFERENCES) or any(there.get(name) != root for name, root in asked.items()):
            settings = added_settings(former, roots, sources)
            _settle(out, settings)
            Addition(settings, out, runner, held).run()
        return _outcome(out, sorted(asked))


def _settle(out: Storage, settings: BuildSettings) -> None:
    """An append that was interrupted goes on only with the datasets that it began with."""
    name = f"{FOLDER}/{in_work(Work.SETTINGS)}"
    plain = settings.as_dict()
    if not out.exists(f"{FOLDER}/{in_work(Work.MARKER)}"):  # nothing was begun, or its datasets could not be read
        out.remove_tree(FOLDER)
        out.write(name, settings_bytes(plain))
        return
    out.child(FOLDER).sweep()
    if found := sorted(differences(out.read_json(name), plain)):
        raise InputError(
            "another append was interrupted here:\n    " + "\n    ".join(found),
            file=out.url,
            remedy=f"finish it with its own datasets, or give it up: remove {out.name(FOLDER)}",
        )


def _outcome(out: Storage, datasets: list[str]) -> dict[str, Any]:
    fates = out.read_table(layout.FATES, ["clip_id", "fate", "reason"])
    counts: dict[str, Counter[str]] = {name: Counter() for name in datasets}
    reasons: dict[str, Counter[str]] = {name: Counter() for name in datasets}
    for clip_id, fate, reason in zip(*(column.to_pylist() for column in fates.columns), strict=True):
        if (dataset := clip_id.partition("/")[0]) in counts:
            counts[dataset][fate] += 1
            reasons[dataset][f"{fate}/{reason}"] += 1
    manifest = Manifest.open(out.url)
    new = manifest.table.filter(pc.is_in(manifest.table["dataset"], pa.array(datasets)))
    differing = out.read_table(layout.DIFFERENCES)
    return {
        "out": out.url,
        "added": {name: dict(sorted(count.items())) for name, count in counts.items()},
        "reasons": {name: dict(sorted(count.items())) for name, count in reasons.items()},
        "shards": len(new["shard"].unique()),
        "differences": differing.num_rows,
        "leaks": sum(
            row["fate"] == "written" and (row["anew_fate"] == "withheld" or row["anew_reason"] == "trimmed")
            for row in differing.to_pylist()
        ),
        "examples": differing.slice(0, 20).to_pylist(),
    }
