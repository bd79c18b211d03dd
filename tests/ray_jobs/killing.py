"""Whatever of a cluster of this machine can be killed while a driver works on it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def when(pattern: str, out: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until a file of this name is below ``out``."""
    deadline = time.monotonic() + 240
    while not list(out.glob(pattern)):
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()[1].decode()
        time.sleep(0.01)


def workers(node: Any) -> list[int]:
    """Process ids of a node's worker processes that run a task."""
    raylet = node.all_processes["raylet"][0].process.pid
    children = Path(f"/proc/{raylet}/task/{raylet}/children").read_text().split()
    names = {int(pid): Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children}
    return [pid for pid, name in names.items() if name.startswith(b"ray::_apply")]


def kill(
    victim: str,
    cluster: Any,
    nodes: list[Any],
    process: subprocess.Popen[bytes],
    start: Callable[[], subprocess.Popen[bytes]],
) -> subprocess.Popen[bytes]:
    """Kill a worker that runs a task, a node, or the driver, which ``start`` starts again; the driver is returned."""
    if victim == "worker":
        for pid in [pid for node in nodes for pid in workers(node)][:1]:
            os.kill(pid, signal.SIGKILL)
    elif victim == "node":
        cluster.remove_node(nodes.pop(), allow_graceful=False)
    else:
        process.kill()
        process.communicate()
        process = start()
    return process
