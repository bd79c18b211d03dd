from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ray_jobs.connection import refuse_relative
from sharding.common.errors import InputError
from tests.conftest import REPOSITORY


def test_relative_folders_are_fine_outside_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    refuse_relative("--run", "run")
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(InputError, match="--run is relative"):
        refuse_relative("--run", "run")


def test_an_address_at_which_no_cluster_answers_is_named() -> None:
    command = [sys.executable, "-m", "earshot", "verify", "/nowhere", "--ray=127.0.0.1:1"]
    environment = os.environ | {"RAY_raylet_start_wait_time_s": "5", "RAY_gcs_rpc_server_connect_timeout_s": "1"}
    found = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=120)
    assert found.returncode == 2
    assert "Traceback" not in found.stderr
