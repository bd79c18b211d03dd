"""Builds over real raylets: the same bytes as on one machine, whatever is killed in the middle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ray_jobs.runner import RayRunner
from sharding.build.run import build
from sharding.common.errors import InputError
from sharding.common.progress import Progress
from sharding.common.runners import LocalRunner
from tests.conftest import REPOSITORY
from tests.sharding.conftest import settings_for
from tests.sharding.corpora import tree, write_corpus

STORE = 100 << 20  # bytes of each node's object store


def head(**config: Any) -> Any:
    """A Ray cluster of this machine: one raylet that has no CPU for tasks, as a head should be."""
    from ray.cluster_utils import Cluster

    arguments: dict[str, Any] = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE}
    if config:
        arguments["_system_config"] = config
    return Cluster(initialize_head=True, head_node_args=arguments)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    found = head()
    yield found
    import ray

    ray.shutdown()
    found.shutdown()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("ray") / "corpus", clips=200, seconds=1.5)


@pytest.fixture(scope="module")
def expected(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("local") / "out"
    build(settings_for(corpus), str(out), LocalRunner(1))
    return tree(out)


DRIVER = """
import sys
from pathlib import Path
from ray_jobs.runner import RayRunner
from sharding.build.run import build
from tests.sharding.conftest import settings_for
build(settings_for(Path(sys.argv[1])), sys.argv[2], RayRunner(sys.argv[3]))
"""


def drive(corpus: Path, out: Path, address: str) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    arguments = [sys.executable, "-c", DRIVER, str(corpus), str(out), address]
    return subprocess.Popen(arguments, cwd=REPOSITORY, env=environment, stderr=subprocess.PIPE)


def when(pattern: str, out: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until a file of this name is below ``out``."""
    deadline = time.monotonic() + 240
    while not list(out.glob(pattern)):
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()[1].decode()
        time.sleep(0.01)


def workers(node: Any) -> list[int]:
    """Process ids of a node's worker processes that run a task."""
    raylet = node.all_processes["raylet"][0].process.pid
    children = Path(f"/proc/{raylet}/task/{raylet}/children").read_text().split()
    names = {int(pid): Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children}
    return [pid for pid, name in names.items() if name.startswith(b"ray::_apply")]


@pytest.mark.slow
@pytest.mark.parametrize("moment", [".build/packs/*", ".build/facts/*.parquet", ".build/plan.json"])
@pytest.mark.parametrize("victim", ["worker", "node", "driver"])
def test_whatever_is_killed_the_build_has_the_same_bytes(
    cluster: Any, corpus: Path, expected: dict[str, bytes], tmp_path: Path, victim: str, moment: str
) -> None:
    nodes = [cluster.add_node(num_cpus=1, object_store_memory=STORE) for _ in range(2)]
    out = tmp_path / "out"
    process = drive(corpus, out, cluster.address)
    when(moment, out, process)
    if victim == "worker":
        for pid in [pid for node in nodes for pid in workers(node)][:1]:
            os.kill(pid, signal.SIGKILL)
    elif victim == "node":
        cluster.remove_node(nodes.pop(), allow_graceful=False)
    else:
        process.kill()
        process.communicate()
        process = drive(corpus, out, cluster.address)
    _, message = process.communicate(timeout=280)
    for node in nodes:
        cluster.remove_node(node)
    assert process.returncode == 0, message.decode()
    assert tree(out) == expected


@pytest.mark.slow
def test_after_a_new_head_the_build_goes_on_from_its_files(
    corpus: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = head()
    first.add_node(num_cpus=1, object_store_memory=STORE)
    process = drive(corpus, out, first.address)
    when(".build/facts/*.parquet", out, process)
    facts = {path.name: path.stat().st_mtime_ns for path in (out / ".build/facts").glob("*.parquet")}
    first.shutdown()  # SIGKILL to everything; the driver of a cluster that is gone ends by itself, or is ended
    process.kill()
    process.communicate()
    second = head()
    try:
        second.add_node(num_cpus=1, object_store_memory=STORE)
        process = drive(corpus, out, second.address)
        when("matches.parquet", out, process)
        assert (
            facts.items()
            <= {path.name: path.stat().st_mtime_ns for path in (out / ".build/facts").glob("*.parquet")}.items()
        )
        _, message = process.communicate(timeout=280)
        assert process.returncode == 0, message.decode()
    finally:
        second.shutdown()
    assert tree(out) == expected


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
def test_a_cluster_without_cpus_is_spoken_of_and_waited_for(
    cluster: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ray_jobs.runner.PATIENCE_S", 1.0)
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
from ray_jobs.runner import RayRunner
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

    runner = RayRunner(cluster.address)
    progress = Progress("proof", 100, "clips", runner.watch)  # a stage that no other driver of the cluster has
    progress.add(40, failed=3)
    ports = [node["MetricsExportPort"] for node in ray.nodes() if node["Alive"]]
    wanted = {"earshot_done": "40.0", "earshot_total": "100.0", "earshot_failed": "3.0", "earshot_rate": ""}

    def shown(name: str) -> list[str]:
        texts = (urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode() for port in ports)
        lines = [line for text in texts for line in text.splitlines() if 'stage="proof"' in line]
        return [line for line in lines if line.startswith(f"ray_{name}{{") and line.endswith(wanted[name])]

    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and not all(shown(name) for name in wanted):
        time.sleep(1)
    assert all(shown(name) for name in wanted)
