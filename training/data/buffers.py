"""A pool of shared-memory buffers in which loader workers leave features for the training process.

A tensor that a worker sends in the usual way lies in new shared memory every time, and the kernel must clear
and map its pages: for sound this takes a third of the time that decoding takes.  The buffers of a pool are
mapped once, before the workers are forked.  A worker fills a buffer, the training process reads it in place,
and the buffer is used again when no tensor refers to it any more.
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
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # parameters of glibc's mallopt
_LARGEST_MMAP_THRESHOLD, _TRIM_THRESHOLD = 32 << 20, 512 << 20  # bytes


@dataclass(frozen=True)
class FilledBuffer:
    """Which buffer of which pool holds features, and their shape.  A worker sends this instead of the features."""

    pool: int
    buffer: int
    shape: tuple[int, ...]

    def read(self) -> Tensor:
        """The features, in place; the buffer is free again when nothing refers to this memory any more.

        Only the process that made the pool may call it.
        """
        return BufferPool.by_number[self.pool].read(self)


class BufferPool:
    """Buffers of equal size that are inherited by the processes forked afterwards.

    Only the process that made the pool reserves and frees buffers.  The memory has no name, so a process that
    is killed leaves nothing behind, and the kernel provides a page only when it is first written.

    Attributes:
        by_number: the pools of this process.  torch's pinning thread receives a ``FilledBuffer`` and nothing
            else, so the pool must be found by its number.
    """

    by_number: ClassVar[weakref.WeakValueDictionary[int, BufferPool]] = weakref.WeakValueDictionary()
    _numbers: ClassVar[itertools.count[int]] = itertools.count()

    def __init__(self, count: int, floats: int) -> None:
        self.number, self._floats = next(BufferPool._numbers), floats
        self._maps = [mmap.mmap(-1, max(1, floats) * _BYTES) for _ in range(count)]
        self._free = list(range(count))
        self._reserved: set[int] = set()  # named in a request, and not read yet
        BufferPool.by_number[self.number] = self

    def reserve(self) -> int | None:
        """A free buffer to name in a request; None if all are in use, and the worker then allocates memory."""
        if not self._free:
            return None
        buffer = self._free.pop()  # the last one that was freed: its pages are mapped, and may be in the cache
        self._reserved.add(buffer)
        return buffer

    def free_reserved(self) -> None:
        """Free the buffers of batches that nobody will fetch; the workers must have finished with them."""
        self._free += sorted(self._reserved)
        self._reserved.clear()

    def fill(self, buffer: int | None, shape: tuple[int, ...]) -> tuple[Tensor, FilledBuffer | None]:
        """Called in a worker: a tensor to fill, with old contents, and the small object to send instead of it.

        The tensor must itself be sent where the second value is None: there is no buffer, or it is too small.
        """
        if buffer is None or math.prod(shape) > self._floats:
            return torch.empty(shape), None
        return torch.from_numpy(self._array(buffer, shape)), FilledBuffer(self.number, buffer, shape)

    def read(self, filled: FilledBuffer) -> Tensor:
        """See `FilledBuffer.read`."""
        array = self._array(filled.buffer, filled.shape)
        self._reserved.discard(filled.buffer)
        weakref.finalize(array, self._free.append, filled.buffer)
        return torch.from_numpy(array)

    def _array(self, buffer: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
        return np.ndarray(shape, dtype=np.float32, buffer=self._maps[buffer])


def keep_freed_memory(worker: int) -> None:
    """Make the C library of this worker process keep the memory that is freed, so that its pages stay mapped.

    By default glibc returns large blocks to the kernel at once and gets them again, cleared, for the next
    sample, which takes a sixth of the time of decoding.  Without glibc this does nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD)
