"""Where work runs: in this process, or in several.  ``ray_jobs.runner`` runs it over a cluster."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Protocol, TypeVar

from sharding.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")

TRIES = 3  # of an item whose worker process dies
AHEAD = 2  # items a worker that are handed out at once


class Runner(Protocol):
    """Applies a function to items, somewhere."""

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """Results as they come, in any order; an error of the function ends the iteration."""
        ...


class LocalRunner:
    """Processes of this machine; one worker is this process itself."""

    def __init__(self, workers: int = 1) -> None:
        if workers < 1:
            raise InputError("at least one worker is needed", value=workers)
        self.workers = workers

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        if self.workers == 1 or len(items) < 2:
            yield from map(function, items)
            return
        todo = list(range(len(items)))
        lost = [0] * len(items)
        while todo:
            done: set[int] = set()
            try:
                for number, result in self._pool(function, items, todo):
                    done.add(number)
                    yield result
            except BrokenProcessPool:
                # which item was at fault cannot be told: all that were under way are tried again
                todo = [number for number in todo if number not in done]
                for number in todo[: AHEAD * self.workers]:
                    lost[number] += 1
                if max(lost) >= TRIES:
                    raise InputError(
                        "worker processes keep dying",
                        remedy="is there memory left? fewer --workers need less; the same command goes on",
                    ) from None
            else:
                return

    def _pool(
        self, function: Callable[[Item], Result], items: Sequence[Item], todo: Sequence[int]
    ) -> Iterator[tuple[int, Result]]:
        waiting = iter(todo)
        running: dict[Future[Result], int] = {}
        # spawn: a fork of a process that holds threads (Arrow, soxr) can hang
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(self.workers, mp_context=context) as pool:
            try:
                while True:
                    while len(running) < AHEAD * self.workers and (number := next(waiting, None)) is not None:
                        running[pool.submit(function, items[number])] = number
                    if not running:
                        return
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        yield running.pop(future), future.result()
            finally:
                for future in running:
                    future.cancel()
