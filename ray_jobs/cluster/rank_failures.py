"""What a training job says and does where ranks fail.

Ray Train starts all ranks again, whatever ended one of them.  That helps if a process or a node was lost.  It does not
help against an ``InputError`` or a full disk, so these end the job at once.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from ray.exceptions import RayActorError
from ray.train import ControllerError, TrainingFailedError, UserCallback, WorkerGroupError

from sharding.common.errors import InputError
from sharding.common.storage import is_full
from training.engine.remote import GO_ON


class RankFailures(UserCallback):
    """Says which rank failed and what happens now; runs in Ray Train's controller.

    Args:
        restarts: after which the run is given up.
    """

    def __init__(self, restarts: int) -> None:
        self._allowed, self._count = restarts, 0

    def after_exception(self, run_context: Any, worker_exceptions: Mapping[int, Exception]) -> None:
        """Raises ``ControllerError``, which ends the job, where no restart would help."""
        for error in worker_exceptions.values():
            final = final_error(error)
            if final is not None:
                raise ControllerError(final)
        self._count += 1
        now = "the run starts again from its last checkpoint" if self._count <= self._allowed else "the run is given up"
        print(f"  {cause(worker_exceptions)}; {now} (restart {self._count} of {self._allowed})", file=sys.stderr)


def explained(error: TrainingFailedError, run: str) -> Exception:
    """The error that the driver raises if a run has ended with an error.

    Args:
        error: Ray Train's.
        run: the run's folder or address.
    """
    if isinstance(error, ControllerError):
        return final_error(error.controller_failure) or error
    if isinstance(error, WorkerGroupError):
        return InputError(f"training was given up: {cause(error.worker_failures)}", file=run, remedy=GO_ON)
    return error


def final_error(error: Exception) -> InputError | None:
    """The error that ends a job at once; None where another start may help."""
    if isinstance(error, InputError):
        return error
    if isinstance(error, OSError) and is_full(error):
        return InputError("no space left", file=error.filename, remedy=f"make room there; {GO_ON}")
    return None


def cause(failures: Mapping[int, Exception]) -> str:
    """Why ranks failed, in one clause: a rank that was lost makes the others fail, so it comes first."""
    lost = {rank: error for rank, error in failures.items() if _death(error) is not None}
    rank, error = min((lost or failures).items())
    death = _death(error)
    if death is not None:
        what = "was lost with its node" if "node has died" in str(death) else "died, because its process has ended"
        return f"rank {rank} {what}"
    return f"rank {rank} failed ({type(error).__name__}: {str(error).partition(chr(10))[0]})"


def _death(error: Exception) -> RayActorError | None:
    """The error that Ray raised because a rank died; None: it is another error."""
    inner = getattr(error, "health_check_failure", error)  # Ray Train wraps it
    return inner if isinstance(inner, RayActorError) else None
