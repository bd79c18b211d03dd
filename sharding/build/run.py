"""A build from beginning to end, or from wherever an earlier one was interrupted."""

from __future__ import annotations

from typing import Any

from sharding import layout
from sharding.build import journal
from sharding.build.claim import claim
from sharding.build.finish import commit, tidy
from sharding.build.reopening import begin_or_reopen
from sharding.build.retry import clips_that_failed, reopen_for_retry, retry_is_under_way
from sharding.build.stages import Stages
from sharding.catalogue.overview import overview, overview_bytes, read_overview
from sharding.common.errors import InputError
from sharding.common.runners import Runner
from sharding.common.storage import Storage
from sharding.settings import BuildSettings
from sharding.shards.manifest import Manifest, read_dataset

__all__ = ["BuildSettings", "build", "summary"]


def build(
    settings: BuildSettings, out_url: str, runner: Runner, new_plan: bool = False, retry: str | None = None
) -> dict[str, Any]:
    """Build shards, or go on with a build that was interrupted.

    Args:
        settings: what to build.
        out_url: OUT, local or in an object store.
        runner: where batches are probed and shards written.
        new_plan: where OUT holds a build of other settings, or of inputs that have changed since, decide anew; what
            the probe found there is kept where clips and audio settings are the same.
        retry: an error class: where OUT holds a finished build, its clips that failed like this are tried again,
            and only they; a build that is not finished just goes on.

    Returns:
        see ``summary``.

    Raises:
        InputError: bad input, other settings, a second builder, or a full disk; says how to go on.
    """
    out = Storage(out_url)
    if not settings.roots and not settings.sources:
        raise InputError("nothing to build from", remedy="name at least one dataset, e.g. --clotho DIR")
    plain = settings.as_dict()
    with claim(out) as held:
        journal.finish(out)
        stages = Stages(settings, out, runner, held)
        begin_or_reopen(out, plain, new_plan, stages.read_sources)
        if retry is not None and out.exists(layout.DATASET):
            _retry(stages, retry)
        if out.exists(layout.DATASET):
            Manifest.open(out.url)  # a build that was finished long ago may have lost shards since
        else:
            _make(stages)
        tidy(out)
        return summary(out)


def _retry(stages: Stages, error: str) -> None:
    """Reopen a finished build for the clips of one error class, if it has any."""
    out = stages.out
    under_way = retry_is_under_way(out, error)
    tidy(out)
    if not under_way and (chosen := clips_that_failed(out, error)):
        reopen_for_retry(out, error, chosen, stages.read_sources())


def _make(stages: Stages) -> None:
    """All stages, one after the other."""
    catalogue = stages.catalogue()
    facts = stages.probe(catalogue)
    matches = stages.match(catalogue, facts)
    fates = stages.decide(catalogue, facts, matches)
    written = stages.write(catalogue, facts, matches, fates)
    about = overview(catalogue, facts, stages.marker.notes, stages.settings)
    stages.out.write(layout.OVERVIEW, overview_bytes(about))
    commit(stages.out, stages.settings, catalogue, written.records, written.plan)


def summary(out: Storage) -> dict[str, Any]:
    """What a finished build holds, for people and machines.

    ``out, plan, shards, samples, bytes, clips, fates`` (fate: count), ``reasons`` (``fate/reason``: count),
    ``datasets`` (name: clips) and ``overview`` (see ``sharding.catalogue.overview``).
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
        "datasets": dataset["datasets"],
        "overview": read_overview(out),
    }
