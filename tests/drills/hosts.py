"""Hosts of a small network on one machine: network namespaces, each a node of Ray with its own address and folders."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.drills.leftovers import (
    disk_name,
    end_all,
    link_name,
    processes,
    remove_disk,
    remove_link,
    remove_space,
    space_name,
)

NETWORK = "10.83.77"
DASHBOARD = f"http://{NETWORK}.10:8265"
START_S = 300.0  # in which a cluster must have started
STORE = 100 << 20  # bytes of each node's object store
# `ray start` without the server for Ray's clients, which ends a node that takes long to start
_START = """
from ray.scripts import scripts
scripts.get_ray_client_dependency_error = lambda: ImportError("not needed here")
scripts.main()
"""
# A host has a name of its own, which no other host can resolve, as on many real clusters, and its own processes
_APART = ["unshare", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
_APART += ["sh", "-c", 'hostname "$0" && exec "$@"']


class Host:
    """A host: a namespace with one link to the others, and a node of Ray in it.

    Attributes:
        number: from 0, the head.
        address: its own.
        scratch: the temporary folder of its node.
        name: of its namespace, and its own.
    """

    def __init__(self, number: int, folder: Path) -> None:
        self.number, self.address, self.scratch = number, f"{NETWORK}.{10 + number}", folder / f"h{number}"
        self.name, self._link = space_name(number), link_name(number)
        self._node: subprocess.Popen[bytes] | None = None

    def connect(self) -> None:
        """Make the host, and its link."""
        _ip("netns", "add", self.name)
        _ip("link", "add", self._link, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        _ip("link", "set", self._link, "master", link_name("br"), "up")
        for command in (
            f"addr add {self.address}/24 dev eth0",
            "link set eth0 up",
            "link set lo up",
            f"route add default via {NETWORK}.1",
        ):
            _ip("-n", self.name, *command.split())

    def start(self, environment: Mapping[str, str]) -> None:
        """Start its node of Ray: with one CPU, or, of the head, with none."""
        self.mend()
        self.scratch.mkdir(parents=True, exist_ok=True)
        command = ["ip", "netns", "exec", self.name, *_APART, self.name, sys.executable, "-c", _START]
        command += ["start", "--block", "--disable-usage-stats", f"--node-ip-address={self.address}"]
        command += [f"--num-cpus={min(self.number, 1)}", "--num-gpus=0"]
        command += [f"--object-store-memory={STORE}", f"--temp-dir={self.scratch}"]
        if self.number == 0:
            command += ["--head", "--port=6379", f"--dashboard-host={self.address}", "--include-dashboard=true"]
        else:
            command += [f"--address={NETWORK}.10:6379"]
        with (self.scratch / "ray.log").open("ab") as log:
            self._node = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**environment, "EARSHOT_CACHE": str(self.scratch / "cache"), "TMPDIR": str(self.scratch)},
                start_new_session=True,
            )

    def runs(self) -> bool:
        """Whether its node of Ray was started and has not ended."""
        return self._node is not None and self._node.poll() is None

    def processes(self) -> dict[int, str]:
        """The command line of each of its processes."""
        lines = {}
        for pid in processes(self.name):
            with contextlib.suppress(OSError):
                lines[pid] = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        return lines

    def end(self, words: str, how: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal to those of its processes whose command line has these words; how many there were."""
        found = [pid for pid, line in self.processes().items() if words in line]
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, how)
        return len(found)

    def works(self) -> bool:
        """Whether one of its processes runs a task of a build."""
        return any(line.startswith("ray::_apply") for line in self.processes().values())

    def kill(self) -> None:
        """The host loses its power: it answers no packet any more, and all its processes end at once."""
        self.cut()
        self.stop()

    def stop(self) -> None:
        """End all processes of the host at once.  Their peers see that the connections close."""
        end_all(self.name)
        if self._node is not None:
            self._node.wait()
            self._node = None

    def cut(self) -> None:
        """Take the host's link away."""
        _ip("link", "set", self._link, "down")

    def mend(self) -> None:
        """Put the link back."""
        _ip("link", "set", self._link, "up")

    def remove(self) -> None:
        """End what runs there, and take host and link away, if they are there."""
        self.stop()
        remove_space(self.name)
        remove_link(self._link)


def permitted() -> bool:
    """Whether this process may make network namespaces, and has the programs for it."""
    if shutil.which("ip") is None or shutil.which("unshare") is None:
        return False
    space = space_name("probe")
    made = subprocess.run(["ip", "netns", "add", space], capture_output=True, check=False)
    remove_space(space)
    return made.returncode == 0


@contextlib.contextmanager
def network(count: int, folder: Path) -> Iterator[list[Host]]:
    """Hosts that reach each other and this process, at ``NETWORK``.1."""
    hosts, bridge = [Host(number, folder) for number in range(count)], link_name("br")
    try:
        _ip("link", "add", bridge, "type", "bridge")
        _ip("addr", "add", f"{NETWORK}.1/24", "dev", bridge)
        _ip("link", "set", bridge, "up")
        for host in hosts:
            host.connect()
        yield hosts
    finally:
        for host in hosts:
            host.remove()
        remove_link(bridge)


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[None]:
    """A disk of its own at a folder, in memory."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", disk_name(), str(folder)], check=True)
    try:
        yield
    finally:
        remove_disk(folder)


def start_all(hosts: Sequence[Host], environment: Mapping[str, str]) -> None:
    """Start those of the hosts that do not run, and return when the cluster has them and no others.

    On a busy machine Ray's processes may not find each other within Ray's patience of 30 s; then the node ends, and is
    started again.
    """
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if not hosts[0].runs():  # its nodes do not join a new head
            for host in hosts:
                host.kill()
            hosts[0].start(environment)
        for host in hosts[1:]:
            if not host.runs() and _count_nodes() > 0:
                host.kill()
                host.start(environment)
        if _count_nodes() == len(hosts) and all(host.runs() for host in hosts):
            return
        time.sleep(0.5)
    raise AssertionError(f"the cluster did not have {len(hosts)} nodes within {START_S:.0f} s")


def _count_nodes() -> int:
    """How many nodes of the cluster live; 0 while the head does not answer."""
    try:
        with urllib.request.urlopen(f"{DASHBOARD}/nodes?view=summary", timeout=5) as answer:
            return int(answer.read().count(b'"state": "ALIVE"'))
    except (OSError, ValueError, http.client.HTTPException):
        return 0


def _ip(*words: str) -> None:
    made = subprocess.run(["ip", *words], check=False, capture_output=True, text=True)
    assert made.returncode == 0, f"ip {' '.join(words)}: {made.stderr.strip()}"
