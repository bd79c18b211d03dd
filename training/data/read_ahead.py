"""Reading ahead from an object store, as far as its latency asks for.

A worker builds one batch after the other.  While it builds one, it has already begun to read the next ones that it will
be asked for: so many that their bytes have arrived when their turn comes.  If a read takes ``r`` seconds and a batch is
built in ``b``, that is ``r / b`` batches, rounded up, and one more.  Both are measured while the worker works.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import fsspec.asyn

REQUESTS = 64  # simultaneous requests of a process to an object store
BATCHES = 16  # that a worker reads ahead at most
BYTES = 512 << 20  # that a worker holds of batches that it reads ahead
_MEMORY = 0.2  # weight of the newest of the measured times

Read = TypeVar("Read")


@dataclass
class Times:
    """Times that a process has measured, in seconds; older ones have less weight.

    Attributes:
        request: from a request's start to its last byte.
        waited: how long this process has waited for bytes in all.
    """

    request: float = 0.0
    waited: float = 0.0

    def note_request(self, seconds: float) -> None:
        """Take the time of one more request into the mean."""
        self.request += _MEMORY * (seconds - self.request) if self.request else seconds


@dataclass
class Ahead(Generic[Read]):
    """The batches that a worker has begun to read.

    Attributes:
        times: what the reader measures.
    """

    times: Times = field(default_factory=Times)
    _known: deque[tuple[tuple[int, int], int, Callable[[], Read]]] = field(default_factory=deque)
    _begun: dict[tuple[int, int], tuple[int, Read]] = field(default_factory=dict)
    _build: float = 0.0  # seconds of building a batch, without waiting
    # When the last batch was begun: the clock, and what was waited until then.
    _since: tuple[float, float] | None = None

    def announce(self, place: tuple[int, int], size: int, begin: Callable[[], Read]) -> None:
        """A batch that will be asked for.

        Args:
            place: the number of the epoch's iterator, and the step.
            size: bytes of its samples.
            begin: begins to read it.
        """
        self._known.append((place, size, begin))

    def take(self, place: tuple[int, int], begin: Callable[[], Read]) -> Read:
        """The batch at a place, whose reading has begun before or begins now; then reads further ahead."""
        self._note_build()
        while self._known and (self._known[0][0][0] != place[0] or self._known[0][0] <= place):
            self._known.popleft()
        for other in [other for other in self._begun if other[0] != place[0] or other < place]:
            del self._begun[other]  # of an epoch that was left
        found = self._begun.pop(place, None)
        read = begin() if found is None else found[1]
        while self._known and len(self._begun) < self.depth() and sum(size for size, _ in self._begun.values()) < BYTES:
            upcoming, size, start = self._known.popleft()
            self._begun[upcoming] = size, start()
        return read

    def depth(self) -> int:
        """How many batches are read ahead now."""
        return min(BATCHES, 1 + math.ceil(self.times.request / self._build) if self._build else 2)

    def _note_build(self) -> None:
        now = time.monotonic(), self.times.waited
        if self._since is not None:
            seconds = max(1e-4, now[0] - self._since[0] - (now[1] - self._since[1]))
            self._build += _MEMORY * (seconds - self._build) if self._build else seconds
        self._since = now


class Arriving:
    """The samples that this process is reading from an object store.

    A clip may be in several of the batches that are read ahead; its bytes are asked for once.
    """

    def __init__(self) -> None:
        self._process = os.getpid()
        self._samples: dict[str, Callable[[], bytes]] = {}

    def __reduce__(self) -> tuple[type[Arriving], tuple[()]]:
        """Another process begins with none."""
        return Arriving, ()

    def get(self, sha256: str) -> Callable[[], bytes] | None:
        """A function that waits for the bytes of a sample; None where nobody is reading it."""
        return self._samples.get(sha256) if self._process == os.getpid() else None

    def add(self, samples: Mapping[str, Callable[[], bytes]], read: Future[bytes]) -> None:
        """Offer samples, by their SHA-256, until the read that fetches them has ended."""
        if self._process != os.getpid():  # what a parent process is reading never arrives here
            self._process, self._samples = os.getpid(), {}
        self._samples |= samples
        read.add_done_callback(lambda _: [self._samples.pop(sha256, None) for sha256 in samples])


_pools: dict[int, ThreadPoolExecutor] = {}  # by process: threads do not survive a fork


def request_threads() -> ThreadPoolExecutor:
    """The threads of this process that wait for an object store."""
    own = os.getpid()
    if own not in _pools:
        # fsspec makes its event loop when it is first needed.  After a fork, two threads that need it at once can each
        # make one, and then one of the loops never runs, so that its requests wait for ever.
        fsspec.asyn.get_loop()
        _pools.clear()
        _pools[own] = ThreadPoolExecutor(REQUESTS, "requests")
    return _pools[own]
