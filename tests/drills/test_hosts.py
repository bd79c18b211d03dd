"""Several hosts: shards are built while a host dies, another one joins and a link is cut.

``make test-drills`` runs this.  It needs the right to make network namespaces.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ray_jobs.local_cluster import submit
from sharding import cli
from tests.conftest import REPOSITORY
from tests.drills.hosts import Host, network, permitted, wait_for_nodes
from tests.sharding.corpora import outcome, write_corpus

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif("EARSHOT_DRILLS" not in os.environ, reason="a drill: `make test-drills` runs it"),
    pytest.mark.skipif(not permitted(), reason="network namespaces are not permitted here"),
]


@pytest.fixture
def environment() -> dict[str, str]:
    """The environment of every node: `python` is the one that has Earshot's packages."""
    return os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "RAY_AUTH_MODE": "disabled",  # the network is this test's own
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "RAY_TRAIN_V2_ENABLED": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
    }


def start(hosts: list[Host], environment: dict[str, str]) -> str:
    """A head without CPUs, and a CPU on each other host; the dashboard's address."""
    for host in hosts:
        host.start(0 if host.number == 0 else 1, environment)
        if host.number == 0:
            time.sleep(8)
    return wait_for_nodes(len(hosts))


def wait_until(holds: Callable[[], bool], job: Future[None]) -> None:
    """Wait for something that happens while a job runs."""
    while not holds():
        assert not job.done(), f"the job ended before: {job.exception()}"
        time.sleep(0.2)


def read(log: Path) -> str:
    return log.read_text() if log.exists() else ""


def test_a_build_outlives_a_host_and_a_link_and_gets_a_new_host(
    tmp_path: Path, tmp_path_factory: Any, environment: dict[str, str]
) -> None:
    corpus, out, log = write_corpus(tmp_path / "corpus", clips=400, seconds=1.0), tmp_path / "out", tmp_path / "job.log"
    options = [f"--source=mine={corpus}", "--protect=mine/test", "--window-s=10", "--shard-size=4MB"]
    command = ["python", "ray_jobs/build_shards.py", f"--out={out}", *options]
    with network(4, tmp_path_factory.mktemp("n")) as hosts, ThreadPoolExecutor(1) as pool:
        address = start(hosts[:3], environment)
        job = pool.submit(submit, address, REPOSITORY, command, log)
        wait_until(lambda: "probe: " in read(log), job)
        hosts[2].kill()
        hosts[3].start(1, environment)
        hosts[1].delay(20)
        time.sleep(1)
        hosts[1].cut()
        time.sleep(4)
        hosts[1].mend()
        assert not job.done(), "the job ended before its hosts had died"
        job.result(timeout=900)
    assert cli.main(["build", f"--out={tmp_path / 'calm'}", *options]) == 0
    assert outcome(out) == outcome(tmp_path / "calm")
