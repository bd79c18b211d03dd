"""New datasets are added to a finished build: its shards stay as they are, and so do the fates of its clips.

The new datasets are built below ``OUT/.build/append``, and their clips are compared with the old ones too.  OUT is the
build that it was until the last, short step, which puts the new files in place.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sharding import layout
from sharding.build import journal
from sharding.build.claim import Claim, claim
from sharding.build.clips import FinishedBuild, OldAndNewClips, OwnClips
from sharding.build.corrected_input import read_again, was_refused
from sharding.build.finish import tidy
from sharding.build.merge import decide_new_clips, merge
from sharding.build.stages import Stages
from sharding.build.state import differences, settings_bytes
from sharding.catalogue.table import check_shard_names
from sharding.checks import read_checked
from sharding.common.errors import InputError
from sharding.common.runners import Runner
from sharding.common.storage import Storage
from sharding.layout import Work, in_work, work_of
from sharding.schema import DIFFERENCES, FATES
from sharding.settings import BuildSettings
from sharding.shards.manifest import Manifest

_ADDITION = in_work(Work.ADDITION)


def append(
    out_url: str,
    roots: Mapping[str, str],
    sources: Mapping[str, str],
    runner: Runner,
    allow_unprotected: bool = False,
) -> dict[str, Any]:
    """Add datasets to the finished build at ``out_url``, or go on with adding them.

    Args:
        out_url: OUT, local or in an object store.
        roots: published dataset to folder.
        sources: name of a generic source to folder.
        runner: where batches are probed and shards written.
        allow_unprotected: go on where too little audio of a protected split can be read.

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
        raise InputError("no dataset to append is named", remedy="name at least one dataset, e.g. --source mine=DIR")
    with claim(out) as held:
        journal.finish(out)
        former = former_settings(out)
        tidy(out)
        there = {**former.roots, **former.sources}
        asked = {**roots, **sources}
        # The same command again after it ended reports the same outcome once more.
        if not out.exists(layout.DIFFERENCES) or any(there.get(name) != root for name, root in asked.items()):
            settings = added_settings(former, roots, sources)
            old = FinishedBuild.read(out, former)
            stages_of = functools.partial(_stages, old, runner, held, allow_unprotected)
            _begin_or_resume(out, settings, stages_of)
            _add(old, stages_of(settings))
            tidy(out)
        return _outcome(out, sorted(asked))


def former_settings(out: Storage) -> BuildSettings:
    """The settings of the finished build at ``out``.

    Raises:
        InputError: there is no finished build, it lacks its work folder, or an exclusion list has changed since.
    """
    work = work_of(out)
    if not out.exists(layout.DATASET) or not work.exists(Work.SETTINGS):
        raise InputError(
            "there is no finished build here that could be added to",
            file=out.url,
            remedy="give a folder that `build` finished, with its .build folder; finish it first where it was killed",
        )
    plain = work.read_json(Work.SETTINGS)
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
    """Settings of the added datasets alone; apart from the datasets they are those of the finished build."""
    there = {**former.roots, **former.sources}
    for name in (*roots, *sources):
        if name in there:
            raise InputError(
                "a dataset of this name is in the build already",
                value=name,
                remedy="give it another name, or build all anew with `build --new-plan`",
            )
    return replace(former, roots=roots, sources=sources)


def _stages(
    old: FinishedBuild, runner: Runner, held: Claim, allow_unprotected: bool, settings: BuildSettings
) -> Stages:
    """The stages of a build for the new clips, compared with the old ones."""
    addition = old.out.child(_ADDITION)
    clips = OldAndNewClips(old, OwnClips(work_of(addition)))
    return Stages(settings, addition, runner, held, clips, old.marker.reopenings + 1, allow_unprotected)


def _begin_or_resume(out: Storage, settings: BuildSettings, stages_of: Callable[[BuildSettings], Stages]) -> None:
    """Go on with an append that was interrupted or refused, if it has the same datasets; else begin one.

    An append of other datasets that was refused is given up.

    Raises:
        InputError: an append of other datasets was interrupted.
    """
    addition = out.child(_ADDITION)
    work, plain = work_of(addition), settings.as_dict()
    journal.finish(addition)
    begun = work.exists(Work.MARKER)  # else none was begun, or its datasets could not be read
    there = work.read_json(Work.SETTINGS) if begun else {}
    found = sorted(differences(there, plain)) if begun else []
    if not begun or (found and was_refused(stages_of(BuildSettings.from_dict(there)))):
        out.remove_tree(_ADDITION)
        work.write(Work.SETTINGS, settings_bytes(plain))
        return
    addition.sweep()
    if found:
        raise InputError(
            "another append was interrupted here:\n    " + "\n    ".join(found),
            file=out.url,
            remedy=f"finish it with its own datasets, or give it up: remove {out.name(_ADDITION)}",
        )


def _add(old: FinishedBuild, stages: Stages) -> None:
    """Run the stages for the new clips, and then the merge."""
    read_again(stages)
    catalogue = stages.catalogue()
    check_shard_names(pa.concat_tables([old.catalogue, catalogue]))
    facts = stages.probe(catalogue)
    stages.check_times(catalogue, facts)
    protection = stages.protection(*stages.clips.tables(catalogue, facts))
    matches = stages.match(catalogue, facts)
    decided = decide_new_clips(old, catalogue, facts, matches, stages)
    written = stages.write(catalogue, facts, matches, decided.new_fates(catalogue))
    merge(old, stages, catalogue, decided, written, protection)


def _outcome(out: Storage, datasets: list[str]) -> dict[str, Any]:
    fates = read_checked(out, layout.FATES, FATES, ["clip_id", "fate", "reason"])
    counts: dict[str, Counter[str]] = {name: Counter() for name in datasets}
    reasons: dict[str, Counter[str]] = {name: Counter() for name in datasets}
    for clip_id, fate, reason in zip(*(column.to_pylist() for column in fates.columns), strict=True):
        if (dataset := clip_id.partition("/")[0]) in counts:
            counts[dataset][fate] += 1
            reasons[dataset][f"{fate}/{reason}"] += 1
    manifest = Manifest.open(out.url)
    new = manifest.table.filter(pc.is_in(manifest.table["dataset"], pa.array(datasets)))
    differing = read_checked(out, layout.DIFFERENCES, DIFFERENCES)
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
