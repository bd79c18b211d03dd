from __future__ import annotations

import errno
import os
from typing import Any

import pytest

os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")  # Ray reads it when it is imported

from ray.exceptions import RayActorError
from ray.train import ControllerError, WorkerGroupError

from ray_jobs.cluster.rank_failures import RankFailures, explained
from sharding.common.errors import InputError

NODE = RayActorError(error_msg="The actor died because its node has died. Node Id: 5f2c")
PROCESS = RayActorError(
    error_msg="The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR"
)
PEER = RuntimeError("collective 'rows' (0.001 MB) failed on rank 0 of 2\n  Another rank has ended")
FULL = OSError(errno.ENOSPC, "No space left on device", "/data/run/metrics.jsonl")


@pytest.mark.parametrize(
    ("failures", "sentence"),
    [
        ({0: PEER, 1: NODE}, "rank 1 was lost with its node"),
        ({0: PEER, 1: PROCESS}, "rank 1 died, because its process has ended"),
        ({0: PEER}, "rank 0 failed (RuntimeError: collective 'rows' (0.001 MB) failed on rank 0 of 2)"),
    ],
)
def test_the_log_says_which_rank_failed_and_what_happens(
    failures: dict[int, Exception], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    watch: Any = RankFailures(1)
    watch.after_exception(None, failures)
    assert f"{sentence}; the run starts again from its last checkpoint (restart 1 of 1)" in capsys.readouterr().err
    watch.after_exception(None, failures)
    assert f"{sentence}; the run is given up" in capsys.readouterr().err
    error = explained(WorkerGroupError("two ranks", failures), "s3://bucket/run")
    assert isinstance(error, InputError) and f"training was given up: {sentence}" in str(error)
    assert "the same command continues" in str(error) and "s3://bucket/run" in str(error)


def test_an_error_that_no_restart_can_repair_ends_the_job() -> None:
    wrong = InputError("no such split", value="clotho/tset", remedy="choose another")
    for failure, says in ((wrong, "no such split"), (FULL, "/data/run/metrics.jsonl: no space left")):
        with pytest.raises(ControllerError) as caught:
            RankFailures(3).after_exception(None, {0: failure, 1: PEER})
        assert says in str(explained(caught.value, "run"))
    other = ControllerError(RuntimeError("a defect"))
    assert explained(other, "run") is other
