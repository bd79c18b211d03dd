"""The second half of ``append``: decides about new clips, and merges their shards and tables into the build."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from sharding import layout
from sharding.build import journal
from sharding.build.clips import FinishedBuild
from sharding.build.finish import describe, unwritten_pack, write_dataset
from sharding.build.inputs import noted_inputs
from sharding.build.journal import Operation
from sharding.build.stages import Stages, Written
from sharding.build.state import Marker, settings_bytes
from sharding.catalogue.overview import overview, overview_bytes
from sharding.checks import read_checked
from sharding.common.storage import Storage
from sharding.fates.decide import decide, trimmed_parts
from sharding.layout import Work, catalogue_name, in_work, manifest_name, pack_name, plan_name, shard_name, work_of
from sharding.rows import column
from sharding.schema import DIFFERENCES, FACTS, FATES, MANIFEST
from sharding.settings import BuildSettings
from sharding.shards.contents import file_entry
from sharding.shards.manifest import Manifest, ShardRecord, SplitProtection
from sharding.shards.plan import plan_hash, shard_hash

_MERGED = "merged"  # below the addition: files of OUT as they will be


@dataclass(frozen=True)
class Decided:
    """The decisions about old and new clips.

    Attributes:
        fates: FATES of all clips; those of old clips are unchanged, except for group and kin.
        differences: DIFFERENCES: old clips of which a build from the beginning would decide otherwise.
    """

    fates: pa.Table
    differences: pa.Table

    def new_fates(self, catalogue: pa.Table) -> pa.Table:
        """FATES of the clips of ``catalogue``."""
        return self.fates.filter(pc.is_in(self.fates["clip_id"], catalogue["clip_id"].combine_chunks()))


def decide_new_clips(
    old: FinishedBuild, catalogue: pa.Table, facts: pa.Table, matches: pa.Table, stages: Stages
) -> Decided:
    """Decide about the clips of ``catalogue``; old clips keep their fates.

    Args:
        old: the build to which they are added.
        catalogue, facts: CATALOGUE and FACTS of the new clips.
        matches: MATCHES of all clips.
        stages: the stages of the addition.
    """
    settings = stages.settings.fates
    all_clips, all_facts = stages.clips.tables(catalogue, facts)
    evidence = (all_clips, all_facts, matches, stages.excluded(all_clips), settings)
    left_before = trimmed_parts(old.catalogue, old.facts, old.matches, settings)
    left_now = trimmed_parts(all_clips, all_facts, matches, settings)
    cut = {clip_id for clip_id in left_before if left_before[clip_id] != left_now.get(clip_id)}
    return Decided(decide(*evidence, fixed=old.fates), differing(old.fates, decide(*evidence), cut))


def differing(fates: pa.Table, anew: pa.Table, cut: Collection[str] = ()) -> pa.Table:
    """DIFFERENCES between the fates of old clips and those that they would get if everything was decided anew.

    Args:
        fates: FATES of old clips.
        anew: FATES of all clips.
        cut: clips of which another stretch would be left if they were trimmed.
    """
    names = ("clip_id", "fate", "reason", "other")
    fresh = {row[0]: row[1:] for row in zip(*(anew[name].to_pylist() for name in names), strict=True)}
    rows = [
        (*row, *fresh[row[0]])
        for row in zip(*(fates[name].to_pylist() for name in names), strict=True)
        if row[1:] != fresh[row[0]] or (row[2] == "trimmed" and row[0] in cut)
    ]
    columns = list(zip(*rows, strict=True)) or [()] * len(DIFFERENCES)
    arrays = [pa.array(list(values), field.type) for values, field in zip(columns, DIFFERENCES, strict=True)]
    return pa.table(arrays, schema=DIFFERENCES)


def merge(
    old: FinishedBuild,
    stages: Stages,
    catalogue: pa.Table,
    decided: Decided,
    written: Written,
    protection: list[SplitProtection],
) -> None:
    """Make the build of the new clips part of the finished one.

    Args:
        old: the finished build.
        stages: the stages of the addition.
        catalogue: CATALOGUE of the new clips.
        decided: about all clips.
        written: the new shards.
        protection: how far each protected split is protected.
    """
    addition = stages.out
    merged = addition.child(_MERGED)
    all_clips = pa.concat_tables([old.catalogue, catalogue])
    fates = _with_keys(decided.fates, [old.fates, read_checked(addition, layout.FATES, FATES, ["clip_id", "keys"])])
    orphans = [storage.read_table(layout.ORPHANS) for storage in (old.out, addition)]
    merged.write_table(layout.FATES, fates)
    merged.write_table(layout.DIFFERENCES, decided.differences)
    merged.write(layout.MATCHES, addition.read(layout.MATCHES))
    merged.write_table(layout.ORPHANS, pa.concat_tables(orphans))
    settings = _both(old.settings, stages.settings)
    notes = {**old.marker.notes, **stages.marker.notes}
    all_facts = pa.concat_tables([old.facts, read_checked(stages.work, Work.FINAL_FACTS, FACTS)])
    merged.write(layout.OVERVIEW, overview_bytes(overview(all_clips, all_facts, notes, settings)))
    old_records = _with_new_kin(old.manifest, fates, merged)
    marker = dataclasses.replace(stages.marker, datasets=sorted(notes), notes=notes)
    inputs = pa.concat_tables([noted_inputs(folder) for folder in (work_of(old.out), stages.work)])
    _write_work(merged, all_facts, inputs.sort_by("clip_id"), settings, marker)

    replaced = (layout.FATES, layout.MATCHES, layout.ORPHANS, layout.OVERVIEW, layout.DIFFERENCES)
    added = [*map(catalogue_name, stages.marker.datasets), *(plan_name(record["name"]) for record in written.records)]
    tables = old.manifest.dataset["tables"] | {name: file_entry(merged, name) for name in replaced}
    tables |= {name: file_entry(addition, name) for name in added}
    head = describe(settings, all_clips["dataset"], fates, _plan_of_all(old, addition, written), protection)
    shards = sorted([*old_records, *written.records], key=lambda record: record["name"])
    write_dataset(merged, head, tables, shards)
    for record in written.records:
        added += [shard_name(record["name"]), manifest_name(record["name"])]
    _put_in_place(old.out, stages, added, merged)


def _put_in_place(out: Storage, stages: Stages, added: list[str], merged: Storage) -> None:
    """The short step that changes OUT; ``dataset.json`` is copied, so that it can be put in place repeatedly."""
    addition = in_work(Work.ADDITION)
    work = [*stages.work.list(Work.FINGERPRINTS), pack_name(unwritten_pack(stages.marker))]
    names = [*added, *map(in_work, work)]
    replaced = [name for name in merged.list() if name != layout.DATASET]
    journal.carry_out(
        out,
        [
            journal.remove(in_work(Work.CONTENTS)),
            journal.remove(layout.DATASET),
            *(journal.move(f"{addition}/{name}", name) for name in names),
            *(journal.move(f"{addition}/{_MERGED}/{name}", name) for name in replaced),
            journal.copy(f"{addition}/{_MERGED}/{layout.DATASET}", layout.DATASET),
        ],
        list(_cleanup()),
    )


def _cleanup() -> Iterator[Operation]:
    yield journal.remove_folder(in_work(Work.ADDITION))
    yield journal.remove_folder(layout.REPORT)  # it shows the build as it was


def _both(old: BuildSettings, new: BuildSettings) -> BuildSettings:
    """The settings of the old build, with the new datasets."""
    return dataclasses.replace(old, roots={**old.roots, **new.roots}, sources={**old.sources, **new.sources})


def _with_keys(fates: pa.Table, parts: list[pa.Table]) -> pa.Table:
    """FATES with the keys of each clip's samples, which ``parts`` hold."""
    keys: dict[str, list[str]] = {}
    for table in parts:
        keys.update(zip(column(table, "clip_id", str), table["keys"].to_pylist(), strict=True))
    values = pa.array([keys[clip_id] for clip_id in column(fates, "clip_id", str)], FATES.field("keys").type)
    return fates.set_column(fates.schema.get_field_index("keys"), FATES.field("keys"), values)


def _with_new_kin(manifest: Manifest, fates: pa.Table, merged: Storage) -> list[ShardRecord]:
    """Records of the old shards; their manifests get the group and kin that the new clips give the old ones."""
    names = ("clip_id", "group", "kin")
    now = {clip_id: ids for clip_id, *ids in zip(*(fates[name].to_pylist() for name in names), strict=True)}
    records: list[ShardRecord] = []
    for record in manifest.dataset["shards"]:
        rows = read_checked(manifest.storage, manifest_name(record["name"]), MANIFEST)
        ids = [now[clip_id] for clip_id in column(rows, "clip_id", str)]
        changed = rows
        for number, name in enumerate(("group", "kin")):
            values = pa.array([pair[number] for pair in ids], pa.string())
            changed = changed.set_column(rows.schema.get_field_index(name), rows.schema.field(name), values)
        if not changed.equals(rows):
            merged.write_table(manifest_name(record["name"]), changed)
            entry = file_entry(merged, manifest_name(record["name"]))
            record = {**record, "manifest_bytes": entry["bytes"], "manifest_sha256": entry["sha256"]}
        records.append(record)
    return records


def _write_work(merged: Storage, facts: pa.Table, inputs: pa.Table, settings: BuildSettings, marker: Marker) -> None:
    """The files from which a later retry, append or new plan continues."""
    work = work_of(merged)
    work.write_table(Work.KEPT_FACTS, facts)
    work.write_table(Work.INPUTS, inputs)
    work.write(Work.SETTINGS, settings_bytes(settings.as_dict()))
    work.write(Work.MARKER, marker.as_bytes())


def _plan_of_all(old: FinishedBuild, addition: Storage, written: Written) -> str:
    """The hash of the plan of old and new shards."""
    storages = {record["name"]: old.out for record in old.manifest.dataset["shards"]}
    storages |= {record["name"]: addition for record in written.records}
    hashes = {shard: shard_hash(storage.read_table(plan_name(shard))) for shard, storage in storages.items()}
    return plan_hash(hashes)
