"""Training on several hosts: its losses are those of one host, whatever dies in the middle."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from tests.drills.hosts import Host, start_all
from tests.drills.jobs import DRILL, Job, same_to_rounding, taken, training
from tests.training.small_runs import figures
from training.engine import checkpoint

pytestmark = DRILL


def test_two_hosts_train_as_one_although_one_of_them_dies(
    hosts: list[Host], environment: dict[str, str], run_job: Callable[..., Job], calm_run: Path, tmp_path: Path
) -> None:
    """A host of two loses its power; the run waits for another host, and goes on with the same losses to the bit."""
    run = tmp_path / "run"
    job = run_job(*training(calm_run, run))
    job.wait_until(lambda: taken(run) >= 12)
    hosts[2].kill()
    start_all([hosts[0], hosts[1], hosts[3]], environment)  # the node that is lost counts until it is given up
    assert "was lost with its node; the run starts again from its last checkpoint" in job.succeeds()
    assert figures(run) == figures(calm_run / "pair")
    assert checkpoint.load(checkpoint.find(run)).state["world"] == 2


def test_a_run_survives_a_rank_a_raylet_a_link_and_its_driver_with_fewer_hosts(
    hosts: list[Host], run_job: Callable[..., Job], calm_run: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    job = run_job(*training(calm_run, run, "--min-workers=1"))
    job.wait_until(lambda: taken(run) >= 7)
    assert hosts[1].end("ray::RayTrainWorker")
    job.wait_until(lambda: taken(run) >= 17)
    hosts[1].cut()
    time.sleep(4)
    hosts[1].mend()
    job.wait_until(lambda: taken(run) >= 27)
    assert hosts[2].end("raylet/raylet")
    job.wait_until(lambda: taken(run) >= 37)
    assert hosts[0].end("ray_jobs/train.py")
    job.fails()
    assert job.log().count("; the run starts again from its last checkpoint (restart") >= 2
    run_job(*training(calm_run, run, "--min-workers=1")).succeeds()
    same_to_rounding(calm_run / "pair", run)


def test_a_run_goes_on_after_a_new_head(
    hosts: list[Host], environment: dict[str, str], run_job: Callable[..., Job], calm_run: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    job = run_job(*training(calm_run, run))
    job.wait_until(lambda: taken(run) >= 7)
    hosts[0].stop()  # not `kill`: `ray job submit` waits without end for a head that answers no more
    job.fails()
    start_all(hosts[:3], environment)
    run_job(*training(calm_run, run)).succeeds()
    assert figures(run) == figures(calm_run / "pair")
