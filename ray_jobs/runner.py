"""Work over a Ray cluster: core tasks, few of them waiting, each tried again a finite number of times."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from sharding.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")

RETRIES = 3  # of a task whose worker or node dies, or whose storage fails; for memory, see _start
AHEAD = 2  # tasks a CPU that are handed out at once


class RayRunner:
    """Tasks on the cluster at ``address`` (``auto``: the one that this process belongs to)."""

    def __init__(self, address: str = "auto") -> None:
        self.address = address

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

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """Results as they come; the next task is handed out when one is through."""
        self._start()
        import ray

        # kills for lack of memory are retried for ever unless the cluster runs with RAY_task_oom_retries
        task = ray.remote(num_cpus=1, max_retries=RETRIES, retry_exceptions=[OSError])(function)
        waiting = iter(items)
        running: list[ray.ObjectRef] = []
        limit = max(1, int(AHEAD * ray.cluster_resources().get("CPU", 1)))
        try:
            while True:
                while len(running) < limit and (item := next(waiting, None)) is not None:
                    running.append(task.remote(item))
                if not running:
                    return
                done, running = ray.wait(running, num_returns=1)
                try:
                    yield ray.get(done[0])
                except ray.exceptions.RayTaskError as error:
                    # the error itself, as it would have come from this process
                    raise (error.cause or error) from None
        finally:
            for reference in running:
                ray.cancel(reference, force=True)
