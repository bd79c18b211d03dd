"""The order of training: which samples, captions, windows and crops make up each global batch.

The order is a pure function of (manifest, mixture, seed, epoch).  The global batch at a step is one ordered list,
whatever the number of ranks and workers.  Rank r of W takes the r-th of W contiguous parts, so the parts of all
ranks, in rank order, are the global batch.  Any step is computed directly: the runs of an epoch are permuted once
(a hash and a sort), and only the shuffle window that holds the step is shuffled clip by clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sharding.common.errors import InputError
from sharding.schema import stable_id
from training.data.sampling.draws import ClipChoice, DrawnSamples, ManifestRows, draw_samples
from training.data.sampling.hashing import hash64, permutation, signed
from training.data.sampling.kinship import kin_repeats, separate_kin
from training.data.sampling.mixture import (
    ClipRuns,
    build_pools,
    draws_per_item,
    epoch_runs,
    integer_codes,
    steps_per_epoch,
)
from training.data.sampling.neighbourhoods import make_grouping
from training.data.settings import DataSettings, MixtureItem

Int64 = NDArray[np.int64]

# What a hash is for, so that equal numbers hash differently: the runs of an epoch, a shuffle window, names of batches.
EPOCH, WINDOW, NAME = 0x45504F43, 0x57494E44, 0x4E414D45


@dataclass(frozen=True)
class _ShuffleWindow:
    """The draws ``start .. start + n`` of an epoch in their final order.

    Attributes:
        start: number of draws of the epoch before these.
        item: the mixture item of each draw, ``[n]``.
        pass_number: how many passes over the item's pool came before, ``[n]``.
        clip: the clip of each draw in its item's pool, ``[n]``.
    """

    start: int
    item: Int64
    pass_number: Int64
    clip: Int64

    def reordered(self, order: Int64) -> _ShuffleWindow:
        return _ShuffleWindow(self.start, self.item[order], self.pass_number[order], self.clip[order])


class Order:
    """The global batches of every epoch.

    Args:
        table: MANIFEST rows (``Manifest.table``).
        settings: the recipe's data section.
        seed: the run's seed.

    Attributes:
        draws_per_epoch: how many clips an epoch draws.
        steps_per_epoch: how many global batches an epoch has.
    """

    def __init__(self, table: pa.Table, settings: DataSettings, seed: int = 0) -> None:
        self.settings, self.seed = settings, seed
        self._manifest = ManifestRows(table)
        self._pools = build_pools(table, settings.train)
        self._counts = draws_per_item(self._pools, settings)
        self._names = table.select(["kin", "group", "clip_id"])
        self._grouping = make_grouping(table, [pool.rows for pool in self._pools], settings.shuffle)
        self.draws_per_epoch = int(self._counts.sum())
        size = settings.batch_size
        whole_batches = self.draws_per_epoch // size
        self.steps_per_epoch = steps_per_epoch(self.draws_per_epoch, settings)
        if self.steps_per_epoch == 0:
            raise InputError(
                f"the mixture draws {self.draws_per_epoch} clips an epoch, less than one global batch of {size}",
                remedy="lower batch_size, repeat the items, or set last: keep",
            )
        windows = max(1, min(whole_batches, round(self.draws_per_epoch / settings.shuffle.window)))
        self._window_starts = np.array([whole_batches * number // windows * size for number in range(windows)])
        self._runs = lru_cache(maxsize=2)(self._shuffled_runs)
        self._window = lru_cache(maxsize=2)(self._shuffled_window)

    def batch(self, epoch: int, step: int, rank: int = 0, world: int = 1) -> DrawnSamples:
        """The rank's part of a global batch; rank 0 of 1 has the whole batch."""
        window, inside = self._locate(epoch, step)
        start = inside.start + (inside.stop - inside.start) * rank // world
        end = inside.start + (inside.stop - inside.start) * (rank + 1) // world
        draws = self._draw(window, range(start, end), epoch)
        return replace(draws, name_part=name_part(draws.keys, start - inside.start))

    def items(self) -> list[tuple[int, int]]:
        """For each item of the mixture: how many clips it has, and how many of them an epoch draws."""
        return [(len(pool), count) for pool, count in zip(self._pools, self._counts.tolist(), strict=True)]

    def count_kin_repeats(self, epoch: int, step: int) -> int:
        """How many samples of a global batch have kin earlier in it; the loss leaves such pairs out."""
        window, inside = self._locate(epoch, step)
        return len(kin_repeats(self._kin(self._first_rows(window)[inside]), self.settings.batch_size))

    def rows(self, epoch: int) -> Int64:
        """The manifest row of each draw's first window in the order of an epoch, ``[draws_per_epoch]``."""
        parts = [self._first_rows(self._window(epoch, number)) for number in range(len(self._window_starts))]
        return np.concatenate(parts)

    def _locate(self, epoch: int, step: int) -> tuple[_ShuffleWindow, slice]:
        """The shuffle window that holds a step, and the step's draws in it."""
        if not 0 <= step < self.steps_per_epoch:
            raise InputError(
                "the epoch has no such step",
                value=step,
                remedy=f"an epoch has {self.steps_per_epoch} steps, from 0",
            )
        begin = step * self.settings.batch_size
        number = int(np.searchsorted(self._window_starts, begin, side="right")) - 1
        window = self._window(epoch, number)
        end = min(begin + self.settings.batch_size, self.draws_per_epoch)
        return window, slice(begin - window.start, end - window.start)

    def _shuffled_runs(self, epoch: int) -> tuple[ClipRuns, Int64]:
        """The runs of an epoch in their order, and the number of draws up to the end of each run."""
        runs = epoch_runs(self._pools, self._counts, self.settings.shuffle.run, self.seed, epoch)
        runs = runs.take(permutation(len(runs.start), EPOCH, self.seed, epoch))
        return runs, np.cumsum(runs.length)

    def _shuffled_window(self, epoch: int, number: int) -> _ShuffleWindow:
        window = self._unshuffled_window(epoch, number)
        window = window.reordered(permutation(len(window.clip), WINDOW, self.seed, epoch, number))
        size = self.settings.batch_size
        if self.settings.shuffle.batches == "mixed":
            return window.reordered(separate_kin(self._kin(self._first_rows(window)), size))
        window = window.reordered(self._grouping(self._first_rows(window), size, (self.seed, epoch, number)))
        window = window.reordered(separate_kin(self._kin(self._first_rows(window)), size, alike=True))
        # Until here similar batches followed each other, so that kin could be swapped between them.
        whole = len(window.clip) // size
        batches = permutation(whole, WINDOW, self.seed, epoch, number, 1)
        positions = (batches[:, None] * size + np.arange(size)).ravel()
        return window.reordered(np.append(positions, np.arange(whole * size, len(window.clip))))

    def _unshuffled_window(self, epoch: int, number: int) -> _ShuffleWindow:
        """The draws of a shuffle window in the order of the runs."""
        runs, ends = self._runs(epoch)
        begin = int(self._window_starts[number])
        last = number + 1 == len(self._window_starts)
        end = self.draws_per_epoch if last else int(self._window_starts[number + 1])
        low, high = np.searchsorted(ends, [begin, end - 1], side="right")
        runs, ends = runs.take(np.arange(low, high + 1)), ends[low : high + 1]
        run_of = np.repeat(np.arange(len(ends)), runs.length)
        positions = np.arange(len(run_of)) + (ends[0] - runs.length[0])
        inside = (positions >= begin) & (positions < end)
        run_of, positions = run_of[inside], positions[inside]
        clip = runs.start[run_of] + positions - (ends - runs.length)[run_of]
        return _ShuffleWindow(begin, runs.item[run_of], runs.pass_number[run_of], clip)

    def _first_rows(self, window: _ShuffleWindow) -> Int64:
        """The manifest row of the first window of each drawn clip."""
        rows = np.empty(len(window.clip), dtype=np.int64)
        for number, pool in enumerate(self._pools):
            mine = window.item == number
            rows[mine] = pool.rows[pool.starts[window.clip[mine]]]
        return rows

    def _kin(self, rows: Int64) -> Int64:
        """The kin of manifest rows as integers from 0.  Only the rows of one shuffle window are looked up at a time."""
        kin = self._names["kin"].take(rows)
        for instead in ("group", "clip_id"):
            if kin.null_count:
                kin = pc.coalesce(kin, self._names[instead].take(rows))
        return integer_codes(kin)

    def _draw(self, window: _ShuffleWindow, positions: range, epoch: int) -> DrawnSamples:
        choices = []
        for position in positions:
            item, clip = int(window.item[position]), int(window.clip[position])
            pool = self._pools[item]
            rows = pool.rows[pool.starts[clip] : pool.starts[clip + 1]]
            pass_number, caption = int(window.pass_number[position]), int(pool.caption[clip])
            choices.append(ClipChoice(rows, pass_number, self.settings.train[item], caption))
        return draw_samples(self._manifest, choices, self.settings, self.seed, epoch)


class SequentialOrder:
    """A split from its first clip to its last, for evaluation; it has the interface of ``Order``.

    Nothing is drawn.  Each clip occurs once: its first window, from the start, up to ``crop_s``, with its first
    caption.  The last batch may be short, and then some ranks may get none of it.
    """

    def __init__(self, table: pa.Table, split: str, settings: DataSettings, batch_size: int) -> None:
        self.item = MixtureItem(split)
        self.settings, self.batch_size = settings, batch_size
        self._manifest = ManifestRows(table)
        self._pool = build_pools(table, [self.item])[0]
        self.draws_per_epoch = len(self._pool)
        self.steps_per_epoch = -(-len(self._pool) // batch_size)

    def batch(self, epoch: int, step: int, rank: int = 0, world: int = 1) -> DrawnSamples:
        """The rank's part of a batch; it is the same in every epoch."""
        begin = step * self.batch_size
        end = min(begin + self.batch_size, self.draws_per_epoch)
        start, stop = begin + (end - begin) * rank // world, begin + (end - begin) * (rank + 1) // world
        first_rows = self._pool.rows[self._pool.starts[start:stop]]
        choices = [ClipChoice(first_rows[[number]], 0, self.item) for number in range(stop - start)]
        return draw_samples(self._manifest, choices, self.settings, 0, 0, fixed=True)


def name_part(keys: Sequence[str], first: int = 0) -> int:
    """The share of some samples of a global batch in its name, as int64.

    Args:
        keys: the keys of the samples, in their order.
        first: the place of the first of them in the global batch.
    """
    ids = np.array([stable_id(key) for key in keys], dtype=np.int64)
    return int(signed(hash64(NAME, ids, first + np.arange(len(keys)))).sum())


def batch_name(parts: int) -> str:
    """A short name of a global batch, equal for equal keys in equal order.

    The parts of all ranks add up (with 64 bits), so no rank needs the whole batch to name it, and the name does not
    depend on the number of ranks.
    """
    return f"{parts & 0xFFFFFFFFFFFFFFFF:016x}"
