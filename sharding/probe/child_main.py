"""The process that decodes: it reads assignments from a pipe, and answers clip by clip (see ``child``)."""

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
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from pathlib import Path

from av import FFmpegError

from sharding.audio import AudioError, Source
from sharding.common.errors import InputError
from sharding.common.processes import die_with_parent
from sharding.common.storage import PIECE, Storage, UnreadableFile
from sharding.probe.child import DecoderFault
from sharding.probe.clip import ProbedClip, ProbeSettings, probe_clip
from sharding.probe.messages import Assignment, Finished, Ready, Started, StorageFailed, Task, WriteBegan, WriteEnded

FAULTS_IN_A_ROW = 16  # clips that fail in a way that a machine may cause, after which no clip is to blame
IN_MEMORY = 32 << 20  # source files up to this many bytes are read at once
# Error numbers that mean that this one file cannot be read, and not that its storage is out of order.
_OF_THIS_FILE = (errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL)
# What zipfile and its decompressors raise: RuntimeError for encrypted members, ValueError for names with zeros.
_DAMAGED_ARCHIVE = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, ValueError, struct.error, OverflowError
)  # fmt: skip


def main(pipe_number: int, memory_mb: int) -> None:
    """Probe the clips whose assignments come through the pipe, until the builder ends."""
    die_with_parent()  # a decoder without a builder would decode for nobody
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the builder handles Ctrl-C
    _limit_memory(memory_mb)
    _silence_libraries()
    pipe = Connection(pipe_number)
    pipe.send(Ready())
    storages: dict[Storage, Storage] = {}  # kept from batch to batch, because a storage keeps its zip archives open
    while True:
        try:
            assignment: Assignment = pipe.recv()
            handle = recv_handle(pipe)
        except EOFError:
            return
        try:
            _probe_all(assignment, handle, pipe, storages)
        finally:
            os.close(handle)


def _probe_all(assignment: Assignment, handle: int, pipe: Connection, storages: dict[Storage, Storage]) -> None:
    """Answer for each clip; end early where storage fails."""
    pack, in_a_row = _Pack(handle, assignment, pipe), 0
    for index, task in enumerate(assignment.tasks):
        root = assignment.roots[task.dataset]
        try:
            clip = _probe(index, task, storages.setdefault(root, root), assignment.settings, pack, pipe)
            in_a_row = 0
        except UnreadableFile as error:
            in_a_row += root.archive(task.path) is None  # a member of an archive may be refused for its size
            if in_a_row == FAULTS_IN_A_ROW:
                what = f"{in_a_row} files in a row cannot be read ({error.strerror}), the last one is"
                pipe.send(StorageFailed(OSError(error.errno, what, error.filename)))
                return
            clip = ProbedClip.failed(task.clip_id, "unreadable", _words(error))
        except OSError as error:
            pipe.send(StorageFailed(_portable(error)))
            return
        except _UnforeseenError as error:
            in_a_row += 1
            if in_a_row == FAULTS_IN_A_ROW:
                what = f"{in_a_row} files in a row failed in a way that was not foreseen, the last one with {error}"
                pipe.send(StorageFailed(DecoderFault(f"{what}: {task.path}")))
                return
            clip = ProbedClip.failed(task.clip_id, "undecodable", str(error))
        pack.end_clip(keep=clip.facts.error is None)
        pipe.send(Finished(index, clip))


class _Pack:
    """The builder's open file.  The next clip overwrites what was written of a clip that failed."""

    def __init__(self, handle: int, assignment: Assignment, pipe: Connection) -> None:
        self.pack = assignment.pack
        self.position = assignment.offset
        self._kept = assignment.offset  # the end of what clips that decoded have written
        self._handle, self._pipe = handle, pipe

    def write(self, data: bytes) -> None:
        """Append bytes; the builder learns when that begins and ends."""
        self._pipe.send(WriteBegan())
        left = memoryview(data)
        while left:
            # builder and decoder share the file's own position, so that ours is kept here
            written = os.pwrite(self._handle, left[:PIECE], self.position)
            self.position, left = self.position + written, left[written:]
        self._pipe.send(WriteEnded())

    def end_clip(self, *, keep: bool) -> None:
        """Keep what was written since the last clip ended, or let the next clip overwrite it."""
        self._kept = self.position = self.position if keep else self._kept


class _UnforeseenError(Exception):
    """An error that decoders and their bindings may raise for one odd file, or a broken installation for every file."""


def _probe(
    index: int, task: Task, storage: Storage, settings: ProbeSettings, pack: _Pack, pipe: Connection
) -> ProbedClip:
    """Probe one clip; every failure that is the clip's own is among its facts.

    Raises:
        UnreadableFile: the disk cannot deliver this file, in several tries.
        OSError: storage failed.
        _UnforeseenError: any other error.
    """
    try:
        source = _open(storage, task.path, lambda size: pipe.send(Started(index, size)))
    except AudioError as error:
        return ProbedClip.failed(task.clip_id, error.error, error.detail)
    try:
        return probe_clip(task.clip_id, source, settings, pack)
    except Exception as error:
        if source.error is not None or (isinstance(error, OSError) and not isinstance(error, FFmpegError)):
            raise _as_os_error(source.error or error) from error
        raise _UnforeseenError(f"{type(error).__name__}: {error}") from error


def _open(storage: Storage, path: str, started: Callable[[int], None]) -> Source:
    """The clip's file; ``started`` is given its size before any of it is read.

    Raises:
        AudioError: ``missing``, ``out_of_root``, ``unreadable``.
        OSError: storage failed.
    """
    try:
        size = storage.size(path)
        _refuse_devices(storage, path)
        started(size)
        content = storage.read(path) if size <= IN_MEMORY else storage.open(path)
    except AudioError:
        raise
    except FileNotFoundError:
        raise AudioError("missing", path) from None
    except InputError:
        raise AudioError("out_of_root", path) from None
    except Exception as error:
        if _is_unreadable(error, in_archive=storage.archive(path) is not None):
            raise AudioError("unreadable", _words(error)) from error
        raise _as_os_error(error) from error
    return Source(content, len(content) if isinstance(content, bytes) else size)


def _words(error: Exception) -> str:
    """The message of an error, without the name of the file."""
    return getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"


def _is_unreadable(error: Exception, *, in_archive: bool) -> bool:
    """Whether an error means that this one file cannot be read, and not that storage failed."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _OF_THIS_FILE
    return in_archive and isinstance(error, (OSError, *_DAMAGED_ARCHIVE))


def _refuse_devices(storage: Storage, path: str) -> None:
    """Refuse named pipes and devices, because opening one can wait for ever."""
    if storage.local is None or storage.archive(path):
        return
    mode = (storage.local / path).stat().st_mode
    if not stat.S_ISREG(mode):
        raise AudioError("unreadable", "a folder" if stat.S_ISDIR(mode) else "not a file: a pipe, socket or device")


def _as_os_error(error: Exception) -> OSError:
    return error if isinstance(error, OSError) else OSError(f"{type(error).__name__}: {error}")


def _portable(error: OSError) -> OSError:
    """The error itself if it can be sent through a pipe, else one with the same message."""
    with contextlib.suppress(Exception):
        copy = pickle.loads(pickle.dumps(error))
        if isinstance(copy, OSError):
            return copy
    return OSError(f"{type(error).__name__}: {error}")


def _silence_libraries() -> None:
    """Silence decoders, which print remarks about files to the standard error; only Python keeps the real one."""
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 2)
    os.close(silence)


def _limit_memory(memory_mb: int) -> None:
    """Let one huge allocation fail at once, before the machine runs short; write no core dumps."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return
    limit = pages * os.sysconf("SC_PAGE_SIZE") + (memory_mb << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):  # the builder is gone
        main(int(sys.argv[1]), int(sys.argv[2]))
