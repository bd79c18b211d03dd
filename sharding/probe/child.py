"""Decoding in a process of its own, so that a file that crashes, hangs or bloats a decoder costs that file alone.

The decoder's process works through a whole batch and reports each clip as it finishes it; the builder only watches.
When the process dies, a new one continues with the clip that was being decoded.  A clip that kills the process
``ATTEMPTS`` times is ``crashed``.  (One death proves nothing: an operator's kill and the kernel's out-of-memory killer
look the same from outside.)  Where no clip was being decoded, no clip is to blame: a process that does not start, or
that dies between two clips, is a ``DecoderFault``, and no clip fails.  The process is kept from batch to batch,
so that Python's start is paid once.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.connection import Connection, Pipe
from multiprocessing.reduction import send_handle
from pathlib import Path
from typing import IO, BinaryIO

from sharding.common.storage import Storage
from sharding.probe.clip import ProbedClip, ProbeSettings
from sharding.probe.messages import (
    Assignment,
    Finished,
    Message,
    Ready,
    Started,
    StorageFailed,
    Task,
    WriteBegan,
    WriteEnded,
)

ATTEMPTS = 3  # to decode a clip, or to start the process
BYTES_A_SECOND = 50_000  # of the source file; every decoder on every machine is faster
START_S = 300.0  # time in which a new process must have imported its libraries, also on the slowest disk
SIZE_S = 300.0  # time in which storage must answer with the size of a file
# The C library keeps up to 64 MB of freed memory: to ask the kernel for it with each clip costs a tenth of the time.
_ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(64 << 20)}
_ENVIRONMENT |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_CREDENTIALS = ("AWS_", "FSSPEC_", "GOOGLE_", "AZURE_")  # prefixes of variables that object stores read
_LOOK_S = 0.25  # between two looks at the process's memory
_PAGE = os.sysconf("SC_PAGE_SIZE")


class DecoderFault(OSError):
    """The decoder's process does not work on this machine, whatever the clip; another machine may do better."""


class Decoder:
    """Decodes clips in a process of its own, which starts with the first clip and ends with this object.

    Use it from one thread: Linux ends the process together with the thread that started it.
    """

    def __init__(self) -> None:
        self._process: _DecoderProcess | None = None

    def examine(
        self, tasks: Sequence[Task], roots: Mapping[str, Storage], settings: ProbeSettings, file: BinaryIO, pack: str
    ) -> Iterator[Started | Finished]:
        """Probe clips, in order; the decoder's process writes their windows into the open ``file``.

        In the end that holds the windows of the clips that decoded, one after the other.  The process writes there
        itself: through a pipe and this process every byte would be copied eight times.

        Args:
            tasks: the clips.
            roots: each dataset's folder.
            settings: what to make of recordings.
            file: the pack, empty and open for writing.
            pack: its name, for the facts.

        Returns:
            for each clip ``Started`` (not where it has no file, and again where it is tried again) and ``Finished``;
            ``index`` is its place among ``tasks``.

        Raises:
            DecoderFault: the process does not start, or dies while it decodes no clip.
            OSError: storage failed, not a clip: the batch can be tried again.
        """
        done, attempts, size, reading = 0, 0, 0, False
        while done < len(tasks):
            process, first = self._fit_process(settings), done
            try:
                assignment = Assignment(tuple(tasks[first:]), dict(roots), settings, pack, size)
                process.send(assignment, file.fileno())
                while done < len(tasks):
                    message = process.receive()
                    reading = isinstance(message, Started) or (reading and not isinstance(message, Finished))
                    if isinstance(message, Started):
                        yield Started(first + message.index, message.source_bytes)
                    elif isinstance(message, Finished):
                        size += sum(window["bytes"] for window in message.clip.facts.windows)
                        done, attempts = done + 1, 0
                        yield Finished(first + message.index, message.clip)
            except _Died as death:
                process.stop()
                attempts += 1
                if death.error != "crashed" or attempts == ATTEMPTS:
                    if not reading:
                        raise DecoderFault(f"before {tasks[done].path} was opened: {death.detail}") from None
                    yield Finished(done, ProbedClip.failed(tasks[done].clip_id, death.error, death.detail))
                    done, attempts = done + 1, 0
                reading = False
            except BaseException:  # also GeneratorExit: nobody reads what the process would still send
                process.stop()
                raise
        os.ftruncate(file.fileno(), size)  # the last clip may have failed after some of its windows were written

    def stop(self) -> None:
        """End the process if there is one."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    def _fit_process(self, settings: ProbeSettings) -> _DecoderProcess:
        """The running process if it has the memory limit of these settings, else a new one."""
        if self._process is None or not self._process.fits(settings.memory_mb):
            self.stop()
            self._process = _started(settings.memory_mb)
        return self._process


def _started(memory_mb: int) -> _DecoderProcess:
    """A new process that is ready.  Raises ``DecoderFault`` if none starts in several attempts."""
    for attempt in range(1, ATTEMPTS + 1):
        process = _DecoderProcess(memory_mb)
        try:
            process.wait_until_ready()
            return process
        except _Died as death:
            process.stop()
            if death.error != "crashed" or attempt == ATTEMPTS:
                raise DecoderFault(f"the decoder's process does not start: {death.detail}") from None
    raise AssertionError("unreachable")


class _Died(Exception):
    """The process is gone, or must be stopped: an error class and the reason in words."""

    def __init__(self, error: str, detail: str) -> None:
        self.error, self.detail = error, detail
        super().__init__(detail)


class _DecoderProcess:
    """A process that runs ``sharding.probe.child_main``, and this end of the pipe to it."""

    def __init__(self, memory_mb: int) -> None:
        self._memory_mb, self._credentials = memory_mb, _credentials()
        self._pipe, theirs = Pipe()
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115 - what the process prints; it is read where that dies
        environment = os.environ | _ENVIRONMENT
        environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).resolve().parents[2]), *filter(None, sys.path)])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "sharding.probe.child_main", str(theirs.fileno()), str(memory_mb)],
            pass_fds=[theirs.fileno()],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._messages,
            process_group=0,  # the terminal's Ctrl-C reaches the builder alone, from the first moment on
        )
        theirs.close()
        self._limit_s, self._since = START_S, time.monotonic()
        self._timeout_s = 0.0  # of the clips that it is given
        self.stop = weakref.finalize(self, _end, self._process, self._pipe, self._messages, os.getpid())

    def fits(self, memory_mb: int) -> bool:
        """Whether it runs, with this limit of memory and with today's credentials of object stores."""
        running = self.stop.alive and self._process.poll() is None
        return running and self._memory_mb == memory_mb and self._credentials == _credentials()

    def wait_until_ready(self) -> None:
        """Return once it can probe clips.  Raises ``_Died`` where it ends, hangs, or has no memory to decode with."""
        if not isinstance(self.receive(), Ready):
            raise _Died("crashed", "its first message is another")
        self._check_limits()

    def send(self, assignment: Assignment, file: int) -> None:
        """Hand over clips to probe, and the descriptor of the pack's open file."""
        self._timeout_s = assignment.settings.timeout_s
        self._limit_s, self._since = SIZE_S, time.monotonic()
        try:
            self._pipe.send(assignment)
            send_handle(self._pipe, file, self._process.pid)
        except OSError as error:
            raise self._death() from error

    def receive(self) -> Message:
        """The next message.  Raises ``_Died``, or storage's own error."""
        while not self._pipe.poll(_LOOK_S):
            self._check_limits()
        try:
            message: Message = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise self._death() from error
        now = time.monotonic()
        match message:
            case StorageFailed(error=failure):
                raise failure
            case Started(source_bytes=size):
                self._limit_s, self._since = self._timeout_s + size / BYTES_A_SECOND, now
            case WriteBegan():  # the time that storage takes to write is not the clip's
                self._limit_s, self._since = self._limit_s - (now - self._since), math.inf
            case WriteEnded():
                self._since = now
            case Finished():  # the next clip begins
                self._limit_s, self._since = SIZE_S, now
        return message

    def _check_limits(self) -> None:
        """Raise ``_Died`` where the process has taken too long or too much memory."""
        if time.monotonic() - self._since > self._limit_s:
            raise _Died("timeout", f"stopped after {self._limit_s:.0f} s")
        # where there is no /proc, the limit that the process has set itself must do
        with contextlib.suppress(OSError, ValueError, IndexError):
            pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
            if pages * _PAGE > self._memory_mb << 20:
                raise _Died("out_of_memory", f"stopped above {self._memory_mb} MB")

    def _death(self) -> _Died:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        code = self._process.returncode
        if code is not None and code < 0:
            return _Died("crashed", f"the decoder's process died of {signal.Signals(-code).name}{self._last_words()}")
        return _Died("crashed", f"the decoder's process ended with status {code}{self._last_words()}")

    def _last_words(self) -> str:
        """The last line that it printed, for messages."""
        self._messages.seek(0)
        lines = self._messages.read().decode(errors="replace").split("\n")
        return next((f" ({line.strip()[:200]})" for line in reversed(lines) if line.strip()), "")


def _end(process: subprocess.Popen[bytes], pipe: Connection, messages: IO[bytes], owner: int) -> None:
    """End a decoder's process, unless this is a fork of the process that started it."""
    if os.getpid() == owner:
        pipe.close()
        messages.close()
        process.kill()
        process.wait()


def _credentials() -> dict[str, str]:
    """The variables that object stores read from the environment.  A process keeps their values from its start."""
    return {name: value for name, value in os.environ.items() if name.startswith(_CREDENTIALS)}
