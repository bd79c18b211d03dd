"""A line now and then about long work: how much is done, how fast, how long it still takes, how much failed.

tqdm is not used: without a terminal, as in the logs of jobs, it writes one endless line.
"""

from __future__ import annotations

import sys
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Mapping

SILENT_S = 5.0  # after so long without a line, one says that the work has begun


class Progress:
    """Counts towards a total and prints a line every few seconds to standard error.

    The first units of long work may take minutes.  So one line says that it has begun, unless it had another by then.

    Args:
        what: the work, e.g. ``probe``.
        total: units in all, those of earlier runs included; None: not known.
        unit: their name, e.g. ``clips``.
        watch: called at the beginning and after every change, e.g. ``Runner.watch``.
        every_s: seconds between lines.
        quiet: print nothing; only call ``watch``.
        done: units that an earlier run did; the rate does not count them.

    Attributes:
        failures: how many units failed in this run, by the class of their error.
    """

    def __init__(
        self,
        what: str,
        total: int | None,
        unit: str,
        watch: Callable[[Progress], None] | None = None,
        every_s: float = 2.0,
        quiet: bool = False,
        done: int = 0,
    ) -> None:
        self.what, self.total, self.unit, self.every_s, self.quiet = what, total, unit, every_s, quiet
        self.done, self._done_before = done, done
        self.failures: Counter[str] = Counter()
        self._watch = watch
        self._begun = self._last = time.monotonic()
        self._beginning = _begin_to_wait(self)
        if watch is not None:
            watch(self)

    @property
    def rate(self) -> float:
        """Units a second in this run, so far."""
        return (self.done - self._done_before) / max(time.monotonic() - self._begun, 1e-9)

    @property
    def failed(self) -> int:
        """Units that failed in this run."""
        return self.failures.total()

    def resume(self, done: int) -> None:
        """Count units that an earlier run did; the rate does not count them."""
        if done:
            self.done += done
            self._done_before += done
            if self._watch is not None:
                self._watch(self)

    def add(self, done: int, failures: Mapping[str, int] | None = None) -> None:
        """Count more units as done; some of them failed, with errors of these classes."""
        self.done += done
        self.failures.update(failures or {})
        now = time.monotonic()
        if now - self._last >= self.every_s and self.done != self.total:
            self._last = now
            self._print(now)
        if self._watch is not None:
            self._watch(self)

    def finish(self) -> None:
        """Print the last line, unless there was nothing to do; ``watch`` sees a total that became smaller."""
        self._beginning.cancel()
        if self._watch is not None:
            self._watch(self)
        if self.done > self._done_before or (self.total and not self._done_before):
            self._print(time.monotonic(), ended=True)

    def say_that_it_began(self) -> None:
        """Print that the work has begun, because no line has shown it so far."""
        print(f"  {self.what}: {self._count()}, started {SILENT_S:g} s ago", file=sys.stderr, flush=True)

    def _count(self) -> str:
        of = "" if self.total is None else f"/{self.total}"
        return f"{self.done}{of} {self.unit}"

    def _print(self, now: float, ended: bool = False) -> None:
        self._beginning.cancel()
        if self.quiet:
            return
        elapsed = max(now - self._begun, 1e-9)
        rate = (self.done - self._done_before) / elapsed
        if ended:
            ending = f"in {clock(elapsed)}"
        elif self.total is None:
            ending = f"{clock(elapsed)} so far"
        else:
            ending = f"{clock((self.total - self.done) / rate if rate else float('inf'))} left"
        failures = f", {self.failed} failed" if self.failed else ""
        speed = f", {pace(rate)}" if rate else ""
        print(f"  {self.what}: {self._count()}{speed}, {ending}{failures}", file=sys.stderr, flush=True)


def _begin_to_wait(progress: Progress) -> threading.Timer:
    """A timer that lets ``progress`` say that it began, while anybody still holds it; it runs unless that is quiet."""
    held = weakref.ref(progress)

    def say() -> None:
        if (still := held()) is not None:
            still.say_that_it_began()

    timer = threading.Timer(SILENT_S, say)
    timer.daemon = True
    weakref.finalize(progress, timer.cancel).atexit = False
    if not progress.quiet:
        timer.start()
    return timer


def pace(rate: float) -> str:
    """A rate above 0 in units a second, such as ``107.7/s``, or else how long each takes: ``12.5 s each``."""
    if rate >= 0.995:
        return f"{rate:.1f}/s"
    seconds = 1 / rate
    return f"{seconds:.1f} s each" if seconds < 60 else f"{clock(seconds)} each"


def clock(seconds: float) -> str:
    """Seconds as ``1:02:03`` or ``2:03``; infinity as a question mark."""
    if seconds == float("inf"):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
