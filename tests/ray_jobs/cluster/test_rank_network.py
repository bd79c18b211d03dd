from __future__ import annotations

import os

import pytest

os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")  # Ray reads it when it is imported

from ray_jobs.cluster.rank_network import interface_of

INTERFACES = {
    "lo": ["127.0.0.1", "::1", "00:00:00:00:00:00"],
    "eno1": ["192.168.1.20", "fe80::1%eno1"],  # the office
    "ib0": ["10.4.0.20", "fd00::20"],  # what the nodes talk over
}


@pytest.mark.parametrize(
    ("address", "interface"),
    [("10.4.0.20", "ib0"), ("192.168.1.20", "eno1"), ("fd00::20", "ib0"), ("fe80::1", "eno1"), ("203.0.113.5", None)],
)
def test_ranks_use_the_interface_that_has_the_nodes_address(address: str, interface: str | None) -> None:
    assert interface_of(address, INTERFACES) == interface
