"""Bytes as a file that a C library reads by itself.

A library that reads a Python object calls Python for every piece.  libsndfile does so about 145 times for a clip of ten
seconds, which takes 3 % of decoding it.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading

_LARGEST = 8 << 20  # bytes; the memory of a content is held until the thread has another one


class _MemoryFile:
    """A nameless file in memory that holds one content after another."""

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("sound", os.MFD_CLOEXEC)

    def hold(self, data: bytes) -> bool:
        """Whether the file now holds ``data``, and stands at its beginning."""
        os.ftruncate(self.descriptor, len(data))
        os.lseek(self.descriptor, 0, os.SEEK_SET)
        return os.pwrite(self.descriptor, data, 0) == len(data)

    def __del__(self) -> None:
        with contextlib.suppress(OSError, AttributeError):
            os.close(self.descriptor)


class _OfThread(threading.local):
    file: _MemoryFile | None = None


_of_thread = _OfThread()
if sys.platform == "linux":
    # a forked process must not write into the file that its parent reads
    os.register_at_fork(after_in_child=lambda: _of_thread.__dict__.clear())


def descriptor_of(data: bytes) -> int | None:
    """The descriptor of a file that holds ``data``; None where the system has none, or the data is large.

    The file belongs to the thread that asks, holds ``data`` until the thread asks again, and must not be closed.
    """
    if sys.platform != "linux" or len(data) > _LARGEST:
        return None
    try:
        _of_thread.file = _of_thread.file or _MemoryFile()
        return _of_thread.file.descriptor if _of_thread.file.hold(data) else None
    except OSError:  # no descriptor is left, or files may not be that large
        return None
