"""One line now and then about long work: how much, how fast, how long still, what failed so far."""

from __future__ import annotations

import sys
import time


class Progress:
    """Counts towards a total and prints a line every few seconds to standard error.

    Args:
        what: the work, e.g. ``probe``.
        total: units in all.
        unit: their name, e.g. ``clips``.
        every_s: seconds between lines.
    """

    def __init__(self, what: str, total: int, unit: str, every_s: float = 2.0) -> None:
        self.what, self.total, self.unit, self.every_s = what, total, unit, every_s
        self.done = self.failed = 0
        self._begun = self._last = time.monotonic()

    def add(self, done: int, failed: int = 0) -> None:
        """Some more units are through; ``failed`` of them did not make it."""
        self.done += done
        self.failed += failed
        now = time.monotonic()
        if now - self._last >= self.every_s and self.done < self.total:
            self._last = now
            self._print(now)

    def finish(self) -> None:
        """Print the last line."""
        if self.total:
            self._print(time.monotonic())

    def _print(self, now: float) -> None:
        elapsed = max(now - self._begun, 1e-9)
        rate = self.done / elapsed
        left = (self.total - self.done) / rate if rate else float("inf")
        ending = f"in {_clock(elapsed)}" if self.done >= self.total else f"{_clock(left)} left"
        failures = f", {self.failed} failed" if self.failed else ""
        print(
            f"  {self.what}: {self.done}/{self.total} {self.unit}, {rate:.1f}/s, {ending}{failures}",
            file=sys.stderr,
            flush=True,
        )


def _clock(seconds: float) -> str:
    if seconds == float("inf"):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
