"""Runs work on a Ray cluster: as Ray tasks, few of them waiting, each tried again a bounded number of times."""

from __future__ import annotations

import argparse
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from ray_jobs.cluster.connection import LABEL, add_nodes, connect, refuse_relative, resources_of, selector
from ray_jobs.cluster.metrics import BUILD, FAILURES, Gauges, run_label
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
    """Runs work on the cluster at ``address`` (see ``ray_jobs.cluster.connection.connect``).

    As many tasks run as the cluster has CPUs, also when nodes come and go; ``AHEAD`` times as many are handed out.
    A function with an attribute ``gpus`` gets so many for each task, where the cluster has any.
    The dashboard shows the same progress as the terminal, as the metrics ``earshot_done``, ``earshot_total`` and
    ``earshot_rate`` with the labels ``run`` and ``stage``, and ``earshot_failed`` with ``error`` besides.

    Args:
        address: see above.
        nodes: the label of the nodes on which it runs; None: all.
        run: the value of the label ``run`` of its metrics.
    """

    def __init__(self, address: str = "auto", nodes: str | None = None, run: str = "") -> None:
        self.address, self.nodes, self.run = address, nodes, run
        self._gauges: tuple[Gauges, Gauges] | None = None
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
        gpus = getattr(function, "gpus", 0) if resources_of(self.nodes).get("GPU", 0) else 0
        options = {"num_cpus": 1, "num_gpus": gpus, "label_selector": selector(self.nodes)}
        task = ray.remote(max_retries=0, **options)(_apply)
        # it travels once a node and is loaded once a worker: inside a list, Ray leaves it to the task to load it
        shared, name = [ray.put(function)], uuid.uuid4().hex
        running: dict[Any, tuple[Item, int]] = {}

        def finish_one() -> Iterator[Result]:
            while not (done := ray.wait(list(running), num_returns=1, timeout=PATIENCE_S)[0]):
                _report_missing_cpus(self.nodes)
            item, tries = running.pop(done[0])
            try:
                result = ray.get(done[0])
            except ray.exceptions.RayError as error:
                _raise_permanent(error, tries)
                _report_loss(error, tries)
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
        now = time.monotonic()
        if now - self._limit_known > REFRESH_S:
            self._limit_known = now
            self._limit = max(1, int(AHEAD * resources_of(self.nodes).get("CPU", 1)))
        return self._limit

    def watch(self, progress: Progress) -> None:
        """Set the cluster's metrics; Prometheus and the dashboard collect them from every node's agent."""
        connect(self.address, show_workers=False)
        if self._gauges is None:
            self._gauges = Gauges(BUILD, self.run, ("stage",)), Gauges(FAILURES, self.run, ("stage", "error"))
        build, failures = self._gauges
        names = (name.removeprefix("earshot_") for name in BUILD)
        build.set({f"earshot_{name}": getattr(progress, name) for name in names}, stage=progress.what)
        for error, count in progress.failures.items():
            failures.set({"earshot_failed": count}, stage=progress.what, error=error)


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

    add_nodes(parser)

    def make_runner(args: argparse.Namespace) -> Runner:
        if not args.ray:
            return make_local(args)
        refuse_relative("the output folder", args.out)
        return RayRunner(args.ray, args.nodes, run_label(args.out))

    parser.set_defaults(make_runner=make_runner)


def _apply(name: str, shared: list[Any], item: Any) -> Any:
    import ray

    return loaded_function.get(name, lambda: ray.get(shared[0]))(item)


def _report_missing_cpus(nodes: str | None) -> None:
    """Say that nothing can run where no node has a CPU; nodes may still join."""
    if not resources_of(nodes).get("CPU"):
        which = "of the cluster" if nodes is None else f"with the label {LABEL}={nodes}"
        print(f"  waiting: no node {which} has a CPU (`ray status` lists them)", file=sys.stderr, flush=True)


def _report_loss(error: Exception, tries: int) -> None:
    """Say what happened to a task that is tried again."""
    print(f"  {_in_words(error)}; its task runs again, try {tries + 1} of {TRIES}", file=sys.stderr, flush=True)


def _in_words(error: Exception) -> str:
    """What became of a task that has no result, in one clause."""
    import ray

    first = str(error).strip().partition("\n")[0]
    if isinstance(error, ray.exceptions.RayTaskError):
        return f"storage failed on a worker ({error.cause})"
    if isinstance(error, ray.exceptions.OutOfMemoryError):
        return "a worker was killed, because its node had no memory left"
    if isinstance(error, ray.exceptions.NodeDiedError):
        return "a node was lost"
    if isinstance(error, ray.exceptions.WorkerCrashedError):
        return "a worker was lost, alone or with its node"
    if isinstance(error, ray.exceptions.RuntimeEnvSetupError):
        return f"a node could not unpack Earshot's code ({first})"
    return f"a worker or its node was lost ({type(error).__name__}: {first})"


def _raise_permanent(error: Exception, tries: int) -> None:
    """Raise an error that another try cannot avoid; return if it might."""
    import ray

    if isinstance(error, ray.exceptions.RayTaskError):
        cause = error.cause or error
        if not isinstance(cause, OSError) or is_full(cause) or tries == TRIES:
            raise cause from None
    elif tries == TRIES:
        raise InputError(
            f"a worker on the cluster died {TRIES} times at the same task: {type(error).__name__}",
            remedy="check that memory and disk are left on the nodes; the same command then continues",
        ) from error
