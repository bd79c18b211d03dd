"""The hosts of all drills: one small cluster, which every drill finds whole."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from sharding import cli
from tests.drills import unsteady
from tests.drills.hosts import Host, network, small_disk, start_all
from tests.drills.jobs import MORE, OPTIONS, Job, empty
from tests.drills.leftovers import alone
from tests.sharding.corpora import outcome, write_corpus
from tests.training.small_runs import TREE, run_ranks, write_sounds

DISK, DISK_MB = "disk", 40
SCRATCH_MB = 300  # of the fourth host's temporary folder
DEAD_AFTER_S = 10  # without a sign of life; Ray's own patience is 30 s and more


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """The environment of every node: `python` is the one that has Earshot's packages."""
    return os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "RAY_AUTH_MODE": "disabled",  # the network is this test's own
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "RAY_TRAIN_V2_ENABLED": "1",
        "RAY_health_check_period_ms": "2000",
        "RAY_health_check_timeout_ms": "5000",
        "RAY_health_check_failure_threshold": str(DEAD_AFTER_S // 2),
        "RAY_gcs_rpc_server_reconnect_timeout_s": str(2 * DEAD_AFTER_S),
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "240",  # ranks import torch, on a machine that is busy
        "RAY_enable_worker_prestart": "0",  # a process for each CPU that nobody has asked for yet
        "OMP_NUM_THREADS": "1",
        "DS_ACCELERATOR": "cpu",
        "PYTHONUNBUFFERED": "1",
        **unsteady.ENVIRONMENT,
    }


@pytest.fixture(scope="session")
def every_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Host]]:
    """A head, two hosts, and one that can join them, with little room for temporary files; all see a small disk."""
    folder = tmp_path_factory.mktemp("n")
    with (
        alone(),
        small_disk(folder / DISK, DISK_MB),  # a host sees what is there when it starts
        small_disk(folder / "h3", SCRATCH_MB),
        network(4, folder) as hosts,
    ):
        yield hosts


@pytest.fixture
def hosts(every_host: list[Host], environment: dict[str, str]) -> list[Host]:
    """A head without CPUs and two hosts of one CPU each, which run; the fourth host is off, and its disk empty."""
    every_host[3].kill()
    empty(every_host[3].scratch)
    start_all(every_host[:3], environment)
    return every_host


@pytest.fixture
def disk(hosts: list[Host]) -> Iterator[Path]:
    """A small disk that every host sees, empty."""
    folder = hosts[0].scratch.parent / DISK
    yield folder
    empty(folder)


@pytest.fixture
def run_job(every_host: list[Host], tmp_path: Path) -> Iterator[Callable[..., Job]]:
    """Submits jobs."""
    with ThreadPoolExecutor(4) as pool:
        jobs: list[Job] = []

        def run(*command: str) -> Job:
            jobs.append(Job(pool, ["python", *command], tmp_path / f"job-{len(jobs)}.log"))
            return jobs[-1]

        try:
            yield run
        finally:
            if any(job.runs() for job in jobs):  # the drill has failed: `ray job submit` ends with the head
                every_host[0].stop()


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("sounds") / "corpus", clips=400, seconds=4.0)


@pytest.fixture(scope="session")
def calm_build(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a build has that nothing disturbed."""
    out = tmp_path_factory.mktemp("calm") / "out"
    assert cli.main(["build", f"--out={out}", f"--source=mine={corpus}", *OPTIONS]) == 0
    return outcome(out)


@pytest.fixture(scope="session")
def calm_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an undisturbed run of two ranks on one host: the run ``pair``, its shards and its recipe."""
    folder = tmp_path_factory.mktemp("calm")
    write_sounds(folder / "build")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(TREE))
    run_ranks(2, folder / "build", {"pair": MORE}, folder)
    return folder
