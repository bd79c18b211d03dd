"""Work on a Ray cluster: bounded windows of tasks, finite retries, metrics."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ray_jobs.cluster.runner import RayRunner, add_ray
from sharding.common.errors import InputError
from sharding.common.progress import Progress
from sharding.common.runners import LocalRunner, add_runner, runner_of
from tests.conftest import REPOSITORY
from tests.ray_jobs.conftest import STORE, head


def parser_of(*add: Callable[[argparse.ArgumentParser], None]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", default="out")
    for one in add:
        one(parser)
    return parser


def test_a_command_runs_here_unless_a_cluster_is_named() -> None:
    parser = parser_of(add_runner, add_ray)
    assert isinstance(runner_of(parser.parse_args([])), LocalRunner)
    found = runner_of(parser.parse_args(["--ray=auto"]))
    assert isinstance(found, RayRunner) and found.address == "auto"
    with pytest.raises(SystemExit):  # a command that needs no runner has no use for a cluster
        parser_of(add_ray).parse_args(["--ray=auto"])


def test_a_submitted_job_refuses_to_write_into_rays_copy_of_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    parser = parser_of(add_runner, add_ray)
    with pytest.raises(InputError, match="absolute path") as caught:
        runner_of(parser.parse_args(["--ray=auto", "--out=shards"]))
    assert caught.value.value == "shards"
    for out in ("/data/shards", "s3://bucket/shards", "~/shards"):
        assert isinstance(runner_of(parser.parse_args(["--ray=auto", f"--out={out}"])), RayRunner)


def killing(folder: str, times: int) -> Callable[[int], int]:
    """A task that kills its worker the first ``times`` times that it gets the number 3."""

    def work(number: int) -> int:
        import os
        import signal
        from pathlib import Path

        if number == 3:
            tries = len(list(Path(folder).iterdir()))
            (Path(folder) / str(tries)).touch()
            if tries < times:
                os.kill(os.getpid(), signal.SIGKILL)
        return number

    return work


@pytest.mark.slow
def test_tasks_whose_workers_die_are_tried_again_but_not_for_ever(cluster: Any, tmp_path: Path) -> None:
    node = cluster.add_node(num_cpus=1, object_store_memory=STORE)
    runner = RayRunner(cluster.address)

    def fail(number: int) -> int:
        raise InputError("no such thing", value=number, remedy="choose another")

    once, always = tmp_path / "once", tmp_path / "always"
    once.mkdir(), always.mkdir()
    assert sorted(runner.map(killing(str(once), 1), iter(range(6)))) == list(range(6))
    with pytest.raises(InputError, match="died 4 times"):
        list(runner.map(killing(str(always), 99), [3]))
    assert len(list(always.iterdir())) == 4
    with pytest.raises(InputError, match="no such thing") as caught:
        list(runner.map(fail, [7]))
    assert caught.value.value == 7
    cluster.remove_node(node)


@pytest.mark.slow
def test_few_tasks_wait_and_as_many_run_as_the_cluster_has_cpus(cluster: Any) -> None:
    node = cluster.add_node(num_cpus=2, object_store_memory=STORE)
    taken = []

    def items() -> Iterator[int]:
        for number in range(1000):
            taken.append(number)
            yield number

    results = RayRunner(cluster.address).map(_nap, items())
    for _ in range(3):
        next(results)
    assert len(taken) <= 3 + 2 * 2
    results.close()  # type: ignore[attr-defined]
    cluster.remove_node(node)


@pytest.mark.slow
def test_a_job_says_that_a_cluster_has_no_cpus_and_waits(
    cluster: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ray_jobs.cluster.runner.PATIENCE_S", 1.0)
    results: list[int] = []
    waiting = threading.Thread(target=lambda: results.extend(RayRunner(cluster.address).map(_nap, [1])))
    waiting.start()
    time.sleep(4)
    late = cluster.add_node(num_cpus=1, object_store_memory=STORE)
    waiting.join(60)
    assert results == [1]
    assert "no node of the cluster has a CPU" in capsys.readouterr().err
    cluster.remove_node(late)


def _nap(number: int) -> int:
    import time

    time.sleep(0.1)
    return number


MEMORY = """
import sys
from ray_jobs.cluster.runner import RayRunner
from sharding.common.errors import InputError
def eat(number):
    import time
    time.sleep(120)
try:
    list(RayRunner(sys.argv[1]).map(eat, [1]))
except InputError as error:
    print(error, file=sys.stderr)
    sys.exit(2)
"""


@pytest.mark.slow
def test_tasks_that_are_killed_for_memory_are_not_tried_for_ever() -> None:
    # any machine uses more than that: whatever runs is killed, which is what a node without memory does
    starved = head(memory_usage_threshold=0.01, memory_monitor_refresh_ms=100)
    try:
        starved.add_node(num_cpus=1, object_store_memory=STORE)
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
        found = subprocess.run(
            [sys.executable, "-c", MEMORY, starved.address],
            cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
        assert found.returncode == 2, found.stderr
        assert "died 4 times at the same task: OutOfMemoryError" in found.stderr
    finally:
        starved.shutdown()


@pytest.mark.slow
def test_the_metrics_of_a_build_are_there_for_the_dashboard(cluster: Any) -> None:
    import ray

    runner = RayRunner(cluster.address, run="mine")
    progress = Progress("proof", 100, "clips", runner.watch)  # a stage that no other driver of the cluster has
    progress.add(40, {"silent": 3})
    ports = [node["MetricsExportPort"] for node in ray.nodes() if node["Alive"]]
    wanted = {"earshot_done": "40.0", "earshot_total": "100.0", "earshot_failed": "3.0", "earshot_rate": ""}

    def shown(name: str) -> list[str]:
        texts = (urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode() for port in ports)
        every = (line for text in texts for line in text.splitlines())
        lines = [line for line in every if 'stage="proof"' in line and 'run="mine"' in line]
        return [line for line in lines if line.startswith(f"ray_{name}{{") and line.endswith(wanted[name])]

    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and not all(shown(name) for name in wanted):
        time.sleep(1)
    assert all(shown(name) for name in wanted)


@pytest.mark.slow
def test_work_stays_on_nodes_of_its_label(cluster: Any) -> None:
    """The node without the label gets nothing, and the window is that of the labelled one."""
    nodes = [cluster.add_node(num_cpus=2, object_store_memory=STORE)]
    nodes.append(cluster.add_node(num_cpus=1, object_store_memory=STORE, labels={"earshot": "shards"}))
    try:
        runner = RayRunner(cluster.address, "shards")
        found = set(runner.map(node_of, range(6)))
        assert found == {nodes[1].node_id}
        assert runner._window() == 2
    finally:
        for node in nodes:
            cluster.remove_node(node)


def node_of(number: int) -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())
