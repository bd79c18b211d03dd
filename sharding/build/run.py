"""A build from beginning to end, or from wherever an earlier one was interrupted."""

from __future__ import annotations

from typing import Any

from sharding.build.append import finish_append
from sharding.build.claim import claim
from sharding.build.reopening import settle
from sharding.build.retry import choose, interrupted, retry_clips
from sharding.build.stages import Stages
from sharding.catalogue.overview import read_overview
from sharding.common.errors import InputError
from sharding.common.runners import Runner
from sharding.common.storage import Storage
from sharding.layout import DATASET
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
        finish_append(out)
        stages = Stages(settings, out, runner, held)
        settle(out, plain, new_plan, stages.read_sources)
        if retry is not None and out.exists(DATASET):
            done = interrupted(out, retry)
            stages.tidy()
            if not done and (chosen := choose(out, retry)):
                retry_clips(out, retry, chosen, stages.read_sources())
        if out.exists(DATASET):
            Manifest.open(out.url)  # a build that was finished long ago may have lost shards since
        else:
            stages.run()
        stages.tidy()
        return summary(out)


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
