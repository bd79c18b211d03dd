"""Builds on several hosts: the same bytes, whatever dies in the middle."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from tests.drills.hosts import Host
from tests.drills.jobs import DRILL, Job, building
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
