"""The end of a build: where the sound of every clip lies from now on, ``dataset.json``, and tidying up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sharding import layout
from sharding.build.state import Marker
from sharding.checks import checksummed_bytes, read_checked
from sharding.common.errors import InputError
from sharding.common.machine import cpu
from sharding.common.storage import Storage
from sharding.layout import Work, catalogue_name, manifest_name, pack_name, plan_name, work_of
from sharding.rows import Window, column
from sharding.schema import FACTS, FATES, FORMAT_VERSION, MANIFEST
from sharding.settings import BuildSettings, versions
from sharding.shards.contents import file_entry, store_contents
from sharding.shards.manifest import Dataset, DatasetHead, FileEntry, SettingsRecord, ShardRecord, SplitProtection

_CLIPS = 8192  # that are Python objects at once
Locations = dict[tuple[str, int], tuple[str, int]]  # (clip_id, window): (pack, offset in bytes)


def store_final_facts(out: Storage, facts: pa.Table, shards: Iterable[str]) -> None:
    """Write the facts of the finished build: their windows lie in its shards, or in one pack of what no shard holds.

    Sound that reached no shard is kept: later clips are compared with it, and another plan may write it.
    """
    work = work_of(out)
    if work.exists(Work.FINAL_FACTS):
        return
    locations = shard_locations(out, shards)
    pack = unwritten_pack(Marker.read(work))
    with work.writer(pack_name(pack)) as file:
        position = 0
        for clip_id, windows in decoded_windows(facts):
            for window in windows:
                if (clip_id, window["window"]) not in locations:
                    file.write(work.read(pack_name(window["pack"]), window["offset"], window["bytes"]))
                    locations[clip_id, window["window"]] = pack, position
                    position += window["bytes"]
    work.write_table(Work.FINAL_FACTS, with_locations(facts, locations))


def unwritten_pack(marker: Marker) -> str:
    """The pack of sound that reached no shard."""
    return f"unwritten-{marker.reopenings}.pack"


def decoded_windows(facts: pa.Table) -> Iterator[tuple[str, list[Window]]]:
    """(clip_id, windows) of every clip that decoded."""
    well = facts.filter(pc.is_null(facts["error"])).select(["clip_id", "windows"])
    for batch in well.to_batches(max_chunksize=_CLIPS):
        yield from zip(batch["clip_id"].to_pylist(), batch["windows"].to_pylist(), strict=True)


def shard_locations(out: Storage, shards: Iterable[str]) -> Locations:
    """The location of each window's sound once the build is reopened; its shards are then read like packs.

    Trimmed clips are left out, because the shards do not hold all of their sound.
    """
    fates = read_checked(out, layout.FATES, FATES, ["clip_id", "reason"])
    trimmed = set(column(fates.filter(pc.equal(fates["reason"], "trimmed")), "clip_id", str))
    locations: Locations = {}
    for shard in shards:
        rows = read_checked(out, manifest_name(shard), MANIFEST, ["clip_id", "window", "audio_offset"])
        for clip_id, window, offset in zip(*(values.to_pylist() for values in rows.columns), strict=True):
            if clip_id not in trimmed:
                locations[clip_id, window] = f"{Work.FORMER_SHARDS}/{shard}", offset
    return locations


def with_locations(facts: pa.Table, locations: Locations) -> pa.Table:
    """FACTS whose windows lie at ``locations``."""
    chunks = []
    for batch in facts.combine_chunks().to_batches():
        lists = batch["windows"]
        windows = lists.flatten()
        clips = batch["clip_id"].take(pc.list_parent_indices(lists)).to_pylist()
        numbers = windows.field("window").to_pylist()
        found = [locations[key] for key in zip(clips, numbers, strict=True)]
        fields = {field.name: windows.field(field.name) for field in windows.type}
        fields["pack"] = pa.array([pack for pack, _ in found], pa.string())
        fields["offset"] = pa.array([offset for _, offset in found], pa.int64())
        moved = pa.StructArray.from_arrays(list(fields.values()), fields=list(windows.type))
        lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
        offsets = pa.array(np.append(0, np.cumsum(lengths)), pa.int32())
        index = batch.schema.get_field_index("windows")
        chunks.append(batch.set_column(index, facts.schema.field(index), pa.ListArray.from_arrays(offsets, moved)))
    return pa.Table.from_batches(chunks, facts.schema)


def describe(
    settings: BuildSettings,
    datasets: pa.ChunkedArray,
    fates: pa.Table,
    plan: str,
    protection: list[SplitProtection],
) -> DatasetHead:
    """``dataset.json`` without its tables and shards.

    Args:
        settings: the settings of the build.
        datasets: the dataset of each row of the catalogue.
        fates: at least the columns ``fate`` and ``reason``.
        plan: the plan's hash.
        protection: how far each protected split is protected.
    """
    plain = settings.as_dict()
    # The folders of the datasets do not describe the result.
    plain |= {"roots": sorted(plain["roots"]), "sources": sorted(plain["sources"])}
    plain["exclude"] = sorted(plain["exclude"].values())
    pairs = Counter(zip(column(fates, "fate", str), column(fates, "reason", str), strict=True))
    return {
        "format": FORMAT_VERSION,
        "plan": plan,
        "settings": cast(SettingsRecord, plain),
        "versions": versions(),
        "cpu": cpu(),
        "datasets": dict(sorted(Counter(datasets.to_pylist()).items())),
        "fates": dict(sorted(Counter(fates["fate"].to_pylist()).items())),
        "reasons": {f"{fate}/{reason}": count for (fate, reason), count in sorted(pairs.items())},
        "protection": protection,
    }


def commit(
    out: Storage,
    settings: BuildSettings,
    catalogue: pa.Table,
    records: Sequence[ShardRecord],
    plan: str,
    protection: list[SplitProtection],
) -> None:
    """Write ``dataset.json``: from here on the build is finished.

    Args:
        out: the storage of OUT.
        settings: the settings of the build.
        catalogue: CATALOGUE of all datasets.
        records: the records of all shards.
        plan: the plan's hash.
        protection: how far each protected split is protected.

    Raises:
        InputError: the fates are not those of the catalogue's clips.
    """
    fates = read_checked(out, layout.FATES, FATES, ["clip_id", "fate", "reason"])
    if sorted(column(fates, "clip_id", str)) != sorted(column(catalogue, "clip_id", str)):
        raise InputError("the fates do not add up to the catalogue", file=out.name(layout.FATES))
    names = [layout.FATES, layout.MATCHES, layout.ORPHANS, layout.OVERVIEW]
    names += map(catalogue_name, Marker.read(work_of(out)).datasets)
    names += [plan_name(record["name"]) for record in records]
    tables = {name: file_entry(out, name) for name in names}
    write_dataset(out, describe(settings, catalogue["dataset"], fates, plan, protection), tables, records)


def write_dataset(
    storage: Storage, head: DatasetHead, tables: Mapping[str, FileEntry], shards: Sequence[ShardRecord]
) -> None:
    """Write ``dataset.json`` to a folder."""
    dataset: Dataset = {**head, "tables": dict(sorted(tables.items())), "shards": list(shards)}
    storage.write(layout.DATASET, checksummed_bytes(dataset))


def tidy(out: Storage) -> None:
    """Remove what a finished build needs no more, and what killed workers left; then list the rest."""
    out.sweep()
    work = work_of(out)
    if work.exists(Work.FINAL_FACTS):
        work.write(Work.KEPT_FACTS, work.read(Work.FINAL_FACTS))
        for name in work.list(Work.FACTS):
            if name != Work.KEPT_FACTS:
                work.remove(name)
        work.remove(Work.FINAL_FACTS)
    windows = pc.list_flatten(read_checked(work, Work.KEPT_FACTS, FACTS, ["windows"])["windows"])
    needed = set(pc.unique(pc.struct_field(windows, "pack")).to_pylist())
    for name in work.list(Work.PACKS):
        pack = name.removeprefix(f"{Work.PACKS}/")
        if pack not in needed or pack.startswith(f"{Work.FORMER_SHARDS}/"):
            work.remove(name)
    for folder in (Work.TASKS, Work.RECORDS, Work.STEPS, Work.REOPENED):
        work.remove_tree(folder)
    store_contents(out)
    work.remove(Work.KNOWN_MATCHES)  # last: a retry is under way as long as it is there
