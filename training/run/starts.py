"""When a run was started and how each start ended: on what machines, with which software, from which data.

``starts.jsonl`` in the folder of a run has a line for each event, ``what`` being

- ``start``: the step from which it went on, ranks, devices, versions, and what it draws from;
- ``end``: the step that it reached, and the error that ended it, or null; ``by`` says who ended it where it did not
  fail: ``sweep`` or ``user``;
- ``lost``: written by the next start where a process ended without a word; its time is that of its last step.

Times are seconds since 1970.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from sharding.common.machine import cpu
from sharding.common.storage import Storage
from training.run.log import METRICS, json_lines, read_records
from training.run.training_run import TrainingRun

STARTS = "starts.jsonl"
_PACKAGES = ("earshot", "torch", "deepspeed", "transformers")


class StoppedEarly(SystemExit):
    """A sweep ends this run before its last step; the message says why."""


@contextlib.contextmanager
def noted(run: TrainingRun) -> Iterator[None]:
    """Note the start of a run, and its end, however it ends; every rank calls this."""
    machines = run.group.gather_objects(_machine(run.engine.device), "machines")
    if not run.is_first_rank:
        yield
        return
    _note_lost(run.folder)
    _add(run.folder, _start(run, machines))
    try:
        yield
    except BaseException as error:
        words = "it was interrupted" if isinstance(error, KeyboardInterrupt) else str(error) or type(error).__name__
        by = "sweep" if isinstance(error, StoppedEarly) else "user" if isinstance(error, KeyboardInterrupt) else None
        with contextlib.suppress(OSError):  # the error that ended the run counts, such as that of a full disk
            if (run.folder / STARTS).exists():  # else the run's folder has vanished, and is not made again
                _add(run.folder, _end(run, words) | ({} if by is None else {"by": by}))
        raise
    _add(run.folder, _end(run, None))


def _start(run: TrainingRun, machines: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "what": "start",
        "at": time.time(),
        "step": run.engine.steps_taken,
        "steps": run.steps,
        "steps_per_epoch": run.order.steps_per_epoch,
        "ranks": run.group.size,
        "hosts": len({each["host"] for each in machines}),
        "devices": dict(Counter(each["device"] for each in machines)),
        "gpus": sum(each["gpu"] for each in machines),
        "cores": machines[0]["cores"],
        "memory_bytes": machines[0]["memory_bytes"],
        "versions": {"python": platform.python_version()} | _versions(),
        "trained": run.trained_count(),
        "data": _data(run),
    }


def _end(run: TrainingRun, error: str | None) -> dict[str, Any]:
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
    found = {"what": "end", "at": time.time(), "step": run.engine.steps_taken, "error": error}
    return found | ({} if peak is None else {"gpu_peak_bytes": peak})


def _machine(device: torch.device) -> dict[str, Any]:
    """What this rank computes on."""
    on_gpu = device.type == "cuda"
    return {
        "host": socket.gethostname(),
        "device": torch.cuda.get_device_name(device) if on_gpu else cpu(),
        "gpu": on_gpu,
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _data(run: TrainingRun) -> dict[str, Any]:
    """What the run draws from."""
    return {
        "plan": run.manifest.dataset.get("plan"),
        "samples": run.manifest.table.num_rows,
        "unit": run.task.unit,
        "train": [
            {"split": item.split, "captions": list(item.captions), "clips": clips, "draws": draws}
            for item, (clips, draws) in zip(run.recipe.data.train, run.order.items(), strict=True)
        ],
    }


def _note_lost(folder: Path) -> None:
    """Note the end of a start that did not note it itself."""
    events = read_starts(Storage(folder))
    if events and events[-1]["what"] == "start":
        last = read_records(folder / METRICS)[-1:]
        step = last[0]["step"] + 1 if last else events[-1]["step"]
        at = last[0].get("time") if last else None
        _add(folder, {"what": "lost", "at": max(at or 0.0, events[-1]["at"]), "step": step})


def read_starts(storage: Storage) -> list[dict[str, Any]]:
    """The events of a run, oldest first; none for a run of an earlier version."""
    if not storage.exists(STARTS):
        return []
    return [each for each in json_lines(storage.read(STARTS)) if {"what", "at", "step"} <= each.keys()]


def _add(folder: Path, event: dict[str, Any]) -> None:
    """Add an event; the file is whole before and after."""
    events = [*read_starts(Storage(folder)), event]
    Storage(folder).write(STARTS, "".join(json.dumps(each) + "\n" for each in events).encode())
