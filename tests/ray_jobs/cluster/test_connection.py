from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ray_jobs.cluster.connection import connect, refuse_relative, without_worker
from ray_jobs.cluster.local_cluster import local_cluster
from sharding.common.errors import InputError
from tests.conftest import REPOSITORY


def test_relative_folders_are_fine_outside_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    refuse_relative("--run", "run")
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(InputError, match="--run is relative"):
        refuse_relative("--run", "run")


def test_an_address_at_which_no_cluster_answers_is_named() -> None:
    with pytest.raises(InputError, match="no Ray cluster answers") as caught:
        connect("nowhere")
    assert caught.value.value == "nowhere"


def test_a_machine_on_which_ray_does_not_start_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    own = "from ray_jobs.cluster.connection import connect\nconnect('local')"
    environment = os.environ | {"RAY_TMPDIR": str(tmp_path / "taken")}  # Ray's own variable for its folder
    command = [sys.executable, "-c", own]
    found = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=60)
    assert "InputError: Ray did not start on this machine" in found.stderr and "remedy" in found.stderr


@pytest.mark.slow
def test_a_cluster_of_its_own_is_started_beside_another_one(tmp_path: Path) -> None:
    own = "from ray_jobs.cluster.connection import connect\nconnect('local')\nimport ray\n"
    own += "print('nodes', [node['NodeManagerAddress'] for node in ray.nodes()])"
    with local_cluster(1, tmp_path / "ray.log"):
        found = subprocess.run([sys.executable, "-c", own], cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert found.stdout.splitlines()[-1:] == ["nodes ['127.0.0.1']"], found.stderr


LINES = """
from ray_jobs.cluster.connection import connect
connect("local", 3)
import ray, time
def say(number):
    for step in range(1, 4):
        print(f"steps {step}/3  run {number}", flush=True)
        time.sleep(1)
ray.get([ray.remote(num_cpus=1)(say).remote(number) for number in range(3)])
time.sleep(2)
"""


@pytest.mark.slow
def test_every_line_of_workers_that_say_nearly_the_same_is_shown() -> None:
    found = subprocess.run(
        [sys.executable, "-c", LINES], cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=True
    )
    said = [without_worker(line) for line in (found.stdout + found.stderr).splitlines() if "steps" in line]
    assert sorted(said) == sorted(f"steps {step}/3  run {number}" for number in range(3) for step in range(1, 4))
