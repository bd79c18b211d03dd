"""Builds on several hosts: the same bytes, whatever dies in the middle."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.drills.hosts import Host, start_all
from tests.drills.jobs import DRILL, Job, building, fill
from tests.sharding.corpora import outcome

pytestmark = DRILL


def test_a_build_outlives_a_host_and_a_link_and_gets_a_new_host(
    hosts: list[Host],
    environment: dict[str, str],
    run_job: Callable[..., Job],
    corpus: Path,
    calm_build: dict[str, bytes],
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    job = run_job(*building(corpus, out))
    job.wait_until(lambda: "probe: " in job.log())
    hosts[2].kill()
    hosts[3].start(environment)
    hosts[1].cut()
    time.sleep(4)
    hosts[1].mend()
    assert job.runs(), "the job ended before its hosts had died"
    job.succeeds()
    assert outcome(out) == calm_build


@pytest.mark.parametrize("orphans", [False, True], ids=["its workers end with it", "its workers are left behind"])
def test_a_build_outlives_a_raylet_that_dies_alone(
    hosts: list[Host],
    run_job: Callable[..., Job],
    corpus: Path,
    calm_build: dict[str, bytes],
    tmp_path: Path,
    orphans: bool,
) -> None:
    """The host stays.  Left behind, a worker may finish its task although another one has been given it."""
    out = tmp_path / "out"
    job = run_job(*building(corpus, out))
    job.wait_until(hosts[2].works)
    if orphans:
        assert hosts[2].end("start --block", signal.SIGSTOP), "`ray start` would end all others with the raylet"
    assert hosts[2].end("raylet/raylet")
    try:
        assert "its task runs again" in job.succeeds()
    finally:
        hosts[2].stop()  # the next drill finds a host that runs, or none
    assert outcome(out) == calm_build


def test_a_build_on_a_node_whose_temporary_folder_is_full_ends_whole_or_says_so(
    hosts: list[Host],
    environment: dict[str, str],
    run_job: Callable[..., Job],
    corpus: Path,
    calm_build: dict[str, bytes],
    tmp_path: Path,
) -> None:
    """Ray's logs, its spilled objects and Earshot's temporary files have no room there; the others' have."""
    out = tmp_path / "out"
    start_all(hosts, environment)
    job = run_job(*building(corpus, out))
    job.wait_until(hosts[3].works)
    ballast = fill(hosts[3].scratch, leave=0)
    if job.ends_well():
        assert outcome(out) == calm_build
        return
    assert "same command" in job.log(), job.log()[-3000:]
    for shard in (out / "shards").glob("*"):
        assert shard.read_bytes() == calm_build[f"shards/{shard.name}"]
    ballast.unlink()
    run_job(*building(corpus, out)).succeeds()
    assert outcome(out) == calm_build
