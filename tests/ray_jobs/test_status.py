"""``python -m ray_jobs status``: what became of a job."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ray_jobs.__main__ import main
from ray_jobs.cluster.local_cluster import local_cluster, submit
from ray_jobs.status import newest_lines, show, why
from sharding.common.errors import InputError
from tests.conftest import REPOSITORY

LOG = """2026 INFO job.py: something of Ray's
\x1b[36m(_apply pid=12)\x1b[0m   probe: 10/20 clips, 5.0/s, in 0:02
  probe: 20/20 clips, 5.0/s, in 0:04, 3 failed
steps 4/9  1.0/s  0:05 left  loss 1.7
step 9: clotho/validation text_to_audio/mAP@10 0.2134
queries of clotho/evaluation, text to audio 32/5225  12.5 s each  18:01:52 left
Traceback (most recent call last):
ray_jobs/train.py train: /data/run: another process trains in this folder
  remedy: wait for it
"""


def test_the_newest_progress_and_the_error_are_found_in_a_log() -> None:
    found = newest_lines(LOG)
    assert found["progress"] == [
        "probe: 20/20 clips, 5.0/s, in 0:04, 3 failed",
        "steps 4/9  1.0/s  0:05 left  loss 1.7",
        "step 9: clotho/validation text_to_audio/mAP@10 0.2134",
        "queries of clotho/evaluation, text to audio 32/5225  12.5 s each  18:01:52 left",
    ]
    assert (
        found["error"]
        == "ray_jobs/train.py train: /data/run: another process trains in this folder; remedy: wait for it"
    )


LOST = """steps 40/240  1.1 s each  3:44 left  loss 2.3627
(raylet) Raylet is terminated. Last 20 lines of the Raylet logs:
    [state-dump] NodeManager.GCTaskFailureReason - 1 total (1 active)
    [2026-11-30 13:06:10,247 W 22 56] (raylet) memory_monitor_utils.cc:437: Got negative used memory
(TrainController pid=16)   rank 2 was lost with its node; the run starts again from its last checkpoint (restart 2 of 3)
(RayTrainWorker pid=250, ip=10.0.0.2) Traceback (most recent call last):
(RayTrainWorker pid=250, ip=10.0.0.2)   File "/tmp/ray/ray_jobs/cluster/ranks.py", line 202, in rank_main
(RayTrainWorker pid=250, ip=10.0.0.2)     share.function(share.task, group)
(RayTrainWorker pid=250, ip=10.0.0.2)     ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
(RayTrainWorker pid=250, ip=10.0.0.2)   [Previous line repeated 3 more times]
(RayTrainWorker pid=250, ip=10.0.0.2) RuntimeError: Connection closed by peer
"""


def test_what_was_lost_is_told_and_tracebacks_are_not() -> None:
    lost = "rank 2 was lost with its node; the run starts again from its last checkpoint (restart 2 of 3)"
    assert newest_lines(LOST)["progress"] == ["steps 40/240  1.1 s each  3:44 left  loss 2.3627", lost]
    later = "".join(f"(RayTrainWorker pid=9) steps {step}/240  1.1 s each\n" for step in range(41, 60))
    assert newest_lines(LOST + later)["progress"] == [lost, "steps 59/240  1.1 s each"]


def test_rays_message_is_shown_without_the_log_in_it() -> None:
    log = ", last available logs (truncated to 20,000 chars):\nsteps 149/240\nKilled\n"
    assert (
        why(f"Job entrypoint command failed with exit code 1{log}") == "Job entrypoint command failed with exit code 1"
    )
    killed = why(f"Job entrypoint command failed with exit code 137{log}")
    assert killed.startswith("Job entrypoint command failed with exit code 137: it was killed") and "\n" not in killed


def test_a_job_is_shown_with_its_state_and_why_it_failed() -> None:
    job = {"job": "raysubmit_1", "state": "FAILED", "command": "python x.py", "message": "exit code 2"}
    job |= {"start_ms": 1_000_000, "end_ms": 1_061_000}
    shown = show({"jobs": [job | newest_lines(LOG)]})
    assert shown.splitlines()[0] == "raysubmit_1  FAILED after 0:01:01  python x.py"
    assert shown.splitlines()[-1].endswith("remedy: wait for it")
    assert show({"jobs": []}) == "no job was submitted yet"


def test_a_dashboard_that_does_not_answer_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    for address in ("http://127.0.0.1:9", "127.0.0.1:9"):
        assert main(["status", "--address", address]) == 2
        assert "no dashboard of a Ray cluster answers" in capsys.readouterr().err


@pytest.mark.slow
def test_a_job_of_a_real_cluster(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with local_cluster(1, tmp_path / "ray.log") as address:
        with pytest.raises(InputError, match="failed"):
            submit(address, REPOSITORY, ["python", "ray_jobs/build_shards.py", "--out=/x"], tmp_path / "job.log")
        capsys.readouterr()
        assert main(["status", "--address", address, "--json"]) == 0
        (job,) = json.loads(capsys.readouterr().out)["jobs"]
        assert job["state"] == "FAILED"
        assert main(["status", job["job"], "--address", address]) == 0
        assert "no dataset to build from" in capsys.readouterr().out
        assert main(["status", "no-such", "--address", address]) == 2
