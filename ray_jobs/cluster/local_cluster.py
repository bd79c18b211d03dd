"""A Ray cluster of one machine with a job server, for the demo and for trying things out."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ray_jobs.cluster.connection import LOCAL_ENVIRONMENT, tells_progress, without_worker
from sharding.common.errors import InputError
from sharding.common.terminal import printable

START_TIMEOUT_S = 300
_CODE = Path(__file__).resolve().parents[2]
# `ray start`, which ends Ray's other processes when it gets SIGTERM; also where this process is killed
_START = """
import runpy, signal
from sharding.common.processes import die_with_parent
die_with_parent(signal.SIGTERM)
runpy.run_module("ray.scripts.scripts", run_name="__main__", alter_sys=True)
"""
_NO_AGENT = "No available agent to submit job"


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment() -> dict[str, str]:
    """The environment of Ray's processes; `python` in a job is the interpreter that has Earshot's packages."""
    return (
        os.environ
        | LOCAL_ENVIRONMENT
        | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
            "RAY_AUTH_MODE": "disabled",  # the cluster listens on loopback only, and ends with this process
            "RAY_DASHBOARD_STARTUP_TIMEOUT_S": str(START_TIMEOUT_S),  # by default 60, too few for a busy machine
            "RAY_task_oom_retries": "3",  # by default there is no limit
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",  # its jobs have ended: nothing is worth waiting for
            "PYTHONUNBUFFERED": "1",
        }
    )


@contextmanager
def local_cluster(cpus: int, log: Path) -> Iterator[str]:
    """Start Ray with a job server on the loopback address; yield the server's address; stop Ray.

    Args:
        cpus: logical CPUs of the node.
        log: the file to which Ray's output goes.

    Raises:
        InputError: the job server did not answer in time.
    """
    port = free_port()
    log.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="ray") as scratch, log.open("w") as out:
        command = [
            *(sys.executable, "-c", _START, "start", "--head", "--block", "--port=0"),
            "--node-ip-address=127.0.0.1",
            *(f"--num-cpus={cpus}", "--num-gpus=0", "--include-dashboard=true", "--disable-usage-stats"),
            *(f"--dashboard-port={port}", f"--temp-dir={scratch}", f"--object-store-memory={200 << 20}"),
            # another cluster on this machine may use the default ports
            *(f"--dashboard-agent-listen-port={free_port()}", f"--ray-client-server-port={free_port()}"),
        ]
        head = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, cwd=_CODE, env=environment(), start_new_session=True
        )
        try:
            address = f"http://127.0.0.1:{port}"
            _wait_for(address, head, log)
            yield address
        finally:
            _end(head)


def _wait_for(address: str, head: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and head.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/api/version", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    raise InputError("Ray did not start", file=log, remedy="read the log; check that memory and disk space are left")


def _end(head: subprocess.Popen[bytes]) -> None:
    """Ask Ray to stop, then kill what is left of this head's own session."""
    head.terminate()
    with suppress(subprocess.TimeoutExpired):
        head.wait(timeout=20)
    with suppress(ProcessLookupError):
        os.killpg(head.pid, signal.SIGKILL)
    head.wait()


def submit(address: str, working_dir: Path, command: Sequence[str], log: Path, show: bool = True) -> None:
    """``ray job submit`` a command and wait for its end.

    Args:
        address: the job server's address.
        working_dir: shipped to the cluster (what git ignores stays behind); the command runs in a copy.
        command: the entry point and its arguments; paths must be absolute.
        log: the file to which all output of the job goes.
        show: also print the job's own lines about progress and results.

    Raises:
        InputError: the job failed; names the log.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    command_line = [sys.executable, "-m", "ray.scripts.scripts", "job", "submit", "--address", address]
    command_line += ["--working-dir", str(working_dir), "--", *command]
    deadline = time.monotonic() + START_TIMEOUT_S
    while _run(command_line, log, show) != 0:
        # the job server answers before the node's agent, which starts jobs, has joined
        if _NO_AGENT not in log.read_text(encoding="utf-8") or time.monotonic() > deadline:
            raise InputError(f"the job {command[1]} failed", file=log, remedy="the log says why")
        time.sleep(1)


def _run(command_line: Sequence[str], log: Path, show: bool) -> int:
    """Run a command with its output in ``log``; returns its exit status."""
    with log.open("w", encoding="utf-8") as out:
        job = subprocess.Popen(
            command_line,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="backslashreplace",
            env=environment(),
        )
        assert job.stdout is not None
        last = ""
        for text in job.stdout:
            out.write(text)
            out.flush()
            line = without_worker(text)
            if show and tells_progress(line) and line != last:  # tracebacks stay in the log
                print(f"  {printable(line.strip())}", flush=True)
                last = line
        return job.wait()
