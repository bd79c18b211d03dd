"""How processes end: with their parent, on a signal, and without the destructors that may abort them."""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

_PR_SET_PDEATHSIG = 1


def die_with_parent(number: int = signal.SIGKILL) -> None:
    """Send this process a signal when the one that started it ends, in whatever way (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


@contextmanager
def deaf_to_interrupts() -> Iterator[None]:
    """Processes that are started meanwhile never get Ctrl-C, from their first moment on; this one gets it afterwards.

    A terminal sends it to all processes of a command, and Python prints a traceback where it comes while it starts.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def run_program(main: Callable[[], int]) -> NoReturn:
    """Run a command line and end the process with its status.

    SIGTERM ends a command as Ctrl-C does: its workers end first, and nothing stays in TMPDIR.  A rank that a launcher
    started keeps the system's handling and ends at once, because it may be waiting for other ranks inside a library.
    """
    if "WORLD_SIZE" not in os.environ:
        signal.signal(signal.SIGTERM, _interrupt)
    leave(main())


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt(number)


def leave(status: int) -> NoReturn:
    """End the process with ``status``, without the destructors of C++ libraries.

    Arrow's threads occasionally abort the process there ("terminate called without an active exception"), and a
    command that did all its work would end with status 134.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
