"""The bench of jobs runs in its quick form."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY


@pytest.mark.slow
def test_a_job_builds_and_trains_as_the_local_command_does() -> None:
    command = [sys.executable, "-m", "bench.cluster", "--quick"]
    done = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert set(found) == {"build, 1 nodes: clips", "training, 1 rank: clips"}
    assert all(ratio > 0 for ratio in found.values())
