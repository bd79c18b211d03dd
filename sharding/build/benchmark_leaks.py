"""Compares a finished build with evaluation sets that it does not contain; the build itself does not change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pyarrow as pa

from sharding import layout
from sharding.build.append import added_settings, former_settings
from sharding.build.claim import claim
from sharding.build.clips import FinishedBuild, OldAndNewClips, OwnClips
from sharding.build.stages import Stages
from sharding.build.state import differences, settings_bytes
from sharding.common.errors import InputError
from sharding.common.runners import Runner
from sharding.common.storage import Storage
from sharding.fates.benchmark_leaks import Benchmark, Held, benchmark_splits, count_benchmarks, held_clips
from sharding.fates.decide import FateSettings
from sharding.layout import Work, work_of
from sharding.settings import BuildSettings
from sharding.sources import DATASETS


def leaks(
    out_url: str, inside: list[str], outside: Mapping[str, str], work_url: str, runner: Runner
) -> tuple[list[Benchmark], list[Held]]:
    """How much of evaluation sets the training clips of a build hold.

    Args:
        out_url: the finished build; it is only read.
        inside: evaluation sets that the build contains, by the names of their datasets.
        outside: others, name to folder: published datasets by their names, users' own by any name.
        work_url: a folder for what was decoded and compared; the same command again goes on there.
        runner: where clips are decoded and compared.

    Raises:
        InputError: no finished build, a name that the build lacks or has already, or a broken table.
    """
    out = Storage(out_url)
    former = former_settings(out)
    names = {**former.roots, **former.sources}
    for name in inside:
        if name not in names:
            remedy = f"write {name}=DIR; the build has {', '.join(names)}"
            raise InputError("the build contains no such dataset", file=out_url, value=name, remedy=remedy)
    taken = next((name for name in outside if name in names), None)
    if taken is not None:
        remedy = f"write {taken} alone for the build's own, or another name for the folder: other-{taken}=DIR"
        if taken in DATASETS:
            remedy = f"write {taken} alone, without a folder"
        raise InputError("the build contains a dataset of this name", file=out_url, value=taken, remedy=remedy)
    old = FinishedBuild.read(out, former)
    catalogue, facts, matches = old.catalogue, old.facts, old.matches
    if outside:
        catalogue, facts, matches = _compared(old, outside, Storage(work_url), runner)
    benchmarks = benchmark_splits(catalogue, inside, outside, former.fates.protect)
    held = held_clips(catalogue, old.fates, matches, benchmarks, former.fates.protect)
    return count_benchmarks(catalogue, facts, benchmarks, held), held


def _compared(
    old: FinishedBuild, folders: Mapping[str, str], place: Storage, runner: Runner
) -> tuple[pa.Table, pa.Table, pa.Table]:
    """CATALOGUE, FACTS and MATCHES of the build's clips and of those of further datasets."""
    published = {name: folder for name, folder in folders.items() if name in DATASETS}
    own = {name: folder for name, folder in folders.items() if name not in DATASETS}
    settings = added_settings(old.settings, published, own)
    settings = replace(settings, fates=replace(settings.fates, leaks=FateSettings().leaks))
    with claim(place) as held:
        _begin_or_resume(place, settings)
        clips = OldAndNewClips(old, OwnClips(work_of(place)))
        stages = Stages(settings, place, runner, held, clips, old.marker.reopenings + 1, allow_unprotected=True)
        catalogue = stages.catalogue()
        facts = stages.probe(catalogue)
        matches = stages.match(catalogue, facts)
        return (*clips.tables(catalogue, facts), matches)


def _begin_or_resume(place: Storage, settings: BuildSettings) -> None:
    """``InputError`` if the folder holds a build, or the comparison of other datasets."""
    work, plain = work_of(place), settings.as_dict()
    if place.exists(layout.DATASET):
        raise InputError("the folder holds a build", file=place.url, remedy="name another folder for --work")
    if not work.exists(Work.SETTINGS):
        work.write(Work.SETTINGS, settings_bytes(plain))
    elif found := sorted(differences(work.read_json(Work.SETTINGS), plain)):
        what = "another comparison was begun here:\n    " + "\n    ".join(found)
        raise InputError(what, file=place.url, remedy="name another folder for --work, or remove this one")
    place.sweep()
