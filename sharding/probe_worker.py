"""The process that decodes: reads batches from a pipe and answers clip by clip (see ``isolation``)."""

from __future__ import annotations

import ctypes
import os
import pickle
import resource
import signal
import sys
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from sharding.audio import AudioError, Source
from sharding.clip import ProbeSettings, probe_clip
from sharding.isolation import Message, Task
from sharding.storage import Storage

IN_MEMORY = 32 << 20  # sources up to this many bytes are read at once
_PR_SET_PDEATHSIG = 1


def main(pipe_number: int, memory_mb: int) -> None:
    """Serve batches until the parent is gone."""
    _die_with_parent()
    _limit_memory(memory_mb)
    pipe = Connection(pipe_number)
    while True:
        try:
            tasks, roots, settings = pipe.recv()
        except EOFError:
            return
        storages = {dataset: Storage(root) for dataset, root in roots.items()}
        for index, task in enumerate(tasks):
            if not _answer(pipe, index, task, storages, settings):
                break


def _answer(pipe: Connection, index: int, task: Task, storages: Mapping[str, Storage], settings: ProbeSettings) -> bool:
    """Probe one clip; False where storage failed, which ends the batch."""

    def say(kind: str, value: Any = None) -> None:
        pipe.send(tuple(Message(index, kind, value)))

    say("begin")
    try:
        storage = storages[task.dataset]
        try:
            size = storage.size(task.path)
            say("size", size)
            content = storage.read(task.path) if size <= IN_MEMORY else storage.open(task.path)
        except FileNotFoundError:
            raise AudioError("missing", task.path) from None
        except (PermissionError, IsADirectoryError, NotADirectoryError) as error:
            raise AudioError("unreadable", error.strerror or str(error)) from error
        source = Source(content, len(content) if isinstance(content, bytes) else size)
        say("end", probe_clip(source, settings, lambda data: say("bytes", data), lambda w: say("window", w)))
    except AudioError as error:
        say("end", ({"error": error.error, "detail": error.detail}, None))
    except OSError as error:
        say("storage", _portable(error))
        return False
    return True


def _portable(error: Exception) -> Exception:
    """The error itself where it survives a pipe, else its words."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return OSError(f"{type(error).__name__}: {error}")
    return error


def _die_with_parent() -> None:
    """No orphan goes on decoding for nobody (Linux; elsewhere the closed pipe ends it a clip later)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle


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
    main(int(sys.argv[1]), int(sys.argv[2]))
