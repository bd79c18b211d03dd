"""What an epoch draws from: the clips of each item of the mixture, and how often it draws each of them.

These are pure functions over manifest columns.  An epoch draws clips and not windows of clips: all windows of a
long clip together count as one clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sharding.common.errors import InputError
from sharding.schema import stable_id
from training.data.sampling.hashing import hash64, permutation
from training.data.settings import DataSettings, MixtureItem

Int64 = NDArray[np.int64]
RUNS = 0x52554E53  # purpose of a hash: the order of an item's runs
SHARE = 0x53484152  # the clips of an item that is a part of a split
MOST_DRAWS, MOST_PASSES = 10**9, 10**6  # of an epoch: of all items together, and over the clips of one


@dataclass(frozen=True)
class Pool:
    """The clips that one item of the mixture can draw.

    Attributes:
        rows: manifest rows of all windows of the clips, clip by clip, ``[windows of the pool]``.
        starts: where each clip's windows start in ``rows``, and the end of the last one, ``[clips + 1]``.
        caption: which of its captions each clip is drawn with, ``[clips]``; -1: any.  Where pairs are captions, a clip
            is in the pool once for each of its captions.
    """

    rows: Int64
    starts: Int64
    caption: Int64

    def __len__(self) -> int:
        return len(self.starts) - 1


@dataclass(frozen=True)
class ClipRuns:
    """Runs of neighbouring clips: a run draws the clips ``start .. start + length`` of the pool ``item``.

    ``pass_number`` counts the passes over the pool since epoch 0.
    """

    item: Int64
    pass_number: Int64
    start: Int64
    length: Int64

    def take(self, which: Int64) -> ClipRuns:
        return ClipRuns(self.item[which], self.pass_number[which], self.start[which], self.length[which])


def select_rows(table: pa.Table, split: str) -> NDArray[np.bool_]:
    """Which manifest rows belong to ``dataset/split``, or to ``dataset``, which stands for all of its splits."""
    refuse_empty(table)
    dataset, _, part = split.partition("/")
    chosen = pc.equal(table["dataset"], dataset)
    if part:
        chosen = pc.and_(chosen, pc.equal(table["split"], part))
    mask = np.asarray(chosen.combine_chunks().to_numpy(zero_copy_only=False), dtype=bool)
    if not mask.any():
        raise InputError(
            "the shards have no such split",
            value=split,
            remedy="they have " + ", ".join(splits_of(table)),
        )
    return mask


def refuse_empty(table: pa.Table) -> None:
    """``InputError`` if a build has not a single sample."""
    if not table.num_rows:
        raise InputError(
            "the build has no samples: not one of its clips was written",
            remedy="`earshot report OUT` says why; correct the clips, and build again",
        )


def splits_of(table: pa.Table) -> list[str]:
    """The splits of a manifest as ``dataset/split``, sorted."""
    pairs = table.select(["dataset", "split"]).group_by(["dataset", "split"]).aggregate([]).to_pylist()
    return sorted(f"{pair['dataset']}/{pair['split']}" for pair in pairs)


def build_pools(table: pa.Table, items: Sequence[MixtureItem]) -> list[Pool]:
    """One pool for each item: the clips of its split that have a caption of its kinds."""
    clips = _clip_numbers(table)
    counts = {kinds: _count_captions(table["captions"], kinds) for kinds in {item.captions for item in items}}
    return [_pool(table, clips, counts[item.captions], item) for item in items]


def _clip_numbers(table: pa.Table) -> Int64:
    """The clip of each row as an integer, in order of first appearance.

    A build has each window of a clip once, one after another, from its window 0.  Where a table is like that, its
    clips are counted, because looking up every name of 10 million rows takes seconds.
    """
    names, windows = table["clip_id"], np.asarray(table["window"].to_numpy())
    later = np.flatnonzero(windows)
    if len(later):
        before = later - 1
        if before[0] < 0 or not pc.all(pc.equal(names.take(later), names.take(before))).as_py():
            return integer_codes(names)
    numbers = np.cumsum(windows == 0)
    numbers -= 1
    return numbers


def integer_codes(column: pa.ChunkedArray) -> Int64:
    """Strings as integers from 0 in order of first appearance; equal strings have equal integers."""
    encoded = pc.dictionary_encode(column.combine_chunks())
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    return np.asarray(encoded.indices, dtype=np.int64)


def _pool(table: pa.Table, clips: Int64, counts: NDArray[np.integer], item: MixtureItem) -> Pool:
    """The pool of an item, from the clip of each row ``[rows]`` and its captions of the item's kinds ``[rows]``."""
    chosen = select_rows(table, item.split) & (counts > 0)
    rows = _part(table, np.flatnonzero(chosen), item.share)
    if not len(rows):
        raise InputError(
            f"no clip of {item.split} has a caption of the kinds {', '.join(item.captions)}",
            remedy="add kinds to the item's captions, or leave the item out",
        )
    # Clips in the order of their first window, windows by number: neighbours here are neighbours in the shards.
    clip, window = _of_rows(clips, rows), _of_rows(np.asarray(table["window"].to_numpy()), rows)
    if (clip[1:] < clip[:-1]).any() or ((window[1:] < window[:-1]) & (clip[1:] == clip[:-1])).any():
        order = np.lexsort((window, clip))
        rows, clip = rows[order], clip[order]
    begins = np.ones(len(rows) + 1, bool)  # where a clip begins, and the end
    np.not_equal(clip[1:], clip[:-1], out=begins[1:-1])
    starts = np.flatnonzero(begins)
    pool = Pool(rows, starts, np.broadcast_to(np.int64(-1), len(starts) - 1))
    return pool if item.pairs == "clips" else _by_caption(pool, counts[rows[starts[:-1]]])


def _of_rows(values: NDArray[np.integer], rows: Int64) -> NDArray[np.integer]:
    """The values of ascending rows; not a copy where the rows follow each other, as those of a split do."""
    together = rows[-1] - rows[0] == len(rows) - 1
    return values[rows[0] : rows[-1] + 1] if together else values[rows]


def _part(table: pa.Table, rows: Int64, share: float) -> Int64:
    """The rows of a part of their clips, at least one: those whose names have the least hashes."""
    if share == 1 or not len(rows):
        return rows
    names = table["clip_id"].take(rows).to_pylist()
    hashes = {name: int(hash64(SHARE, stable_id(name))) for name in dict.fromkeys(names)}
    kept = set(sorted(hashes, key=lambda name: hashes[name])[: max(1, round(share * len(hashes)))])
    return rows[[name in kept for name in names]]


def _by_caption(pool: Pool, counts: NDArray[np.integer]) -> Pool:
    """The pool with each clip as often as it has captions, ``counts [clips]``, once with each of them."""
    clip = np.repeat(np.arange(len(pool)), counts)
    caption = np.arange(len(clip)) - np.repeat(np.cumsum(counts) - counts, counts)
    windows = np.diff(pool.starts)[clip]
    starts = np.append(0, np.cumsum(windows))
    inside = np.arange(starts[-1]) - np.repeat(starts[:-1], windows)
    return Pool(pool.rows[np.repeat(pool.starts[clip], windows) + inside], starts, caption)


def _count_captions(captions: pa.ChunkedArray, kinds: Sequence[str]) -> NDArray[np.integer]:
    """How many captions of ``kinds`` each row has."""
    fits = pc.is_in(pc.struct_field(pc.list_flatten(captions), "kind"), value_set=pa.array(kinds))
    counts = np.asarray(pc.fill_null(pc.list_value_length(captions), 0).to_numpy())
    if pc.all(fits, min_count=0).as_py():
        return counts
    fitting = np.append(0, np.cumsum(fits.to_numpy()))  # among the captions up to each of them
    return np.diff(fitting[np.cumsum(counts, dtype=np.int64)], prepend=0)


def draws_per_item(pools: Sequence[Pool], settings: DataSettings) -> Int64:
    """How many clips of each item an epoch draws, ``[items]``.

    Weights or a temperature divide among the items what they would draw together without them.  The shares are
    rounded by largest remainders, so that they add up to the same sum.

    Raises:
        InputError: an epoch would be absurdly long, or an item would never be drawn.
    """
    wanted = [_unweighted_draws(len(pool), item) for pool, item in zip(pools, settings.train, strict=True)]
    if sum(wanted) > MOST_DRAWS:
        what = f"an epoch would draw more than {MOST_DRAWS:,} clips"
        raise InputError(what, value=sum(wanted), remedy="lower repeat, choose or cap of the items of data.train")
    unweighted = np.array(wanted, dtype=np.int64)
    counts = _divided(unweighted, settings)
    for pool, count, item in zip(pools, counts.tolist(), settings.train, strict=True):
        if count == 0:
            what = f"an epoch would draw no clip of {item.split}, because others have far more weight"
            raise InputError(what, value=item.weight, remedy="raise its weight, or leave it out of data.train")
        if count > MOST_PASSES * len(pool):
            what = f"an epoch would go over the {len(pool)} clips of {item.split} more than {MOST_PASSES:,} times"
            raise InputError(what, value=f"{count} draws", remedy="lower its weight, repeat or choose")
    return counts


def _divided(unweighted: Int64, settings: DataSettings) -> Int64:
    """The draws of each item, ``[items]``: those without weights, or these divided by weights or a temperature."""
    weights: NDArray[np.float64]
    if settings.temperature is not None:
        weights = unweighted.astype(np.float64) ** (1.0 / settings.temperature)
    elif settings.train[0].weight is not None:
        weights = np.array([item.weight for item in settings.train], dtype=np.float64)
    else:
        return unweighted
    exact = unweighted.sum() * weights / weights.sum()
    counts = np.floor(exact).astype(np.int64)
    missing = int(unweighted.sum() - counts.sum())
    counts[np.argsort(counts - exact, kind="stable")[:missing]] += 1
    return counts


def steps_per_epoch(draws: int, settings: DataSettings) -> int:
    """How many global batches the draws of an epoch make."""
    whole, rest = divmod(draws, settings.batch_size)
    return whole + (settings.last == "keep" and rest > 0)


def _unweighted_draws(clips: int, item: MixtureItem) -> int:
    if item.choose is not None:
        return item.choose
    wanted = max(1, round(item.repeat * clips))
    return wanted if item.cap is None else min(item.cap, wanted)


def epoch_runs(pools: Sequence[Pool], counts: Int64, run: int, seed: int, epoch: int) -> ClipRuns:
    """The runs that an epoch draws, item by item.

    The draws of an item are an endless sequence of passes over its clips.  Each pass has the runs in another
    order.  Epoch e takes the ``counts[item]`` draws that begin at ``e * counts[item]``.
    """
    parts = [
        _item_runs(len(pool), int(count), run, seed, epoch, item)
        for item, (pool, count) in enumerate(zip(pools, counts, strict=True))
    ]
    columns: list[Any] = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return ClipRuns(*columns)


def _item_runs(clips: int, count: int, run: int, seed: int, epoch: int, item: int) -> tuple[Int64, Int64, Int64, Int64]:
    """The columns of one item's ``ClipRuns``: item, pass number, start and length."""
    begin, end = epoch * count, (epoch + 1) * count
    passes, starts, lengths = [], [], []
    for pass_number in range(begin // clips, (end - 1) // clips + 1 if end > begin else begin // clips):
        start = permutation(-(-clips // run), RUNS, seed, item, pass_number) * run
        length = np.minimum(run, clips - start)
        ends = np.cumsum(length) + pass_number * clips
        # Cut the pass to [begin, end).  A run across a border is cut, so no draw is lost or made twice.
        lost_before = np.clip(begin - (ends - length), 0, length)
        lost_after = np.clip(ends - end, 0, length)
        start, length = start + lost_before, length - lost_before - lost_after
        kept = length > 0
        starts.append(start[kept])
        lengths.append(length[kept])
        passes.append(np.full(int(kept.sum()), pass_number, dtype=np.int64))
    if not starts:
        return (np.zeros(0, np.int64),) * 4
    start = np.concatenate(starts)
    return np.full(len(start), item, dtype=np.int64), np.concatenate(passes), start, np.concatenate(lengths)
