"""How processes end: with their parent, on a signal, and without the destructors that may abort them."""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

REPEAT_S = 0.1  # until an interrupt that was lost is sent again
_PR_SET_PDEATHSIG = 1
_received: list[int] = []  # the signals besides Ctrl-C that this program got


def die_with_parent(number: int = signal.SIGKILL) -> None:
    """Send this process a signal when the one that started it ends, in whatever way (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


@contextmanager
def undisturbed_start() -> Iterator[None]:
    """Start processes without being interrupted: SIGINT and SIGTERM take effect here when the block ends.

    A process that Python starts prints a traceback where Ctrl-C, which a terminal sends to all processes of a command,
    reaches it while it begins, and where its parent ends before it said what to do.  So processes that are started in
    the block never get Ctrl-C.
    """
    held: list[int] = []
    in_main = threading.current_thread() is threading.main_thread()  # handlers run there alone
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM) if in_main}
    own = {number: handler for number, handler in handlers.items() if callable(handler)}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # started processes inherit it
    try:
        for number in own:
            signal.signal(number, lambda number, frame: held.append(number))
        yield
    finally:
        for number, handler in own.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for arrived in held:
            signal.raise_signal(arrived)


def run_program(main: Callable[[], int]) -> NoReturn:
    """Run a command line and end the process with its status.

    SIGTERM ends a command as Ctrl-C does: its workers end first, and nothing stays in TMPDIR.  A rank that a launcher
    started keeps the system's handling and ends at once, because it may be waiting for other ranks inside a library.
    """
    if "WORLD_SIZE" not in os.environ:
        signal.signal(signal.SIGTERM, _interrupt)
    sys.unraisablehook = _repeat_interrupt
    leave(main())


def _repeat_interrupt(lost: Any) -> None:
    """Send an interrupt again that arrived in a destructor or a callback, where Python prints and forgets it."""
    if not isinstance(lost.exc_value, KeyboardInterrupt):
        sys.__unraisablehook__(lost)
        return
    again = threading.Timer(REPEAT_S, os.kill, (os.getpid(), number_of(lost.exc_value)))
    again.daemon = True
    again.start()


def _interrupt(number: int, frame: object) -> None:
    _received.append(number)
    raise KeyboardInterrupt(number)


def number_of(interrupt: KeyboardInterrupt) -> int:
    """The signal that an interrupt comes from; Ray raises interrupts anew, without their number."""
    return int(interrupt.args[0] if interrupt.args else _received[-1] if _received else signal.SIGINT)


def leave(status: int) -> NoReturn:
    """End the process with ``status``, without the destructors of C++ libraries.

    Arrow's threads occasionally abort the process there ("terminate called without an active exception"), and a
    command that did all its work would end with status 134.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
