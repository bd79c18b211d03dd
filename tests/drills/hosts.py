"""Hosts of a small network on one machine: network namespaces, each a node of Ray with its own address and folders."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

NETWORK = "10.83.77"
STORE = 100 << 20  # bytes of each node's object store


class Host:
    """A host: a namespace with one link to the others.

    Attributes:
        number: from 0, the head.
        address: its own.
    """

    def __init__(self, number: int, folder: Path) -> None:
        self.number, self.address = number, f"{NETWORK}.{10 + number}"
        self.space, self._link = f"earshot{number}", f"eh{number}"
        self._folder, self._node = folder, None
        _ip("netns", "add", self.space)
        _ip("link", "add", self._link, "type", "veth", "peer", "name", "eth0", "netns", self.space)
        _ip("link", "set", self._link, "master", "ehbr", "up")
        for command in (
            f"addr add {self.address}/24 dev eth0",
            "link set eth0 up",
            "link set lo up",
            f"route add default via {NETWORK}.1",
        ):
            _ip("-n", self.space, *command.split())

    _node: subprocess.Popen[bytes] | None

    def start(self, cpus: int, environment: dict[str, str]) -> None:
        """Start a node of Ray there."""
        scratch = self._folder / f"h{self.number}"
        scratch.mkdir(parents=True, exist_ok=True)
        command = ["ip", "netns", "exec", self.space, sys.executable, "-m", "ray.scripts.scripts", "start", "--block"]
        command += [f"--node-ip-address={self.address}", f"--num-cpus={cpus}", "--num-gpus=0", "--disable-usage-stats"]
        command += [f"--object-store-memory={STORE}", f"--temp-dir={scratch}"]
        if self.number == 0:
            command += ["--head", "--port=6379", f"--dashboard-host={self.address}", "--include-dashboard=true"]
        else:
            command += [f"--address={NETWORK}.10:6379"]
        log = (scratch / "ray.log").open("wb")
        self._node = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )

    def kill(self) -> None:
        """The host loses its power: every process of its namespace ends at once."""
        found = subprocess.run(["ip", "netns", "pids", self.space], capture_output=True, text=True, check=False)
        for pid in found.stdout.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        if self._node is not None:
            self._node.wait()
            self._node = None

    def cut(self) -> None:
        """Take the host's link away."""
        _ip("link", "set", self._link, "down")

    def mend(self) -> None:
        """Put the link back."""
        _ip("link", "set", self._link, "up")

    def delay(self, milliseconds: int) -> None:
        """Let every packet to the host wait; nothing happens where the kernel has no netem."""
        command = ["tc", "qdisc", "replace", "dev", self._link, "root", "netem", "delay", f"{milliseconds}ms"]
        subprocess.run(command, capture_output=True, check=False)

    def remove(self) -> None:
        self.kill()
        subprocess.run(["ip", "netns", "del", self.space], capture_output=True, check=False)


def permitted() -> bool:
    """Whether this process may make network namespaces, and has the programs for it."""
    if shutil.which("ip") is None or shutil.which("tc") is None:
        return False
    made = subprocess.run(["ip", "netns", "add", "earshot-probe"], capture_output=True, check=False)
    subprocess.run(["ip", "netns", "del", "earshot-probe"], capture_output=True, check=False)
    return made.returncode == 0


@contextlib.contextmanager
def network(count: int, folder: Path) -> Iterator[list[Host]]:
    """Hosts that reach each other and this process, at ``NETWORK``.1."""
    hosts: list[Host] = []
    _ip("link", "add", "ehbr", "type", "bridge")
    try:
        _ip("addr", "add", f"{NETWORK}.1/24", "dev", "ehbr")
        _ip("link", "set", "ehbr", "up")
        for number in range(count):
            hosts.append(Host(number, folder))
        yield hosts
    finally:
        for host in hosts:
            host.remove()
        subprocess.run(["ip", "link", "del", "ehbr"], capture_output=True, check=False)


def wait_for_nodes(count: int, patience_s: float = 240) -> str:
    """The dashboard's address, once the cluster has so many nodes that live."""
    address, deadline = f"http://{NETWORK}.10:8265", time.monotonic() + patience_s
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError):
            with urllib.request.urlopen(f"{address}/nodes?view=summary", timeout=5) as answer:
                alive = answer.read().count(b'"state": "ALIVE"')
            if alive >= count:
                return address
        time.sleep(1)
    raise AssertionError(f"the cluster did not have {count} nodes within {patience_s:.0f} s")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
