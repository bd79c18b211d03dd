"""``cluster.yaml`` is one that Ray's own checks accept."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.conftest import REPOSITORY


@pytest.fixture
def cluster() -> dict[str, Any]:
    return yaml.safe_load((REPOSITORY / "cluster.yaml").read_text())


def test_ray_accepts_the_cluster_file(cluster: dict[str, Any]) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(cluster))


def test_the_cluster_installs_what_is_locked_and_ray_from_there(cluster: dict[str, Any]) -> None:
    assert cluster["file_mounts"]["~/earshot/requirements.lock"] == "./requirements.lock"
    assert any("requirements.lock" in command for command in cluster["setup_commands"])
    for command in (*cluster["head_start_ray_commands"], *cluster["worker_start_ray_commands"]):
        assert "~/earshot/.venv/bin/ray" in command
