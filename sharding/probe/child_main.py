"""The process that decodes: reads batches from a pipe and answers clip by clip (see ``isolation``)."""

from __future__ import annotations

import contextlib
import errno
import lzma
import os
import pickle
import resource
import signal
import stat
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from pathlib import Path
from typing import Any

from av import FFmpegError

from sharding.audio import AudioError, Source
from sharding.common.errors import InputError
from sharding.common.processes import die_with_parent
from sharding.common.storage import PIECE, Storage
from sharding.probe.child import Message, Task
from sharding.probe.clip import Finding, ProbeSettings, probe_clip

IN_MEMORY = 32 << 20  # sources up to this many bytes are read at once
# What says that this one file cannot be had, and not that its storage is out of order.
_OF_THIS_FILE = (errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL)
# What zipfile and its decompressors raise: RuntimeError for encrypted members, ValueError for names with zeros.
_DAMAGED_ARCHIVE = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, ValueError, struct.error, OverflowError
)  # fmt: skip


def main(pipe_number: int, memory_mb: int) -> None:
    """Serve batches until the parent is gone."""
    die_with_parent()  # no orphan goes on decoding for nobody
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    _limit_memory(memory_mb)
    _hush_libraries()
    pipe = Connection(pipe_number)
    known: dict[str, Storage] = {}  # kept from batch to batch, because a storage keeps its zip archives open
    while True:
        try:
            tasks, roots, settings, position = pipe.recv()
            pack = _Pack(recv_handle(pipe), position)
        except EOFError:
            return
        storages = {dataset: known.setdefault(root, Storage(root)) for dataset, root in roots.items()}
        for index, task in enumerate(tasks):
            if not _answer(pipe, index, task, storages, settings, pack):
                break
        pack.close()


class _Pack:
    """The parent's file.  What was written of a clip that fails is written over by the next one."""

    def __init__(self, handle: int, position: int) -> None:
        self._handle, self._position, self._end = handle, position, position

    def write(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            # at a place of our own: parent and child share the file's one position
            written = os.pwrite(self._handle, left[:PIECE], self._end)
            self._end, left = self._end + written, left[written:]

    def settle(self, keep: bool) -> None:
        """What was written since the last call stays, or not."""
        self._position = self._end = self._end if keep else self._position

    def close(self) -> None:
        os.close(self._handle)


def _answer(
    pipe: Connection, index: int, task: Task, storages: Mapping[str, Storage], settings: ProbeSettings, pack: _Pack
) -> bool:
    """Probe one clip; False where storage failed, which ends the batch."""

    def say(kind: str, value: Any = None) -> None:
        pipe.send(tuple(Message(index, kind, value)))

    def failed(error: str, detail: str) -> Finding:
        return Finding({"error": error, "detail": detail})

    def write(data: bytes) -> None:
        say("write")
        pack.write(data)
        say("written")

    source: Source | None = None
    try:
        source = _source(storages[task.dataset], task.path, lambda size: say("size", size))
        found = probe_clip(source, settings, write)
    except AudioError as error:
        found = failed(error.error, error.detail)
    except Exception as error:
        of_storage = source is None or source.error is not None
        if of_storage or (isinstance(error, OSError) and not isinstance(error, FFmpegError)):
            say("storage", _portable(error))
            return False
        # a decoder's binding that fails in an unforeseen way has met a file that is damaged in an unforeseen way
        found = failed("undecodable", f"{type(error).__name__}: {error}")
    pack.settle(found.fingerprint is not None)
    say("end", found)
    return True


def _source(storage: Storage, path: str, announce: Callable[[int], None]) -> Source:
    """The clip's file; ``announce`` learns its size before any of it is read.

    Raises:
        AudioError: ``missing``, ``out_of_root``, ``unreadable``.
        Exception: storage failed.
    """
    try:
        size = storage.size(path)
        _refuse_devices(storage, path)
        announce(size)
        content = storage.read(path) if size <= IN_MEMORY else storage.open(path)
    except FileNotFoundError:
        raise AudioError("missing", path) from None
    except InputError:
        raise AudioError("out_of_root", path) from None
    except (OSError, *_DAMAGED_ARCHIVE) as error:
        code = error.errno if isinstance(error, OSError) else None
        if code not in _OF_THIS_FILE and (code is not None or not storage.archive(path)):
            raise
        raise AudioError(
            "unreadable", getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        ) from error
    return Source(content, len(content) if isinstance(content, bytes) else size)


def _refuse_devices(storage: Storage, path: str) -> None:
    """Opening a named pipe or a device can wait for ever."""
    if storage.local is None or storage.archive(path):
        return
    mode = (storage.local / path).stat().st_mode
    if not stat.S_ISREG(mode):
        raise AudioError("unreadable", "a folder" if stat.S_ISDIR(mode) else "not a file: a pipe, socket or device")


def _portable(error: Exception) -> OSError:
    """The error itself where it is one of the system's and survives a pipe, else its words."""
    with contextlib.suppress(Exception):
        copy = pickle.loads(pickle.dumps(error))
        if isinstance(copy, OSError):
            return copy
    return OSError(f"{type(error).__name__}: {error}")


def _hush_libraries() -> None:
    """Decoders print what they think of files; only Python keeps the real standard error."""
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 2)
    os.close(silence)


def _limit_memory(memory_mb: int) -> None:
    """One huge allocation fails at once, before the machine feels it; no core dumps."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return
    limit = pages * os.sysconf("SC_PAGE_SIZE") + (memory_mb << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):  # the parent is gone
        main(int(sys.argv[1]), int(sys.argv[2]))
