"""Joining a Ray cluster, from a job of that cluster or from outside."""

from __future__ import annotations

import argparse
import logging
import os
import re
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sharding.common.errors import InputError

# Ray reads these when it is imported, and its workers inherit them.
ENVIRONMENT = {
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # a `uv run` hook would rebuild the environment on every worker
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # it would log every line a second time
    # it would print an error about itself in every run, and warn ranks that a node is about to go, which none asks for;
    # a rank that ends with such a node counts as preempted all the same
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_DEDUP_LOGS": "0",  # else it withholds lines that differ in numbers alone, such as the steps of several runs
    "RAY_COLOR_PREFIX": "0",  # a job's output is a file
}
# For a cluster of this machine alone.  With Ray's clusters off, every server listens on the loopback address only;
# the address that `ray start` is given is not enough, because it replaces 127.0.0.1 with the machine's own.
LOCAL_ENVIRONMENT = ENVIRONMENT | {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}
LABEL = "earshot"  # of nodes: what they are for
_PACKAGES = ("sharding", "training", "ray_jobs")
_WORKER = re.compile(r"^(\x1b\[\d+m)*\(\w+ pid=[^)]*\)(\x1b\[\d+m)* ")  # jobs of earlier versions have colours
# sentences and lines of `Progress`, counts of a summary, lines of `StatusLine` and of validations; none of a traceback
_PROGRESS = re.compile(r"  (?!File |\[|[|+] )\S|  +\d+ \w+: |\S.*? \d+/\d+  |step \d+: ")
_TALKATIVE = ("botocore", "aiobotocore", "boto3", "s3transfer", "urllib3", "asyncio")


def connect(address: str, workers: int = 1, show_workers: bool = True) -> None:
    """Join the cluster at ``address`` unless this process belongs to one already.

    Args:
        address: ``auto``: the cluster that this process runs on, or that was started on this machine.  ``local``:
            start one in this process, with at least ``workers`` CPUs.
        workers: see above.
        show_workers: whether what the cluster's workers print appears in this process.

    Raises:
        InputError: no cluster answers.
    """
    os.environ.update(LOCAL_ENVIRONMENT if address == "local" else ENVIRONMENT)
    import ray

    if ray.is_initialized():
        return
    options: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": show_workers}
    if not is_job():  # a job's working directory was shipped by `ray job submit`
        code = Path(__file__).resolve().parents[2]
        options["runtime_env"] = {"py_modules": [str(code / package) for package in _PACKAGES]}
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.ERROR)
    with _own_sigterm():
        if address == "local":
            options |= {"num_cpus": max(workers, os.cpu_count() or 1), "include_dashboard": False}
        try:
            ray.init(address=address, **options)
        except (ConnectionError, ValueError) as error:  # nobody answers, or it is no address
            raise InputError("no Ray cluster answers", value=address, remedy="`ray start --head` starts one") from error
        except Exception as error:  # Ray has no class of its own for this
            if address != "local":
                raise
            remedy = "check that memory and disk are left, and start again when the machine is less busy"
            raise InputError(f"Ray did not start on this machine: {error}", remedy=remedy) from error


def resources_of(nodes: str | None) -> dict[str, float]:
    """The resources of the cluster's nodes whose label ``earshot`` is ``nodes``; None: of all nodes."""
    import ray

    if nodes is None:
        return dict(ray.cluster_resources())
    found: Counter[str] = Counter()
    for node in ray.nodes():
        if node["Alive"] and node.get("Labels", {}).get(LABEL) == nodes:
            found.update(node["Resources"])
    return dict(found)


def selector(nodes: str | None) -> dict[str, str] | None:
    """Options for Ray that say on which nodes something may run."""
    return None if nodes is None else {LABEL: nodes}


def add_nodes(parser: argparse.ArgumentParser) -> None:
    """``--nodes``."""
    parser.add_argument(
        "--nodes",
        metavar="NAME",
        help=f"run only on nodes whose label `{LABEL}` is NAME, such as those of cluster/aws.yaml (`ray start "
        f"--labels {LABEL}=NAME` labels a node)",
    )


def is_job() -> bool:
    """Whether this process was started by ``ray job submit``."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def tells_progress(line: str) -> bool:
    """Whether a line of a job's output, `without_worker`, is one of Earshot's about progress, failures or results."""
    return _PROGRESS.match(line) is not None


def without_worker(line: str) -> str:
    """A line of a job's output without the process and the node with which Ray begins it where a worker printed it."""
    return _WORKER.sub("", line)


def refuse_relative(option: str, path: str) -> None:
    """InputError where a job is to write to a relative path: that lies in Ray's copy of the code, which Ray deletes."""
    if is_job() and "://" not in path and not Path(path).expanduser().is_absolute():
        raise InputError(
            f"{option} is relative, which in a submitted job is a folder of Ray's own that Ray deletes later",
            value=path,
            remedy="give an absolute path on storage that every node sees, or s3://...",
        )


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep this program's handling of SIGTERM, with which `ray job stop` ends it: ``ray.init`` replaces it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    own = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, own)
