"""A process of its own for decoders, so that a file which crashes, hangs or bloats one costs that file alone.

The child goes through a whole batch and sends what it finds as it finds it; the parent only watches.  When the child
dies, a new one goes on from the clip that was in work; a clip that kills its child ``ATTEMPTS`` times is ``crashed``.
(Once is no proof: an operator's kill and the kernel's memory killer look the same from here.)  A child lives on for
the next batch, so that starting Python is paid once a worker, not once a batch.
"""

from __future__ import annotations

import atexit
import contextlib
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.connection import Pipe
from multiprocessing.reduction import send_handle
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from sharding.audio import AudioError
from sharding.probe.clip import ProbeSettings

ATTEMPTS = 3
BYTES_A_SECOND = 50_000  # of source: slower than any decoder on any machine
START_S = 300.0  # for a child to import its libraries, on the slowest of disks
# Freed blocks of sound stay with the process, up to 64 MB: fetching them anew for each clip costs a tenth of its time.
_ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(64 << 20)}
_ENVIRONMENT |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_LOOK_S = 0.25  # between two looks at the child's memory
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Task(NamedTuple):
    """A clip for the child: which root it lies below, and its path there."""

    dataset: str
    path: str


class Message(NamedTuple):
    """What became known about the clip at ``index``.

    ``kind`` and ``value``: ``size`` (bytes of source), ``write`` and ``written`` (before and after bytes go to the
    pack), ``end`` (a ``Finding``), ``fail`` (an ``AudioError``).  Every clip ends with ``end`` or ``fail``.
    """

    index: int  # type: ignore[assignment]  # shadows tuple.index, which nobody asks of a message
    kind: str
    value: Any = None


def examine(
    tasks: Sequence[Task], roots: Mapping[str, str], settings: ProbeSettings, pack: BinaryIO
) -> Iterator[Message]:
    """Probe clips, in order, in the calling thread's child process, which writes their windows into ``pack``.

    In the end that holds the windows of the clips that are well, one after the other.  The child writes there by
    itself: through a pipe and this process every byte would be copied eight times.

    Raises:
        OSError: storage failed, not a clip: the batch can be tried again.
    """
    done, attempts, size = 0, 0, 0
    while done < len(tasks):
        child, first = _child(settings), done
        try:
            child.send((list(tasks[first:]), dict(roots), settings, size), pack.fileno())
            while done < len(tasks):
                message = child.receive()
                if message.kind == "end":
                    size += sum(window["bytes"] for window in message.value.windows)
                    done, attempts = done + 1, 0
                yield message._replace(index=first + message.index)
        except _Died as death:
            child.stop()
            attempts += 1
            if death.error != "crashed" or attempts == ATTEMPTS:
                yield Message(done, "fail", AudioError(death.error, death.detail))
                done, attempts = done + 1, 0
        except BaseException:  # also GeneratorExit: what the child still sends belongs to nobody
            child.stop()
            raise
    os.ftruncate(pack.fileno(), size)  # a clip that failed last may have left something


class _Died(Exception):
    """The child is gone, or had to be stopped: an error class and the reason in words."""

    def __init__(self, error: str, detail: str) -> None:
        self.error, self.detail = error, detail
        super().__init__(detail)


class _Child:
    """A process that runs ``sharding.probe.child_main``, and the end of the pipe to it."""

    def __init__(self, memory_mb: int) -> None:
        self.memory_mb, self.credentials = memory_mb, _credentials()
        self._pipe, theirs = Pipe()
        environment = os.environ | _ENVIRONMENT
        environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).resolve().parents[2]), *filter(None, sys.path)])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "sharding.probe.child_main", str(theirs.fileno()), str(memory_mb)],
            pass_fds=[theirs.fileno()],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            process_group=0,  # Ctrl-C is the parent's to handle, also before this one can say so
        )
        theirs.close()
        self._limit_s, self._since = START_S, time.monotonic()
        self._settings: ProbeSettings | None = None

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def send(self, batch: tuple[list[Task], dict[str, str], ProbeSettings, int], pack: int) -> None:
        """Tasks, roots, settings, and where in the open file ``pack`` their windows go."""
        self._settings = batch[2]
        self._since = time.monotonic()
        try:
            self._pipe.send(batch)
            send_handle(self._pipe, pack, self._process.pid)
        except OSError as error:
            raise self._death() from error

    def receive(self) -> Message:
        """The next message.  Raises ``_Died``, or the storage's own error."""
        while not self._pipe.poll(_LOOK_S):
            self._look()
        try:
            message = Message(*self._pipe.recv())
        except (EOFError, OSError) as error:
            raise self._death() from error
        if message.kind == "storage":
            raise message.value
        assert self._settings is not None
        if message.kind == "size":
            self._since = time.monotonic()
            self._limit_s = self._settings.timeout_s + message.value / BYTES_A_SECOND
        elif message.kind == "write":  # what storage takes is not the clip's time
            self._limit_s, self._since = self._limit_s - (time.monotonic() - self._since), math.inf
        elif message.kind == "written":
            self._since = time.monotonic()
        elif message.kind == "end":  # the next one begins
            self._limit_s, self._since = self._settings.timeout_s, time.monotonic()
        return message

    def _look(self) -> None:
        """Stop the child where it has taken too long or too much."""
        if time.monotonic() - self._since > self._limit_s:
            raise _Died("timeout", f"stopped after {self._limit_s:.0f} s")
        with contextlib.suppress(OSError, ValueError, IndexError):  # no /proc: the child's own limit must do
            pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
            if pages * _PAGE > self.memory_mb << 20:
                raise _Died("out_of_memory", f"stopped above {self.memory_mb} MB")

    def _death(self) -> _Died:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        code = self._process.returncode
        if code is not None and code < 0:
            return _Died("crashed", f"the decoder's process died of {signal.Signals(-code).name}")
        return _Died("crashed", f"the decoder's process ended with status {code}")

    def stop(self) -> None:
        self._pipe.close()
        self._process.kill()
        self._process.wait()


def _credentials() -> dict[str, str]:
    """What object stores take from the environment: a child knows it as it was when the child was started."""
    return {
        name: value for name, value in os.environ.items() if name.startswith(("AWS_", "FSSPEC_", "GOOGLE_", "AZURE_"))
    }


class _Children(threading.local):
    """One child a thread: its death signal is tied to the thread that started it."""

    child: _Child | None = None
    owner: int = 0


_children = _Children()


def stop_child() -> None:
    """End the calling thread's child, where there is one; the next batch starts another."""
    if _children.child is not None and _children.owner == os.getpid():
        _children.child.stop()
        atexit.unregister(_children.child.stop)
        _children.child = None


def _child(settings: ProbeSettings) -> _Child:
    """The calling thread's child; a new one where there is none that is fit."""
    child = _children.child
    if child is not None and _children.owner == os.getpid():  # a fork must not talk to its parent's child
        if child.alive and child.memory_mb == settings.memory_mb and child.credentials == _credentials():
            return child
        child.stop()
    _children.child, _children.owner = _Child(settings.memory_mb), os.getpid()
    atexit.register(_children.child.stop)
    return _children.child
