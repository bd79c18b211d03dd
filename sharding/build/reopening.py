"""Going on with what a folder holds: nothing, a build of these settings, or one that is turned into another.

A build is *reopened* when some of its clips are tried again (``build --retry``), or when it is planned anew
(``build --new-plan``).  Sound that is known is not decoded again: the shards of a finished build become packs, and
what reached no shard was kept in a pack of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sharding import layout
from sharding.build import journal
from sharding.build.inputs import note_inputs, noted_inputs, unchanged
from sharding.build.journal import Operation
from sharding.build.state import Marker, differences, settings_bytes
from sharding.catalogue.table import Catalogue
from sharding.checks import read_checked
from sharding.common.errors import InputError
from sharding.common.storage import Storage
from sharding.layout import Work, catalogue_name, in_work, pack_name, work_of
from sharding.reports.facts import finished_facts
from sharding.rows import column, optional_column
from sharding.schema import CATALOGUE, FINGERPRINTS, MATCHES
from sharding.shards.contents import require_whole
from sharding.shards.manifest import Manifest
from sharding.sources import DATASETS
from sharding.sources.protected import parse_protect


def begin_or_reopen(
    out: Storage, settings: dict[str, Any], new_plan: bool, read_sources: Callable[[], Catalogue]
) -> None:
    """Make sure that OUT holds a build of these settings: a new one, an interrupted one, or a finished one.

    Args:
        out: the storage of OUT.
        settings: ``BuildSettings.as_dict()``.
        new_plan: turn a build of other settings into one of these, and reopen a finished build whose inputs have
            changed, or to which datasets were added (``append`` does not change the fates of old clips).  What the
            probe found is kept where it still holds.
        read_sources: reads the catalogue as it is today.

    Raises:
        InputError: OUT holds other files, or a build of other settings and ``new_plan`` is not set.
    """
    work = work_of(out)
    work.sweep()
    if not work.exists(Work.SETTINGS):
        _refuse_other_files(out)
        work.write(Work.SETTINGS, settings_bytes(settings))
        return
    out.sweep()
    former = work.read_json(Work.SETTINGS)
    if not (work.exists(Work.MARKER) or out.exists(layout.DATASET)):
        _begin_anew(out, settings)  # nothing was built, because its datasets could not be read
        return
    changed = sorted(differences(_with_later_datasets(former, settings), settings))
    if changed and not new_plan:
        raise InputError(
            "there is a build with other settings here:\n    " + "\n    ".join(changed),
            file=out.url,
            remedy="use those settings, another --out, or --new-plan to decide anew (known sound is kept)",
        )
    if not new_plan or not (changed or out.exists(layout.DATASET)):
        return
    now = read_sources()  # what cannot be read is refused before anything is removed
    if former["probe"] != settings["probe"] or not work.exists(Work.MARKER):
        _begin_anew(out, settings)
        return
    facts = finished_facts(out)
    kept = _unchanged(facts, out, former, settings, now.table)
    if changed or out.exists(layout.DIFFERENCES) or _inputs_changed(out, facts, kept, now):
        _replan(out, former, settings, now, kept)


def _with_later_datasets(former: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """The former settings with what is protected by default of datasets that Earshot did not know then.

    A build that has none of them is the same build.  What a user names with ``--protect`` always counts.
    """
    protect, before = settings["fates"]["protect"], former.get("fates", {}).get("protect", [])
    if frozenset(map(tuple, protect)) != parse_protect():
        return former
    known = {dataset for dataset, _ in before} | {*former["roots"], *former["sources"]}
    later = [pair for pair in protect if pair[0] in DATASETS and pair[0] not in known]
    return former | {"fates": former["fates"] | {"protect": sorted([*before, *later])}}


def reopen_unchanged(out: Storage, facts: pa.Table, settings: dict[str, Any], now: Catalogue) -> None:
    """Reopen an unfinished build: recordings that failed, or are others today, are read again.

    Args:
        out: the storage of OUT.
        facts: FACTS of all its clips.
        settings: ``BuildSettings.as_dict()`` of the build.
        now: the catalogue as it reads today.
    """
    reopen(out, _unchanged(facts, out, settings, settings, now.table), None, now, settings)


def _refuse_other_files(out: Storage) -> None:
    if all(layout.is_work(name) for name in out.sizes("")):
        return
    what = "the folder holds files that no build wrote"
    if out.exists(layout.DATASET):
        what = "this is a finished build without its .build folder: it can be read, but not changed"
    raise InputError(what, file=out.url, remedy="choose an empty --out")


def _begin_anew(out: Storage, settings: dict[str, Any]) -> None:
    """Remove what is there of a build, and leave nothing but the settings of another one."""
    folders = (Work.FINGERPRINTS, Work.PACKS, Work.REOPENED)
    journal.carry_out(
        out,
        [
            *_forget_stages(),
            *(journal.remove_folder(in_work(folder)) for folder in folders),
            journal.write(in_work(Work.SETTINGS), settings_bytes(settings)),
        ],
    )


def _forget_stages() -> Iterator[Operation]:
    """Remove what the stages wrote, except for sound and fingerprints."""
    yield journal.remove(layout.DATASET)
    for name in (Work.CONTENTS, Work.PLAN, Work.MARKER, Work.INPUTS, Work.FINAL_FACTS, Work.KNOWN_MATCHES):
        yield journal.remove(in_work(name))
    for name in (layout.MATCHES, layout.FATES, layout.ORPHANS, layout.OVERVIEW, layout.DIFFERENCES):
        yield journal.remove(name)
    for folder in (Work.RECORDS, Work.TASKS, Work.FACTS, Work.STEPS, Work.ADDITION):
        yield journal.remove_folder(in_work(folder))
    for folder in (layout.SHARDS, layout.PLAN, layout.MANIFESTS, layout.CATALOGUE, layout.REPORT):
        yield journal.remove_folder(folder)


def _inputs_changed(out: Storage, facts: pa.Table, kept: pa.Table, now: Catalogue) -> bool:
    """Whether the tables or recordings are others than those of which the finished build at ``out`` was made."""
    for dataset in now.notes:
        former = read_checked(out, catalogue_name(dataset), CATALOGUE).cast(CATALOGUE)
        if not now.of(dataset).cast(CATALOGUE).equals(former):
            return True
    return kept.num_rows < facts["error"].null_count


def _replan(out: Storage, former: dict[str, Any], settings: dict[str, Any], now: Catalogue, kept: pa.Table) -> None:
    """Turn a build, finished or not, into an unfinished one of other settings that keeps what the probe found."""
    # What is compared depends on what is protected, and where leaks are trimmed, more is searched: then the matches
    # that were found under other settings may lack some.
    same_rules = all(former["fates"].get(name) == settings["fates"].get(name) for name in ("protect", "leaks"))
    known = read_checked(out, layout.MATCHES, MATCHES) if same_rules and out.exists(layout.MATCHES) else None
    reopen(out, kept, known, now, settings)


def _unchanged(
    facts: pa.Table, out: Storage, former: dict[str, Any], settings: dict[str, Any], now: pa.Table
) -> pa.Table:
    """Facts of the clips that decoded well, and whose files have the same folder, path and contents as then."""
    roots = roots_of(settings)
    same = {name for name, root in roots_of(former).items() if roots.get(name) == root}
    paths: dict[str, str | None] = {}
    for dataset in same & set(Marker.read(work_of(out)).datasets):
        table = read_checked(out, catalogue_name(dataset), CATALOGUE, ["clip_id", "path"])
        paths.update(zip(column(table, "clip_id", str), optional_column(table, "path", str), strict=True))
    return unchanged(facts, paths, noted_inputs(work_of(out)), now, roots)


def roots_of(settings: Mapping[str, Any]) -> dict[str, str]:
    """Dataset to folder, of the settings of a build."""
    return {**settings["roots"], **settings["sources"]}


def reopen(
    out: Storage,
    kept: pa.Table,
    known: pa.Table | None,
    now: Catalogue,
    settings: dict[str, Any],
    retry: str | None = None,
) -> None:
    """Turn a build into an unfinished one, whose stages only do what ``kept`` does not have.

    Args:
        out: the storage of OUT.
        kept: FACTS that stay.
        known: MATCHES among their clips that stay; None: they are compared again.
        now: the catalogue with which the build continues.
        settings: the settings with which it continues.
        retry: the error class for which this is done.
    """
    work = work_of(out)
    shards: list[str] = []
    if out.exists(layout.DATASET):  # a damaged build is refused, because its shards become packs
        require_whole(out)
        shards = [shard["name"] for shard in Manifest.open(out.url).dataset["shards"]]
    marker = Marker.of(now, Marker.read(work).reopenings + 1, retry)
    work.remove_tree(Work.REOPENED)
    new = work.child(Work.REOPENED)
    tables = {in_work(Work.KEPT_FACTS): kept, layout.ORPHANS: now.orphans}
    tables[in_work(Work.INPUTS)] = _inputs(noted_inputs(work), kept, now, settings)
    tables |= {catalogue_name(dataset): now.of(dataset) for dataset in now.notes}
    if known is not None:
        tables[in_work(Work.KNOWN_MATCHES)] = known
    for name, table in tables.items():
        new.write_table(name, table)
    journal.carry_out(
        out,
        [
            journal.remove(layout.DATASET),
            *(
                journal.move(layout.shard_name(shard), in_work(pack_name(f"{Work.FORMER_SHARDS}/{shard}")))
                for shard in shards
            ),
            *_forget_stages(),
            *_keep_fingerprints(work, new, kept["clip_id"]),
            *(journal.copy(_reopened(name), name) for name in tables),
            journal.write(in_work(Work.SETTINGS), settings_bytes(settings)),
            journal.write(in_work(Work.MARKER), marker.as_bytes()),
        ],
        [journal.remove_folder(in_work(Work.REOPENED))],
    )


def _inputs(former: pa.Table, kept: pa.Table, now: Catalogue, settings: dict[str, Any]) -> pa.Table:
    """INPUTS: of clips that are not read again, as they were noted when they were read."""
    ids = pa.array(column(kept, "clip_id", str), pa.string())
    fresh = now.table.filter(pc.invert(pc.is_in(now.table["clip_id"], ids)))
    return pa.concat_tables(
        [former.filter(pc.is_in(former["clip_id"], ids)), note_inputs(fresh, roots_of(settings))]
    ).sort_by("clip_id")


def _reopened(name: str) -> str:
    """The path below OUT where a file is kept until it is put in place."""
    return in_work(f"{Work.REOPENED}/{name}")


def _keep_fingerprints(work: Storage, new: Storage, kept: pa.ChunkedArray) -> Iterator[Operation]:
    """Drop the fingerprints of clips that are gone, or that are probed again and get new ones."""
    ids = pa.array(kept.to_pylist(), pa.string())
    for name in work.list(Work.FINGERPRINTS):
        stays = pc.is_in(read_checked(work, name, FINGERPRINTS, ["clip_id"])["clip_id"], ids)
        if pc.all(stays, min_count=0).as_py():
            continue
        if pc.any(stays, min_count=0).as_py():
            new.write_table(in_work(name), read_checked(work, name, FINGERPRINTS).filter(stays))
            yield journal.move(_reopened(in_work(name)), in_work(name))
        else:
            yield journal.remove(in_work(name))
