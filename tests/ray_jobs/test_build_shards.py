"""The same bytes over real raylets, also when one of them is killed in the middle."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ray_jobs.runner import RayRunner
from sharding.build import build
from sharding.errors import InputError
from sharding.runners import LocalRunner
from tests.sharding.conftest import settings_for
from tests.sharding.corpora import tree, write_corpus


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 100 << 20}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    yield cluster
    import ray

    ray.shutdown()
    cluster.shutdown()


@pytest.mark.slow
def test_ray_writes_the_same_bytes_and_survives_a_killed_node(cluster: Any, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", clips=150, seconds=2.0)
    build(settings_for(corpus), str(tmp_path / "local"), LocalRunner(1))
    node = cluster.add_node(num_cpus=1, object_store_memory=100 << 20)

    def lose() -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not list((tmp_path / "ray/.build/facts").glob("*.parquet")):
            time.sleep(0.05)
        cluster.remove_node(node, allow_graceful=False)

    killer = threading.Thread(target=lose)
    killer.start()
    build(settings_for(corpus), str(tmp_path / "ray"), RayRunner(cluster.address))
    killer.join()
    assert tree(tmp_path / "ray") == tree(tmp_path / "local")


@pytest.mark.slow
def test_tasks_whose_workers_die_are_tried_again_but_not_for_ever(cluster: Any, tmp_path: Path) -> None:
    folder = str(tmp_path)

    def die_once(number: int) -> int:
        import os
        import signal
        from pathlib import Path

        flag = Path(folder) / str(number)
        if number == 3 and not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    def die_always(number: int) -> int:
        import os
        import signal

        os.kill(os.getpid(), signal.SIGKILL)
        return number

    def fail(number: int) -> int:
        raise InputError("no such thing", value=number, remedy="choose another")

    runner = RayRunner(cluster.address)
    assert sorted(runner.map(die_once, iter(range(6)))) == list(range(6))
    with pytest.raises(InputError, match="died 4 times"):
        list(runner.map(die_always, [1]))
    with pytest.raises(InputError, match="no such thing") as caught:
        list(runner.map(fail, [7]))
    assert caught.value.value == 7
