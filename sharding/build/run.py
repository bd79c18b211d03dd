"""A build from beginning to end, or from wherever an earlier one was interrupted."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sharding import layout
from sharding.build import journal
from sharding.build.claim import claim
from sharding.build.corrected_input import read_again
from sharding.build.failure_limit import FailureLimit
from sharding.build.finish import commit, tidy
from sharding.build.reopening import begin_or_reopen
from sharding.build.retry import clips_that_failed, clips_without_audio, reopen_for_retry, retry_is_under_way
from sharding.build.stages import Stages
from sharding.catalogue.overview import overview, overview_bytes, read_overview
from sharding.common.errors import InputError
from sharding.common.runners import Runner
from sharding.common.sizes import quantity
from sharding.common.storage import Storage
from sharding.layout import Work, in_work, work_of
from sharding.rows import column
from sharding.settings import BuildSettings
from sharding.shards.manifest import Manifest, read_dataset
from sharding.sources.protected import is_protected

__all__ = ["BuildSettings", "build", "summary"]

NAMED = 3  # clips that a summary names of each reason to fail


def build(
    settings: BuildSettings,
    out_url: str,
    runner: Runner,
    new_plan: bool = False,
    retry: str | None = None,
    allow_unprotected: bool = False,
    max_failed: FailureLimit | None = None,
) -> dict[str, Any]:
    """Build shards, or go on with a build that was interrupted.

    Args:
        settings: what to build.
        out_url: OUT, local or in an object store.
        runner: where batches are probed and shards written.
        new_plan: where OUT holds a build of other settings, or of inputs that have changed since, decide anew; what
            the probe found there is kept where clips and audio settings are the same.
        retry: an error class: where OUT holds a finished build, its clips that failed like this are tried again,
            and only they; a build that is not finished continues.
        allow_unprotected: go on where too little audio of a protected split can be read to find the training clips
            that leak into it.
        max_failed: how many clips may fail, files that are not there left out, before the build stops; None: all.

    Returns:
        see ``summary``.

    Raises:
        InputError: bad input, other settings, a second builder, or a full disk; says how to go on.
    """
    out = Storage(out_url)
    if not settings.roots and not settings.sources:
        raise InputError("no dataset to build from is named", remedy="name at least one dataset, e.g. --clotho DIR")
    plain, fresh = settings.as_dict(), not work_of(out).exists(Work.SETTINGS)
    with claim(out) as held, _forgotten_if_refused(out, fresh):
        journal.finish(out)
        stages = Stages(settings, out, runner, held, allow_unprotected=allow_unprotected, max_failed=max_failed)
        begin_or_reopen(out, plain, new_plan, stages.read_sources)
        if retry is not None and out.exists(layout.DATASET):
            _retry(stages, retry)
        if out.exists(layout.DATASET):
            Manifest.open(out.url)  # a build that was finished long ago may have lost shards since
            _remark_on_new_audio(stages)
        else:
            read_again(stages)
            _make(stages)
        tidy(out)
        return summary(out)


@contextlib.contextmanager
def _forgotten_if_refused(out: Storage, fresh: bool) -> Iterator[None]:
    """Remove the settings of a ``fresh`` build of which nothing else was written, because its input was refused."""
    try:
        yield
    except InputError:
        if fresh and set(out.sizes("")) == {in_work(Work.SETTINGS), in_work(Work.LOCK)}:
            work_of(out).remove(Work.SETTINGS)
        raise


def _retry(stages: Stages, error: str) -> None:
    """Reopen a finished build for the clips of one error class, if it has any."""
    out = stages.out
    under_way = retry_is_under_way(out, error)
    tidy(out)
    if not under_way and (chosen := clips_that_failed(out, error)):
        reopen_for_retry(out, error, chosen, stages.read_sources())


def _remark_on_new_audio(stages: Stages) -> None:
    """Say so if audio that a finished build lacked is there today: the command itself leaves the build as it is."""
    lacking = clips_without_audio(stages.out)
    if not lacking:
        return
    try:
        now = stages.read_sources().table
    except InputError:
        return  # the datasets are gone, and the build needs them no more
    found = now.filter(
        pc.and_(pc.is_in(now["clip_id"], pa.array(sorted(lacking), pa.string())), now["path"].is_valid())
    )
    protected = sum(
        is_protected(*split, stages.settings.fates.protect)
        for split in zip(column(found, "dataset", str), column(found, "split", str), strict=True)
    )
    if found.num_rows:
        found_again = quantity(found.num_rows, "clip that had no audio has", "clips that had no audio have")
        print(
            f"  note: {found_again} some today, {protected} of them in protected splits: add --retry missing "
            "to read them, or --new-plan to look at all inputs again",
            file=sys.stderr,
            flush=True,
        )


def _make(stages: Stages) -> None:
    """Run all stages, one after the other."""
    catalogue = stages.catalogue()
    facts = stages.probe(catalogue)
    stages.check_times(catalogue, facts)
    protected = stages.protection(catalogue, facts)
    matches = stages.match(catalogue, facts)
    fates = stages.decide(catalogue, facts, matches)
    written = stages.write(catalogue, facts, matches, fates)
    about = overview(catalogue, facts, stages.marker.notes, stages.settings)
    stages.out.write(layout.OVERVIEW, overview_bytes(about))
    commit(stages.out, stages.settings, catalogue, written.records, written.plan, protected)


def summary(out: Storage) -> dict[str, Any]:
    """What a finished build holds, for people and machines.

    ``out, plan, shards, samples, bytes, clips, fates`` (fate: count), ``reasons`` (``fate/reason``: count), ``failed``
    (reason: the first few clips that failed for it),
    ``datasets`` (name: clips), ``overview`` (see ``sharding.catalogue.overview``) and ``protection`` (see
    ``sharding.fates.protection``).
    """
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
        "failed": _first_failed(out),
        "datasets": dataset["datasets"],
        "overview": read_overview(out),
        "protection": dataset.get("protection", []),
    }


def _first_failed(out: Storage) -> dict[str, list[str]]:
    """The first clips of each reason to fail."""
    fates = out.read_table(layout.FATES, ["clip_id", "fate", "reason"])
    failed = fates.filter(pc.equal(fates["fate"], "failed"))
    found: dict[str, list[str]] = {}
    for clip, reason in zip(column(failed, "clip_id", str), column(failed, "reason", str), strict=True):
        if len(named := found.setdefault(reason, [])) < NAMED:
            named.append(clip)
    return found
