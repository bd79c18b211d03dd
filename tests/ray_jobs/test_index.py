"""An index over real raylets: the same bytes as on one machine, whatever is killed in the middle."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY
from tests.ray_jobs.conftest import STORE
from tests.ray_jobs.killing import kill, when
from tests.training.search.indexes import exported, untrained
from tests.training.small_runs import write_sounds

WINDOWS = ("--window", "0.2", "--hop", "0.03")  # so many that they are several tasks


def command(root: Path, out: Path, *more: str) -> list[str]:
    model, shards = str(root / "model"), str(root / "build")
    return [model, "--shards", shards, "--out", str(out), *WINDOWS, *more]


def start(arguments: list[str]) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}  # as Ray's workers have it
    return subprocess.Popen([sys.executable, *arguments], cwd=REPOSITORY, env=environment, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes]) -> None:
    _, message = process.communicate(timeout=600)
    assert process.returncode == 0, message.decode()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != ".lock"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build, an export, and the index that one process makes of them."""
    root = tmp_path_factory.mktemp("indexed")
    write_sounds(root / "build")
    exported(untrained([]), root / "model")
    finish(start(["-m", "training", "index", *command(root, root / "index")]))
    return root


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("victim", ["worker", "node", "driver"])
def test_whatever_is_killed_the_index_has_the_same_bytes(cluster: Any, root: Path, tmp_path: Path, victim: str) -> None:
    nodes = [cluster.add_node(num_cpus=1, object_store_memory=STORE) for _ in range(2)]
    arguments = ["ray_jobs/command.py", "index", *command(root, tmp_path / "index", "--address", cluster.address)]
    process = start(arguments)
    when("parts/[!.]*.safetensors", tmp_path / "index", process)
    process = kill(victim, cluster, nodes, process, lambda: start(arguments))
    finish(process)
    for node in nodes:
        cluster.remove_node(node)
    assert contents(tmp_path / "index") == contents(root / "index")
