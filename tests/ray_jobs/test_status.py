"""``python -m ray_jobs status``: what became of a job."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ray_jobs.__main__ import main
from ray_jobs.local_cluster import local_cluster, submit
from ray_jobs.status import newest_lines, show
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
        "probe: 10/20 clips, 5.0/s, in 0:02",
        "probe: 20/20 clips, 5.0/s, in 0:04, 3 failed",
        "steps 4/9  1.0/s  0:05 left  loss 1.7",
        "step 9: clotho/validation text_to_audio/mAP@10 0.2134",
        "queries of clotho/evaluation, text to audio 32/5225  12.5 s each  18:01:52 left",
    ]
    assert (
        found["error"]
        == "ray_jobs/train.py train: /data/run: another process trains in this folder; remedy: wait for it"
    )


def test_a_job_is_shown_with_its_state_and_why_it_failed() -> None:
    job = {"job": "raysubmit_1", "state": "FAILED", "command": "python x.py", "message": "exit code 2"}
    job |= {"start_ms": 1_000_000, "end_ms": 1_061_000}
    shown = show({"jobs": [job | newest_lines(LOG)]})
    assert shown.splitlines()[0] == "raysubmit_1  FAILED after 0:01:01  python x.py"
    assert shown.splitlines()[-1].endswith("remedy: wait for it")
    assert show({"jobs": []}) == "no job was submitted yet"


def test_a_dashboard_that_does_not_answer_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--address", "http://127.0.0.1:9"]) == 2
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
