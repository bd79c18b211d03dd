"""Where work runs: in this process, or in several of this machine."""

from __future__ import annotations

import itertools
import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import tempfile
import threading
import uuid
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol, TypeVar

from sharding.common.errors import InputError
from sharding.common.progress import Progress

Item = TypeVar("Item")
Result = TypeVar("Result")

TRIES = 3  # of an item whose worker process dies
AHEAD = 2  # items a worker that are handed out at once


class Runner(Protocol):
    """Applies a function to items, somewhere."""

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Results as they come, in any order; an error of the function ends the iteration."""
        ...

    def watch(self, progress: Progress) -> None:
        """Told of every step of long work: where it is to be seen beside the terminal."""
        ...


class LocalRunner:
    """Processes of this machine; one worker is this process itself.

    The processes are started when they are first needed and serve until the runner is gone: each takes as long to
    start as hundreds of clips take to decode.
    """

    def __init__(self, workers: int = 1) -> None:
        if workers < 1:
            raise InputError("at least one worker is needed", value=workers)
        self.workers = workers
        self._pool: ProcessPoolExecutor | None = None
        self._end: Callable[[], Any] = lambda: None

    def watch(self, progress: Progress) -> None:
        """The terminal is enough."""

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Results as they come; of the items, only a few a worker are taken ahead.

        Raises:
            InputError: worker processes died ``TRIES`` times over the same items.
            Exception: what the function raised.
        """
        waiting = iter(items)
        first = list(itertools.islice(waiting, 2))
        if self.workers == 1 or len(first) < 2:
            yield from map(function, itertools.chain(first, waiting))
            return
        waiting = itertools.chain(first, waiting)
        tries: dict[int, int] = {}  # of items that were under way when a worker died, by identity
        while True:
            running: dict[Future[Result], Item] = {}
            try:
                yield from self._spread(function, waiting, running)
            except BrokenProcessPool:
                # which item was at fault cannot be told: all that were under way are tried again
                lost = list(running.values())
                tries = {id(item): tries.get(id(item), 0) + 1 for item in lost}
                if max(tries.values()) >= TRIES:
                    raise InputError(
                        "worker processes keep dying",
                        remedy="is there memory left? fewer --workers need less; the same command goes on",
                    ) from None
                waiting = itertools.chain(lost, waiting)
            else:
                return

    def _spread(
        self, function: Callable[[Item], Result], waiting: Iterator[Item], running: dict[Future[Result], Item]
    ) -> Iterator[Result]:
        """Work through ``waiting``; ``running`` holds what is under way, also when a worker dies."""
        with tempfile.NamedTemporaryFile(prefix=f"earshot-{uuid.uuid4().hex}") as file:
            file.write(pickle.dumps(function))  # each worker reads it once: it may hold much, and would travel often
            file.flush()
            try:
                for item in waiting:
                    running[_submit(self._begun(), file.name, item, running)] = item
                    if len(running) >= AHEAD * self.workers:
                        yield from _finished(running)
                while running:
                    yield from _finished(running)
            except BaseException as error:  # also GeneratorExit: what is under way belongs to nobody
                if isinstance(error, KeyboardInterrupt):
                    self._kill()  # it may be hours of sound
                else:
                    wait([future for future in running if not future.cancel()])
                self._end()
                self._pool = None
                raise

    def _kill(self) -> None:
        if self._pool is not None:
            workers = list(self._pool._processes.values())  # Python 3.14 has kill_workers() for it
            for process in workers:
                process.kill()
            for process in workers:
                multiprocessing.connection.wait([process.sentinel])

    def _begun(self) -> ProcessPoolExecutor:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")  # a fork of one with threads (Arrow, soxr) can hang
            theirs, ours = context.Pipe(duplex=False)
            self._pool = ProcessPoolExecutor(self.workers, context, _begin_worker, (theirs,))
            self._end = weakref.finalize(self, _end_workers, self._pool, ours)
        return self._pool


def _submit(pool: ProcessPoolExecutor, function: str, item: Item, running: dict[Future[Any], Item]) -> Future[Any]:
    try:
        return pool.submit(_apply, function, item)
    except BrokenProcessPool:
        running[Future()] = item  # it was not handed out, and must not be lost
        raise


def _finished(running: dict[Future[Result], Item]) -> Iterator[Result]:
    for future in wait(running, return_when=FIRST_COMPLETED).done:
        result = future.result()
        del running[future]
        yield result


class _LoadedFunction:
    """The function that this worker process applies: loaded once, and kept with what it holds, such as a decoder."""

    def __init__(self) -> None:
        self._name = ""
        self._function: Callable[[Any], Any] = _nothing

    def get(self, name: str, load: Callable[[], Callable[[Any], Any]]) -> Callable[[Any], Any]:
        """The function of that name; where another one is held, that one is let go before this one is loaded."""
        if self._name != name:
            self._name, self._function = "", _nothing
            self._name, self._function = name, load()
        return self._function


def _nothing(item: Any) -> Any:
    raise AssertionError("no function is loaded")


loaded_function = _LoadedFunction()  # of this process; it is a worker process's one piece of state


def _apply(file: str, item: Any) -> Any:
    return loaded_function.get(file, lambda: pickle.loads(Path(file).read_bytes()))(item)


def _end_workers(pool: ProcessPoolExecutor, pipe: Connection) -> None:
    """Idle workers end by themselves: one that was killed may hold the lock with which the others are to be told."""
    pipe.close()
    pool.shutdown()


def _begin_worker(pipe: Connection) -> None:
    """A worker ends with its builder: one left behind by a killed builder would write into the next one's build."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the builder's to handle
    builder = multiprocessing.parent_process()
    assert builder is not None

    def watch() -> None:
        multiprocessing.connection.wait([builder.sentinel, pipe])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
