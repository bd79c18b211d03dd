"""What long work tells a person: one line that is kept up to date on a terminal, sparse lines elsewhere."""

from __future__ import annotations

import sys
import time

from sharding.common.progress import clock


class StatusLine:
    """Rate and remaining time of work that may have begun in an earlier process, with a note, on standard error.

    Args:
        what: what is being counted.
        total: how many there are.
        done: how many were done before.
        quiet: print nothing (all ranks but the first).
    """

    def __init__(self, what: str, total: int, done: int = 0, quiet: bool = False) -> None:
        self.what, self.total, self.first, self.quiet = what, total, done, quiet
        self.started = time.monotonic()
        self.last = -float("inf")
        self.terminal = sys.stderr.isatty()

    def update(self, done: int, note: str = "") -> None:
        """Show how far it is; at most ten times a second on a terminal, every ten seconds elsewhere."""
        now = time.monotonic()
        if self.quiet or (done < self.total and now - self.last < (0.1 if self.terminal else 10.0)):
            return
        self.last = now
        rate = (done - self.first) / max(now - self.started, 1e-9)
        left = clock((self.total - done) / rate) if rate > 0 else "?"
        line = f"{self.what} {done}/{self.total}  {rate:.2f}/s  {left} left  {note}"
        if self.terminal:
            print(f"\r{line:<110}", end="\n" if done >= self.total else "", file=sys.stderr, flush=True)
        else:
            print(line.rstrip(), file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        """A line of its own."""
        if not self.quiet:
            print(("\r" if self.terminal else "") + text, file=sys.stderr, flush=True)
