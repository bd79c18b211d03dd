"""The order of training: which samples, captions, windows and crops make up each global batch.

A pure function of (manifest, mixture, seed, epoch).  The global batch at a step is one ordered list,
whatever the number of ranks and workers; rank r of W takes the r-th of W contiguous parts, so that the
ranks' parts in rank order are the global batch again.  Any step is reached directly: an epoch's runs are
permuted once (a hash and a sort), and only the window that holds the step is shuffled clip by clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sharding.common.errors import InputError
from sharding.schema import stable_id
from training.data.hashing import permutation
from training.data.kinship import kin_repeats, separate_kin
from training.data.mixture import ClipRuns, build_pools, draws_per_item, epoch_runs, integer_codes
from training.data.neighbourhoods import arrange
from training.data.sampling import ClipChoice, DrawnSamples, ManifestRows, draw_samples
from training.data.settings import DataSettings, MixtureItem

Int64 = NDArray[np.int64]

# Purposes of hashes: the order of runs, and that inside a window.
EPOCH, WINDOW = 0x45504F43, 0x57494E44


@dataclass(frozen=True)
class _Window:
    """DrawnSamples ``first .. first + len`` of an epoch in their final order."""

    first: int
    item: Int64
    turn: Int64
    clip: Int64  # in the item's pool


class Order:
    """The global batches of every epoch.

    Args:
        table: MANIFEST rows (``Manifest.table``).
        settings: the recipe's data section.
        seed: the run's seed.
    """

    def __init__(self, table: pa.Table, settings: DataSettings, seed: int = 0) -> None:
        self.settings, self.seed = settings, seed
        self._records = ManifestRows(table)
        self._pools = build_pools(table, settings.train)
        self._counts = draws_per_item(self._pools, settings)
        self._kin = integer_codes(pc.coalesce(table["kin"], table["group"], table["clip_id"]))
        self._arrange = arrange(table, [pool.rows for pool in self._pools], settings.shuffle)
        self.draws_per_epoch = int(self._counts.sum())
        size = settings.batch_size
        self.steps_per_epoch = (
            self.draws_per_epoch // size if settings.last == "drop" else -(-self.draws_per_epoch // size)
        )
        if self.steps_per_epoch == 0:
            raise InputError(
                f"the mixture draws {self.draws_per_epoch} clips an epoch, less than one global batch of {size}",
                remedy="lower batch_size, repeat the items, or set last: keep",
            )
        whole = self.draws_per_epoch // size
        windows = max(1, min(whole, round(self.draws_per_epoch / settings.shuffle.window)))
        self._borders = np.array([whole * number // windows * size for number in range(windows)])
        self._spans = lru_cache(maxsize=2)(self._epoch_spans)
        self._window = lru_cache(maxsize=2)(self._shuffled_window)

    def batch(self, epoch: int, step: int, rank: int = 0, world: int = 1) -> DrawnSamples:
        """The rank's part of a global batch; rank 0 of 1 is the whole batch."""
        window, inside = self._locate(epoch, step)
        start = inside.start + (inside.stop - inside.start) * rank // world
        end = inside.start + (inside.stop - inside.start) * (rank + 1) // world
        return self._draws(window, np.arange(start, end), epoch)

    def count_kin_repeats(self, epoch: int, step: int) -> int:
        """How many samples of a global batch have kin before them in it; the loss leaves those pairs out."""
        window, inside = self._locate(epoch, step)
        return len(kin_repeats(self._kin[self._first_rows(window)[inside]], self.settings.batch_size))

    def rows(self, epoch: int) -> Int64:
        """Manifest rows of an epoch's draws (first windows) in their order, ``[draws an epoch]``."""
        parts = [self._first_rows(self._window(epoch, number)) for number in range(len(self._borders))]
        return np.concatenate(parts)

    def _locate(self, epoch: int, step: int) -> tuple[_Window, slice]:
        if not 0 <= step < self.steps_per_epoch:
            raise InputError(
                "the epoch has no such step",
                value=step,
                remedy=f"an epoch has {self.steps_per_epoch} steps, from 0",
            )
        begin = step * self.settings.batch_size
        number = int(np.searchsorted(self._borders, begin, side="right")) - 1
        window = self._window(epoch, number)
        end = min(begin + self.settings.batch_size, self.draws_per_epoch)
        return window, slice(begin - window.first, end - window.first)

    def _epoch_spans(self, epoch: int) -> tuple[ClipRuns, Int64]:
        """The epoch's runs in their order, and the place of each run's end."""
        spans = epoch_runs(self._pools, self._counts, self.settings.shuffle.run, self.seed, epoch)
        spans = spans.take(permutation(len(spans.first), EPOCH, self.seed, epoch))
        return spans, np.cumsum(spans.length)

    def _shuffled_window(self, epoch: int, number: int) -> _Window:
        spans, ends = self._spans(epoch)
        begin = int(self._borders[number])
        end = int(self._borders[number + 1]) if number + 1 < len(self._borders) else self.draws_per_epoch
        low, high = np.searchsorted(ends, [begin, end - 1], side="right")
        spans, ends = spans.take(np.arange(low, high + 1)), ends[low : high + 1]
        of = np.repeat(np.arange(len(ends)), spans.length)
        places = np.arange(len(of)) + (ends[0] - spans.length[0])
        inside = (places >= begin) & (places < end)
        of, places = of[inside], places[inside]
        clip = spans.first[of] + places - (ends - spans.length)[of]
        window = _Window(begin, spans.item[of], spans.turn[of], clip)
        window = _reorder(window, permutation(len(of), WINDOW, self.seed, epoch, number))
        size = self.settings.batch_size
        if self.settings.shuffle.batches == "mixed":
            return _reorder(window, separate_kin(self._kin[self._first_rows(window)], size))
        window = _reorder(window, self._arrange(self._first_rows(window), size, (self.seed, epoch, number)))
        window = _reorder(window, separate_kin(self._kin[self._first_rows(window)], size, like=True))
        # Like batches stood side by side while kin were separated; now they spread over the window.
        whole = len(of) // size
        batches = permutation(whole, WINDOW, self.seed, epoch, number, 1)
        places = (batches[:, None] * size + np.arange(size)).ravel()
        return _reorder(window, np.append(places, np.arange(whole * size, len(of))))

    def _first_rows(self, window: _Window) -> Int64:
        rows = np.empty(len(window.clip), dtype=np.int64)
        for number, pool in enumerate(self._pools):
            mine = window.item == number
            rows[mine] = pool.rows[pool.starts[window.clip[mine]]]
        return rows

    def _draws(self, window: _Window, places: Int64, epoch: int) -> DrawnSamples:
        choices = []
        items = self.settings.train
        for place in places:
            item, clip = int(window.item[place]), int(window.clip[place])
            pool = self._pools[item]
            rows = pool.rows[pool.starts[clip] : pool.starts[clip + 1]]
            choices.append(ClipChoice(rows, int(window.turn[place]), items[item]))
        return draw_samples(self._records, choices, self.settings, self.seed, epoch)


class SequentialOrder:
    """A split from its first clip to its last, for evaluation: the same interface, nothing drawn.

    Each clip once: its first window, from the start, up to ``crop_s``; its first caption.
    The last batch may be short, and then some ranks may get none of it.
    """

    def __init__(self, table: pa.Table, split: str, settings: DataSettings, batch_size: int) -> None:
        self.item = MixtureItem(split)
        self.settings, self.batch_size = settings, batch_size
        self._records = ManifestRows(table)
        self._pool = build_pools(table, [self.item])[0]
        self.draws_per_epoch = len(self._pool)
        self.steps_per_epoch = -(-len(self._pool) // batch_size)

    def batch(self, epoch: int, step: int, rank: int = 0, world: int = 1) -> DrawnSamples:
        """The rank's part of a batch; the same in every epoch."""
        begin = step * self.batch_size
        end = min(begin + self.batch_size, self.draws_per_epoch)
        start, stop = begin + (end - begin) * rank // world, begin + (end - begin) * (rank + 1) // world
        firsts = self._pool.rows[self._pool.starts[start:stop]]
        choices = [ClipChoice(firsts[[place]], 0, self.item) for place in range(stop - start)]
        return draw_samples(self._records, choices, self.settings, 0, 0, fixed=True)


def _reorder(window: _Window, order: Int64) -> _Window:
    return _Window(window.first, window.item[order], window.turn[order], window.clip[order])


def batch_hash(keys: Sequence[str]) -> str:
    """A short name for a global batch: equal for equal keys in equal order."""
    return f"{stable_id(chr(10).join(keys)) & 0xFFFFFFFFFFFFFFFF:016x}"
