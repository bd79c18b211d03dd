"""Memory that loader workers and the training process share, used again batch after batch.

A tensor that a worker sends in the usual way lies in new shared memory every time, whose pages the kernel
must clear and map: for sound that takes a third of the time of decoding it.  Here a few slots are mapped
before the workers are forked; a worker fills one, the training process reads it in place, and when the last
tensor on it is gone the slot is free again.
"""

from __future__ import annotations

import ctypes
import itertools
import math
import mmap
import weakref
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_BYTES = np.dtype(np.float32).itemsize
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
_LARGEST_MMAP_THRESHOLD, _TRIM_THRESHOLD = 32 << 20, 512 << 20


@dataclass(frozen=True)
class Lent:
    """Features in a slot: which, and their shape; small enough to be sent."""

    pool: int
    slot: int
    shape: tuple[int, ...]


class Slots:
    """Slots of equal size, inherited by processes that are forked later.

    Only the process that made them lends and frees.  Nothing has a name, so nothing is left behind by a
    process that is killed, and memory is taken when it is first written.
    """

    _pools: ClassVar[weakref.WeakValueDictionary[int, Slots]] = weakref.WeakValueDictionary()
    _numbers: ClassVar[itertools.count[int]] = itertools.count()

    def __init__(self, count: int, floats: int) -> None:
        self.number, self._floats = next(Slots._numbers), floats
        self._maps = [mmap.mmap(-1, max(1, floats) * _BYTES) for _ in range(count)]
        self._free = list(range(count))
        self._away: set[int] = set()  # promised to workers, not yet filled
        Slots._pools[self.number] = self

    def promise(self) -> int | None:
        """A free slot to send with a request; None: all are in use, and the worker finds memory of its own."""
        if not self._free:
            return None
        slot = self._free.pop()  # the one freed last: its pages are mapped, and perhaps in the cache
        self._away.add(slot)
        return slot

    def recall(self) -> None:
        """Take back what was promised for batches that nobody will fetch; the workers must be done with them."""
        self._free += sorted(self._away)
        self._away.clear()

    def fill(self, slot: int | None, shape: tuple[int, ...]) -> tuple[Tensor, Lent | None]:
        """In a worker: a tensor to fill (its contents are old), and what to send in its place."""
        if slot is None or math.prod(shape) > self._floats:
            return torch.empty(shape), None
        return torch.from_numpy(self._array(slot, shape)), Lent(self.number, slot, shape)

    @staticmethod
    def receive(lent: Lent) -> Tensor:
        """The tensor that a worker filled; its slot is free again when nothing refers to the memory any more."""
        pool = Slots._pools[lent.pool]
        array = pool._array(lent.slot, lent.shape)
        pool._away.discard(lent.slot)
        weakref.finalize(array, pool._free.append, lent.slot)
        return torch.from_numpy(array)

    def _array(self, slot: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
        return np.ndarray(shape, dtype=np.float32, buffer=self._maps[slot])


def keep_memory(worker: int) -> None:
    """Have this worker process keep what it frees, so that each sample finds its pages mapped.

    The C library gives large blocks back to the kernel at once, and gets them again, cleared, for the next
    sample: a sixth of the time of decoding.  Without glibc nothing is changed.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD)
