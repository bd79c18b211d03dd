"""Over which network the ranks of a training job talk: that of the address by which Ray knows each node.

Without this, gloo takes the address that the host's own name resolves to.  On many hosts that is 127.0.1.1 or the
address of a network that the other hosts do not reach, and the ranks wait for each other until they give up.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from typing import Any

from ray.exceptions import RayActorError
from ray.train.torch import TorchConfig
from ray.train.torch.config import _TorchBackend

GLOO_INTERFACE = "GLOO_SOCKET_IFNAME"  # what gloo reads; nccl looks for the network by itself


class RankNetwork(TorchConfig):
    """Ray's settings of torch's process group, over the network that Ray itself uses."""

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        return _RankBackend


class _RankBackend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        worker_group.execute(_use_network_of_ray)  # before the ranks make the group
        super().on_start(worker_group, backend_config)

    def on_shutdown(self, worker_group: Any, backend_config: TorchConfig) -> None:
        with contextlib.suppress(RayActorError):  # a rank died, and `rank_failures` has reported it
            super().on_shutdown(worker_group, backend_config)


def _use_network_of_ray() -> None:
    """Name this node's interface to gloo, unless whoever runs the node has named one."""
    import psutil  # type: ignore[import-untyped]
    import ray

    interfaces = {name: [each.address for each in found] for name, found in psutil.net_if_addrs().items()}
    name = interface_of(ray.util.get_node_ip_address(), interfaces)
    if name is not None:
        os.environ.setdefault(GLOO_INTERFACE, name)


def interface_of(address: str, interfaces: Mapping[str, Iterable[str]]) -> str | None:
    """The interface that has an address; None if none has it, as behind a router that translates addresses.

    Args:
        address: the address of a node, as Ray knows it.
        interfaces: the addresses of each interface of the node; those of IPv6 may end with ``%`` and a zone.
    """
    for name, addresses in interfaces.items():
        if any(each.partition("%")[0] == address for each in addresses):
            return name
    return None
