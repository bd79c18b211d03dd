"""Builds over real raylets: the same bytes as on one machine, whatever is killed in the middle."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sharding.build.run import build
from sharding.common.runners import LocalRunner
from tests.conftest import REPOSITORY
from tests.ray_jobs.conftest import STORE, head
from tests.ray_jobs.killing import kill, when
from tests.sharding.conftest import settings_for
from tests.sharding.corpora import tree, write_corpus


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
from ray_jobs.cluster.runner import RayRunner
from sharding.build.run import build
from sharding.dedup import findings
from tests.sharding.conftest import settings_for
findings.LEAST_S = findings.SHARE = findings.JOIN_H = 0.0  # as if comparing took long
build(settings_for(Path(sys.argv[1])), sys.argv[2], RayRunner(sys.argv[3]))
"""


def drive(corpus: Path, out: Path, address: str) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    arguments = [sys.executable, "-c", DRIVER, str(corpus), str(out), address]
    return subprocess.Popen(arguments, cwd=REPOSITORY, env=environment, stderr=subprocess.PIPE)


@pytest.mark.slow
@pytest.mark.parametrize(
    "moment", [".build/packs/*", ".build/facts/*.parquet", ".build/matching/*/found-*", ".build/plan.json"]
)
@pytest.mark.parametrize("victim", ["worker", "node", "driver"])
def test_whatever_is_killed_the_build_has_the_same_bytes(
    cluster: Any, corpus: Path, expected: dict[str, bytes], tmp_path: Path, victim: str, moment: str
) -> None:
    nodes = [cluster.add_node(num_cpus=1, object_store_memory=STORE) for _ in range(2)]
    out = tmp_path / "out"
    process = drive(corpus, out, cluster.address)
    when(moment, out, process)
    process = kill(victim, cluster, nodes, process, lambda: drive(corpus, out, cluster.address))
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
