"""Runs work on a Ray cluster: as Ray tasks, few of them waiting, each tried again a bounded number of times."""

from __future__ import annotations

import argparse
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from ray_jobs.connection import connect, refuse_relative
from sharding.common.errors import InputError
from sharding.common.progress import Progress
from sharding.common.runners import Runner, loaded_function
from sharding.common.storage import is_full

Item = TypeVar("Item")
Result = TypeVar("Result")

TRIES = 4  # of a task whose worker or node dies, is killed for memory, or whose storage fails
AHEAD = 2  # tasks for each CPU that are handed out at once
REFRESH_S = 5.0  # how old the number of the cluster's CPUs may be
PATIENCE_S = 30.0  # without a result; then a cluster that has no CPU at all is reported


class RayRunner:
    """Runs work on the cluster at ``address`` (see ``ray_jobs.connection.connect``).

    As many tasks run as the cluster has CPUs, also when nodes come and go; ``AHEAD`` times as many are handed out.
    A function with an attribute ``gpus`` gets so many for each task, where the cluster has any.
    The dashboard shows the same progress as the terminal, as the metrics ``earshot_done``, ``earshot_total``,
    ``earshot_failed`` and ``earshot_rate`` with the tag ``stage``.
    """

    def __init__(self, address: str = "auto") -> None:
        self.address = address
        self._gauges: dict[str, Any] = {}
        self._limit, self._limit_known = 1, float("-inf")

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Results in the order in which they arrive; another task is handed out whenever one has ended.

        Raises:
            InputError: a task's worker died ``TRIES`` times.
            Exception: what the function raised, as it would have come from this process.
        """
        connect(self.address, show_workers=False)
        import ray

        # Ray's own retries are off: it repeats tasks that were killed for memory without end
        gpus = getattr(function, "gpus", 0) if ray.cluster_resources().get("GPU", 0) else 0
        task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=0)(_apply)
        # it travels once a node and is loaded once a worker: inside a list, Ray leaves it to the task to load it
        shared, name = [ray.put(function)], uuid.uuid4().hex
        running: dict[Any, tuple[Item, int]] = {}

        def finish_one() -> Iterator[Result]:
            while not (done := ray.wait(list(running), num_returns=1, timeout=PATIENCE_S)[0]):
                _report_missing_cpus()
            item, tries = running.pop(done[0])
            try:
                result = ray.get(done[0])
            except ray.exceptions.RayError as error:
                _raise_permanent(error, tries)
                running[task.remote(name, shared, item)] = (item, tries + 1)
                return
            yield result

        try:
            for item in items:
                running[task.remote(name, shared, item)] = (item, 1)
                while len(running) >= self._window():
                    yield from finish_one()
            while running:
                yield from finish_one()
        except KeyboardInterrupt:
            raise  # this process ends, and Ray ends its tasks
        except BaseException:  # also GeneratorExit: nobody will take the results
            for reference in running:
                ray.cancel(reference)  # forced, it aborts this process where a task ends in the same moment
            raise

    def _window(self) -> int:
        """How many tasks are handed out at once."""
        import ray

        now = time.monotonic()
        if now - self._limit_known > REFRESH_S:
            self._limit_known = now
            self._limit = max(1, int(AHEAD * ray.cluster_resources().get("CPU", 1)))
        return self._limit

    def watch(self, progress: Progress) -> None:
        """Set the cluster's metrics; Prometheus and the dashboard collect them from every node's agent."""
        connect(self.address, show_workers=False)
        if not self._gauges:
            from ray.util.metrics import Gauge

            self._gauges = {
                name: Gauge(f"earshot_{name}", about, ("stage",))
                for name, about in (
                    ("done", "Units of this stage of a shard build that are done"),
                    ("total", "Units of this stage in all"),
                    ("failed", "Units that failed"),
                    ("rate", "Units a second since the stage began"),
                )
            }
        for name, gauge in self._gauges.items():
            value = getattr(progress, name)
            if value is not None:
                gauge.set(float(value), {"stage": progress.what})


def add_ray(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """``--ray``, for a command whose work a runner does (see ``sharding.commands.arguments.add_runner``)."""
    make_local: Callable[[argparse.Namespace], Runner] | None = parser.get_default("make_runner")
    if make_local is None:
        return
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        default=default,
        help="run on this Ray cluster instead, with as many workers as it has CPUs; `auto` finds one",
    )

    def make_runner(args: argparse.Namespace) -> Runner:
        if not args.ray:
            return make_local(args)
        refuse_relative("the output folder", args.out)
        return RayRunner(args.ray)

    parser.set_defaults(make_runner=make_runner)


def _apply(name: str, shared: list[Any], item: Any) -> Any:
    import ray

    return loaded_function.get(name, lambda: ray.get(shared[0]))(item)


def _report_missing_cpus() -> None:
    """Say that nothing can run where no node has a CPU; nodes may still join."""
    import ray

    if not ray.cluster_resources().get("CPU"):
        print("  waiting: no node of the cluster has a CPU (`ray status` lists them)", file=sys.stderr, flush=True)


def _raise_permanent(error: Exception, tries: int) -> None:
    """Raise an error that another try would not mend; return where it might."""
    import ray

    if isinstance(error, ray.exceptions.RayTaskError):
        cause = error.cause or error
        if not isinstance(cause, OSError) or is_full(cause) or tries == TRIES:
            raise cause from None
    elif tries == TRIES:
        raise InputError(
            f"a worker on the cluster died {TRIES} times at the same task: {type(error).__name__}",
            remedy="check that memory is left on the nodes; the same command then continues",
        ) from error
