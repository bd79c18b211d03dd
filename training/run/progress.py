"""The status of long work: one line that is kept up to date on a terminal, and a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from sharding.common.progress import clock, pace

_run: ContextVar[str] = ContextVar("run", default="")  # the beginning of every line


@contextmanager
def naming_run(name: str) -> Iterator[None]:
    """Meanwhile, every status line of this thread begins with the name of a run, as where several share one output."""
    before = _run.set(f"  {name}: ")
    try:
        yield
    finally:
        _run.reset(before)


class StatusLine:
    """Prints the rate and the remaining time of work on standard error.

    Args:
        what: what is counted.
        total: how many there are.
        done: how many an earlier process had done.
        quiet: print nothing; for every rank but the first.
    """

    def __init__(self, what: str, total: int, done: int = 0, quiet: bool = False) -> None:
        self.what, self.total, self.done_before, self.quiet = what, total, done, quiet
        self.started = time.monotonic()
        self.printed, self.shown = -float("inf"), (-1, "")
        self.terminal = sys.stderr.isatty()

    def update(self, done: int, note: str = "") -> None:
        """Show progress, at most ten times a second on a terminal and every ten seconds elsewhere."""
        now = time.monotonic()
        early = done < self.total and now - self.printed < (0.1 if self.terminal else 10.0)
        if self.quiet or early or (done, note) == self.shown:
            return
        self.printed, self.shown = now, (done, note)
        rate = (done - self.done_before) / max(now - self.started, 1e-9)
        left = clock((self.total - done) / rate) if rate > 0 else "?"
        speed = f"{pace(rate)}  " if rate > 0 else ""
        line = f"{_run.get()}{self.what} {done}/{self.total}  {speed}{left} left  {note}"
        if self.terminal:
            print(f"\r{line:<110}", end="\n" if done >= self.total else "", file=sys.stderr, flush=True)
        else:
            print(line.rstrip(), file=sys.stderr, flush=True)

    def report(self, done: int, total: int) -> None:
        """Show progress of work whose total is known only when it begins."""
        self.total = total
        self.update(done)

    def say(self, text: str) -> None:
        """Print a text on a line of its own."""
        if not self.quiet:
            print(("\r" if self.terminal else "") + _run.get() + text, file=sys.stderr, flush=True)
