"""Work over a Ray cluster: core tasks, few of them waiting, each tried again a finite number of times."""

from __future__ import annotations

import argparse
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from sharding.common.errors import InputError
from sharding.common.progress import Progress
from sharding.common.runners import Runner, loaded_function
from sharding.common.storage import is_full

Item = TypeVar("Item")
Result = TypeVar("Result")

TRIES = 4  # of a task whose worker or node dies, is killed for memory, or whose storage fails
AHEAD = 2  # tasks a CPU that are handed out at once
LOOK_S = 5.0  # between two looks at how many CPUs the cluster has
PATIENCE_S = 30.0  # without a result, after which a cluster that has no CPU at all is spoken of


class RayRunner:
    """Tasks on the cluster at ``address`` (``auto``: the one that this process belongs to).

    As many tasks run as the cluster has CPUs, also when nodes come and go; ``AHEAD`` times as many are handed out.
    What the terminal shows, the dashboard's metrics show too: ``earshot_done``, ``earshot_total``,
    ``earshot_failed`` and ``earshot_rate``, each with the stage as its tag ``stage``.
    """

    def __init__(self, address: str = "auto") -> None:
        self.address = address
        self._gauges: dict[str, Any] = {}
        self._limit, self._looked = 1, float("-inf")

    def _start(self) -> None:
        # a `uv run` hook would rebuild the environment on every worker
        os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
        import ray

        if ray.is_initialized():
            return
        inside_job = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ
        code = Path(__file__).resolve().parent.parent
        modules = [str(code / package) for package in ("sharding", "ray_jobs")]
        try:
            ray.init(
                address=self.address,
                logging_level="ERROR",
                log_to_driver=False,
                runtime_env=None if inside_job else {"py_modules": modules},
            )
        except ConnectionError as error:
            raise InputError("no Ray cluster answers", value=self.address, remedy="`ray start --head`") from error

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Results as they come; the next task is handed out when one is through.

        Raises:
            InputError: a task's worker died ``TRIES`` times.
            Exception: what the function raised, as it would have come from this process.
        """
        self._start()
        import ray

        # Ray's own retries are off: those of tasks that were killed for memory have no end
        task = ray.remote(num_cpus=1, max_retries=0)(_apply)
        # it travels once a node and is loaded once a worker: inside a list, Ray leaves it to the task to load it
        shared, name = [ray.put(function)], uuid.uuid4().hex
        running: dict[Any, tuple[Item, int]] = {}

        def finish_one() -> Iterator[Result]:
            while not (done := ray.wait(list(running), num_returns=1, timeout=PATIENCE_S)[0]):
                _mind_the_cpus()
            item, tries = running.pop(done[0])
            try:
                result = ray.get(done[0])
            except ray.exceptions.RayError as error:
                _raise_lasting(error, tries)
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
        finally:
            for reference in running:
                ray.cancel(reference, force=True)

    def _window(self) -> int:
        """How many tasks are handed out at once."""
        import ray

        now = time.monotonic()
        if now - self._looked > LOOK_S:
            self._looked = now
            self._limit = max(1, int(AHEAD * ray.cluster_resources().get("CPU", 1)))
        return self._limit

    def watch(self, progress: Progress) -> None:
        """Set the cluster's metrics; Prometheus and the dashboard collect them from every node's agent."""
        self._start()
        if not self._gauges:
            from ray.util.metrics import Gauge

            self._gauges = {
                name: Gauge(f"earshot_{name}", about, ("stage",))
                for name, about in (
                    ("done", "Units of this stage of a shard build that are through"),
                    ("total", "Units of this stage in all"),
                    ("failed", "Units that did not make it"),
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
    parser.set_defaults(make_runner=lambda args: RayRunner(args.ray) if args.ray else make_local(args))


def _apply(name: str, shared: list[Any], item: Any) -> Any:
    import ray

    return loaded_function.get(name, lambda: ray.get(shared[0]))(item)


def _mind_the_cpus() -> None:
    """Say so where nothing can run; nodes may still be on their way."""
    import ray

    if not ray.cluster_resources().get("CPU"):
        print("  waiting: no node of the cluster has a CPU (`ray status` lists them)", file=sys.stderr, flush=True)


def _raise_lasting(error: Exception, tries: int) -> None:
    """Raise what another try will not mend; return where one may."""
    import ray

    if isinstance(error, ray.exceptions.RayTaskError):
        cause = error.cause or error
        if not isinstance(cause, OSError) or is_full(cause) or tries == TRIES:
            raise cause from None
    elif tries == TRIES:
        raise InputError(
            f"a worker on the cluster died {TRIES} times at the same task: {type(error).__name__}",
            remedy="is there memory left on the nodes? the same command goes on where it was",
        ) from error
