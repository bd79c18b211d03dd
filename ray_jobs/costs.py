"""What a build and a training run cost: pure functions from a catalogue, a recipe and a cluster to hours and bytes.

Every constant is a figure of `bench/RESULTS.md`; where several were measured, the span from the best to the worst.
What no bench can know, such as prices and the speed of a GPU, comes from the user.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sharding.common.errors import InputError
from sharding.probe.clip import ProbeSettings

if TYPE_CHECKING:
    from training.config.sections import Recipe

Float64 = NDArray[np.float64]


class Span(NamedTuple):
    """The lowest and the highest value that is likely."""

    low: float
    high: float

    def times(self, factor: float) -> Span:
        return Span(self.low * factor, self.high * factor)

    def plus(self, other: Span) -> Span:
        return Span(self.low + other.low, self.high + other.high)


# `bench.shards`, whole build: 30.3 clips of 17.5 s a second and core on a quiet machine, and 0.59 of 23 on a slow one.
BUILD_CORE_S = Span(1 / (30.3 * 17.5), 1 / (0.59 * 23 * 17.5))  # core seconds for each second of sound
# `bench.join`: 7,562 hours compared in 662 s of processor time, 755 s of wall time.
JOIN_S = Span(662 / 7562, 755 / 7562)  # core seconds for each hour of sound
# `bench.catalogue`: 472,645 clips in 8.6 s.  `bench.planning`: 0.087 ms a clip at 100,000 clips, growing as n^1.10.
CATALOGUE_S, PLAN_S, PLAN_CLIPS, PLAN_GROWTH = 8.6 / 472_645, 0.087e-3, 100_000, 1.10
# Memory of the one process that lists, compares or decides: its own, and of each clip or hour.  `bench.catalogue`:
# 0.85 GiB for 472,645 clips; `bench.join`: 4.7 GiB for 7,562 hours; `bench.planning`: 2.05 GiB for a million clips.
PROCESS_BYTES = 0.25 * 2**30
LIST_BYTES, DECIDE_BYTES = 0.60 * 2**30 / 472_645, 1.80 * 2**30 / 1e6  # a clip
COMPARE_BYTES = 4.45 * 2**30 / 7562  # an hour
# `bench.plan`: 236 pairs of 1,600 clips had to be compared by their waveforms, 0.14 core seconds each;
# since then a pair takes half of that.
PAIR_S, PAIRS = 0.07, Span(0, 236 / 1600)  # seconds of a pair, and pairs for each clip
# `bench.plan`: a quarter of real recordings takes less; WavCaps as published (FLAC, 32 kHz, 1.5 TB for 7,563 hours).
SHARD_BYTES = Span(18_800, 1.5e12 / (7563 * 3600))  # for each second of sound
# `bench.loader --growth`: the order of 10 million rows on each rank, in two loaded runs 0.98 and 1.44 s of processor
# time, and 269 MiB; a row of WavCaps in a manifest that was read takes 564 bytes.
ORDER_S = Span(0.98 / 1e7, 1.44 / 1e7)  # a row
ORDER_BYTES = 564 + 269 * 2**20 / 1e7  # a row, the manifest included
# `bench.loader`: decoding a clip of 10 s takes 3.6 ms of processor time; loaded, a checksum of 24 us was 0.26 % of it.
DECODE_S = Span(3.6e-3 / 10, 24e-6 / 0.0026 / 10)  # a second of sound
# `bench.step`: two ranks gave 0.97 of one; four ranks on two cores 26.0 clips/s where one gave 32.7.
RANKS_KEEP = Span(26.0 / 32.7, 1.0)  # the share of a rank's speed that stays where there are more of them


class Sounds(NamedTuple):
    """The clips of a catalogue that have audio.

    Attributes:
        table: the columns from which a mixture is drawn, one row a clip.
        seconds: the length of each clip, ``[clips]``.
    """

    table: pa.Table
    seconds: Float64


class Nodes(NamedTuple):
    """Nodes of one kind: their name in the cluster's file, and what each of them has."""

    kind: str
    number: int
    cpus: int
    gpus: int


class Trial(NamedTuple):
    """What a short run showed: clips a second of each rank, and bytes of a checkpoint."""

    rate: Span
    checkpoint_bytes: int


def sounds_of(catalogue: pa.Table, mean_s: Mapping[str, float], as_published: bool = False) -> Sounds:
    """The clips that have audio, or with ``as_published`` all clips, with their lengths.

    A length is the published one, or that of the clip's interval, or the mean that ``mean_s`` gives for its dataset.

    Raises:
        InputError: there is no such clip, or a dataset publishes no lengths and ``mean_s`` lacks it.
    """
    has_audio = pc.and_(pc.is_valid(catalogue["path"]), pc.is_null(catalogue["problem"]))
    table = catalogue if as_published else catalogue.filter(has_audio)
    if not table.num_rows:
        remedy = "add --as-published to plan before the sound files are there"
        raise InputError("no clip of the catalogue has audio", remedy=remedy)
    intervals = table["interval"].combine_chunks()
    within = pc.subtract(pc.struct_field(intervals, "end"), pc.struct_field(intervals, "start"))
    lengths = pc.coalesce(table["published_duration_s"].combine_chunks(), within)
    seconds = np.array(pc.fill_null(lengths, math.nan).to_numpy(zero_copy_only=False), dtype=np.float64)
    datasets = np.array(table["dataset"].to_pylist())
    for name in sorted(set(datasets[~(seconds >= 0)])):
        unknown = (datasets == name) & ~(seconds >= 0)
        if name not in mean_s:
            what = f"{int(unknown.sum())} clips of {name} have no published length"
            raise InputError(what, remedy=f"say how long they are on average, for example --mean-s {name}=10")
        seconds[unknown] = mean_s[name]
    columns = table.select(["clip_id", "dataset", "split", "captions"])
    return Sounds(columns.append_column("window", pa.array(np.zeros(len(seconds), np.int32))), seconds)


def build_cost(clips: int, seconds: float, nodes: Nodes) -> dict[str, Any]:
    """Hours and bytes of a build of ``clips`` clips with ``seconds`` seconds of sound.

    Every core decodes, compares and writes.  One process lists the clips, compares, and decides and plans, one after
    the other; ``memory_bytes`` has its peak in each of these.
    """
    sound_hours = seconds / 3600
    core_s = BUILD_CORE_S.times(seconds).plus(PAIRS.times(PAIR_S * clips)).plus(JOIN_S.times(sound_hours))
    core_hours = core_s.times(1 / 3600)
    alone = CATALOGUE_S * clips + planning_s(clips)
    return {
        "clips": clips,
        "hours_of_sound": sound_hours,
        "core_hours": core_hours,
        "hours": core_hours.times(1 / (nodes.number * nodes.cpus)).plus(Span(alone / 3600, alone / 3600)),
        "hours_on_one_core": alone / 3600,
        "shard_bytes": SHARD_BYTES.times(seconds),
        "memory_bytes": building_bytes(clips, sound_hours),
    }


def planning_s(clips: int) -> float:
    """Core seconds that one process needs to decide about ``clips`` clips and to plan their shards."""
    return PLAN_S * clips * (clips / PLAN_CLIPS) ** (PLAN_GROWTH - 1)


def building_bytes(clips: int, hours: float) -> dict[str, float]:
    """The most memory of the process that starts a build, while it does each of three things."""
    return {
        "lists the clips": PROCESS_BYTES + LIST_BYTES * clips,
        "compares them": PROCESS_BYTES + COMPARE_BYTES * hours,
        "decides and plans": PROCESS_BYTES + DECIDE_BYTES * clips,
    }


def training_cost(name: str, recipe: Recipe, sounds: Sounds, nodes: Nodes, trial: Trial | None) -> dict[str, Any]:
    """Steps, bytes and, where a trial was run, hours of a recipe on the clips of a catalogue; errors name the recipe.

    Raises:
        InputError: the recipe trains on text alone, or on no split of the catalogue.
    """
    from training.data.sampling.mixture import build_pools, draws_per_item, steps_per_epoch
    from training.engine.schedule import make_schedule

    recipe, missing = _with_splits_that_exist(name, recipe, sounds.table)
    pools = build_pools(sounds.table, recipe.data.train)
    draws = draws_per_item(pools, recipe.data)
    window_s = ProbeSettings().window_s
    read_s = 0.0  # seconds of sound whose bytes an epoch reads: all of a clip, or one window of a long one
    for pool, count in zip(pools, draws, strict=True):
        lengths = np.minimum(sounds.seconds[pool.rows[pool.starts[:-1]]], window_s)
        read_s += float(lengths.mean()) * int(count)
    trained_s = float(sounds.seconds[np.unique(np.concatenate([pool.rows for pool in pools]))].sum())
    stored = "audio" in recipe.data.stored  # then a run reads the sound once, encodes it, and trains on vectors
    epoch_steps = steps_per_epoch(int(draws.sum()), recipe.data)
    if not epoch_steps:
        remedy = "lower data.batch_size with --set, or catalogue more clips"
        raise InputError("an epoch draws less than one batch", file=name, value=int(draws.sum()), remedy=remedy)
    steps = make_schedule(recipe.optimizer, epoch_steps).steps
    clips = steps * recipe.data.batch_size
    ranks = nodes.number * max(1, nodes.gpus)
    keep = recipe.checkpoint.keep_last + recipe.checkpoint.keep_best
    return {
        "missing_splits": missing,
        "steps": steps,
        "epochs": steps / epoch_steps,
        "batch_size": recipe.data.batch_size,
        "clips_encoded": clips,
        "ranks": ranks,
        "stored": stored,
        "hours": None if trial is None else _hours(clips, ranks, trial.rate),
        "bytes_read": SHARD_BYTES.times(trained_s if stored else read_s * steps / epoch_steps),
        "bytes_of_its_shards": SHARD_BYTES.times(trained_s),
        "checkpoint_bytes": None if trial is None else trial.checkpoint_bytes * keep,
    }


def _hours(clips: int, ranks: int, rate: Span) -> Span:
    kept = Span(1.0, 1.0) if ranks == 1 else RANKS_KEEP
    return Span(clips / (ranks * rate.high * kept.high) / 3600, clips / (ranks * rate.low * kept.low) / 3600)


def _with_splits_that_exist(name: str, recipe: Recipe, table: pa.Table) -> tuple[Recipe, list[str]]:
    """The recipe with the splits of its mixture that the table has, and the names of the others."""
    from training.data.sampling.mixture import splits_of
    from training.run.checks import with_found_splits

    if recipe.audio is None:
        raise InputError("this recipe trains on text alone, which no catalogue lists", file=name, remedy="leave it out")
    recipe, _ = with_found_splits(recipe, table)
    known = splits_of(table)
    known += [name.partition("/")[0] for name in known]
    train = tuple(item for item in recipe.data.train if item.split in known)
    missing = [item.split for item in recipe.data.train if item.split not in known]
    if not train:
        remedy = f"the catalogue has {', '.join(sorted(set(known)))}; change data.train with --set"
        what = "the catalogue has none of the recipe's splits"
        raise InputError(what, file=name, value=", ".join(missing), remedy=remedy)
    return replace(recipe, data=replace(recipe.data, train=train)), missing


def trial_of(rates: Sequence[float], checkpoint_bytes: int) -> Trial:
    """A trial from the clips a second of a rank in each step: the quartiles of all but the first quarter, the warm-up.

    Raises:
        InputError: there are fewer than 20 steps.
    """
    if len(rates) < 20:
        raise InputError("a trial needs at least 20 steps", value=len(rates), remedy="let the trial run longer")
    low, high = np.quantile(rates[len(rates) // 4 :], [0.25, 0.75])
    return Trial(Span(float(low), float(high)), checkpoint_bytes)


def money(hours: Span | None, nodes: Nodes, prices: Mapping[str, float], head: str | None) -> Span | None:
    """What the nodes cost in these hours, and the head beside them where it has a price; None: not known."""
    if hours is None or nodes.kind not in prices:
        return None
    an_hour = nodes.number * prices[nodes.kind]
    return hours.times(an_hour + (prices.get(head, 0.0) if head is not None and head != nodes.kind else 0.0))
