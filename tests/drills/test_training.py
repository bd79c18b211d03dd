"""Training on several hosts: its losses are those of one host, whatever dies in the middle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.drills.hosts import Host
from tests.drills.jobs import DRILL, Job, taken, training
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
    hosts[3].start(environment)
    assert "rank 1 was lost with its node; the run starts again" in job.succeeds()
    assert figures(run) == figures(calm_run / "pair")
    assert checkpoint.load(checkpoint.find(run)).state["world"] == 2
