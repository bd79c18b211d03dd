"""Where work runs: in this process, or in several of this machine."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import multiprocessing
import multiprocessing.connection
import os
import pickle
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
from sharding.common.processes import undisturbed_start
from sharding.common.progress import Progress

Item = TypeVar("Item")
Result = TypeVar("Result")

TRIES = 3  # of an item whose worker process dies
AHEAD = 2  # items for each worker that are handed out at once


class Runner(Protocol):
    """Applies a function to items, in this process or in others."""

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Results in the order in which they arrive; an error of the function ends the iteration."""
        ...

    def watch(self, progress: Progress) -> None:
        """Called at every step of long work; shows the progress elsewhere than in the terminal."""
        ...


class LocalRunner:
    """Runs work in processes of this machine; with one worker, in this process itself.

    The processes start when they are first needed and live as long as the runner: starting one takes as long as
    decoding hundreds of clips.
    """

    def __init__(self, workers: int = 1) -> None:
        if workers < 1:
            raise InputError("at least one worker is needed", value=workers)
        self.workers = workers
        self._pool: ProcessPoolExecutor | None = None
        self._end_pool: Callable[[], Any] = lambda: None

    def watch(self, progress: Progress) -> None:
        """Nothing to do: the terminal shows the progress."""

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Results in the order in which they arrive; only a few items for each worker are taken in advance.

        Raises:
            InputError: worker processes died ``TRIES`` times while they worked on the same items.
            Exception: what the function raised.
        """
        waiting = iter(items)
        first = list(itertools.islice(waiting, 2))
        if self.workers == 1 or len(first) < 2:
            yield from map(function, itertools.chain(first, waiting))
            return
        waiting = itertools.chain(first, waiting)
        tries: dict[int, int] = {}  # of the items that were running when a worker died, by id()
        while True:
            running: dict[Future[Result], Item] = {}
            try:
                yield from self._spread(function, waiting, running)
            except BrokenProcessPool:
                # nobody knows which item was at fault, so all that were running are tried again
                lost = list(running.values())
                tries = {id(item): tries.get(id(item), 0) + 1 for item in lost}
                if max(tries.values()) >= TRIES:
                    raise InputError(
                        "worker processes keep dying",
                        remedy="check that memory is left; fewer --workers need less; the same command then continues",
                    ) from None
                waiting = itertools.chain(lost, waiting)
            else:
                return

    def _spread(
        self, function: Callable[[Item], Result], waiting: Iterator[Item], running: dict[Future[Result], Item]
    ) -> Iterator[Result]:
        """Work through ``waiting``.  ``running`` holds the items that are running, also when a worker has died."""
        with _written(pickle.dumps(function)) as name:  # each worker reads it once: it may be large
            try:
                for item in waiting:
                    running[_submit(self._started(), name, item, running)] = item
                    if len(running) >= AHEAD * self.workers:
                        yield from _finished(running)
                while running:
                    yield from _finished(running)
            except BaseException as error:  # also GeneratorExit: nobody will take the results
                if isinstance(error, KeyboardInterrupt):
                    self._kill()  # the items may take hours
                else:
                    wait([future for future in running if not future.cancel()])
                self._end_pool()
                self._pool = None
                raise

    def _kill(self) -> None:
        if self._pool is not None:
            workers = list(self._pool._processes.values())  # Python 3.14 has kill_workers() for it
            for process in workers:
                process.kill()
            for process in workers:
                multiprocessing.connection.wait([process.sentinel])

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")  # a fork of a process with threads (Arrow, soxr) can hang
            theirs, ours = context.Pipe(duplex=False)
            self._pool = ProcessPoolExecutor(self.workers, context, _begin_worker, (theirs,))
            self._end_pool = weakref.finalize(self, _end_workers, self._pool, ours)
        return self._pool


@contextlib.contextmanager
def _written(data: bytes) -> Iterator[str]:
    """The path of a temporary file that holds ``data``.

    The path is chosen before the file exists, so that the file is removed wherever an interruption arrives.
    """
    path = Path(tempfile.gettempdir()) / f"earshot-{uuid.uuid4().hex}"
    try:
        path.touch(mode=0o600, exist_ok=False)
        path.write_bytes(data)
        yield str(path)
    finally:
        path.unlink(missing_ok=True)


def _submit(pool: ProcessPoolExecutor, function: str, item: Item, running: dict[Future[Any], Item]) -> Future[Any]:
    try:
        with undisturbed_start():  # the builder handles Ctrl-C
            return pool.submit(_apply, function, item)
    except BrokenProcessPool:
        running[Future()] = item  # the pool did not take the item, and it must not be lost
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
        """The function of that name; another function that is held is released before this one is loaded."""
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
    """Close the pipe at which idle workers end.  The pool's own message needs a lock that a killed worker may hold."""
    pipe.close()
    pool.shutdown()


def _begin_worker(pipe: Connection) -> None:
    """End this worker with the process that started it: left behind, it would write into a later build."""
    builder = multiprocessing.parent_process()
    assert builder is not None

    def watch() -> None:
        multiprocessing.connection.wait([builder.sentinel, pipe])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def add_runner(parser: argparse.ArgumentParser) -> None:
    """Add ``--workers``.  A program that has other runners as well replaces the default of ``make_runner``."""
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N", help="number of processes on this machine (default: 1)"
    )
    parser.set_defaults(make_runner=lambda args: LocalRunner(args.workers))


def runner_of(args: argparse.Namespace) -> Runner:
    """The runner that the arguments ask for."""
    runner: Runner = args.make_runner(args)
    return runner
