"""Faults that follow from a seed: at which operations of storage a process dies, or is told of an error.

A schedule numbers the operations of all attempts at a command.  At the numbers that its seed draws, something happens:

============  =======================================================================================================
crash         the process ends before the operation, or right after it; nothing that it does later has any effect
error         the operation fails, once or several times in a row; in an object store, before or after it took effect
============  =======================================================================================================
"""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

ATTEMPTS = 25  # at a command; the faults of a schedule end fewer of them
LONGEST = 7  # errors in a row; more than the tries that storage makes of one operation


class Crash(BaseException):
    """The process has ended.  It is no Exception, so that nothing takes it for an error and goes on."""


class Schedule:
    """The faults of one seed.

    Args:
        seed: everything follows from it.
        operations: how many operations an undisturbed run has.
    """

    def __init__(self, seed: int, operations: int) -> None:
        self.seed, self.draw = seed, random.Random(seed)
        self.count, self.dead, self.events = 0, False, list[str]()
        moments = self.draw.sample(range(max(operations, 1)), min(operations, self.draw.choice((1, 1, 2, 3))))
        kinds = ("crash before", "crash after", "error before", "error after")
        self._faults = {moment: self.draw.choice(kinds) for moment in moments}
        self._failing, self._kind = 0, ""

    def revive(self) -> None:
        """A new process begins."""
        self.dead = False
        self._failing = 0

    def step(self, what: str, action: Callable[[], T], may_fail: bool = True) -> T:
        """Carry out an operation, or what the schedule has in its place.

        Args:
            what: the operation and its file, for the report.
            action: the operation.
            may_fail: whether an error is possible there; else the process dies instead.
        """
        if self.dead:
            raise Crash
        kind = self._faults.pop(self.count, "")
        self.count += 1
        if kind.startswith("error") and may_fail:
            self._failing, self._kind = self.draw.randint(1, LONGEST), kind
            self.events.append(f"{self._failing} errors {kind.split()[1]} {what}")
        elif kind:
            self.events.append(f"{kind.replace('error', 'crash')} {what}")
            self.dead = True
            if kind.endswith("after"):
                action()
            raise Crash
        if self._failing and may_fail:
            self._failing -= 1
            if self._kind == "error after":
                action()
            raise OSError(errno.EIO, "a fault of the simulation", what)
        return action()

    def __str__(self) -> str:
        return f"seed {self.seed}: " + "; ".join(self.events)
