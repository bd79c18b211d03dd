"""Ray clusters of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

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
