"""Checkpoints under schedules of faults: what was saved is never lost, on a disk or in an object store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sharding.common.errors import InputError
from sharding.common.storage.cache import Cache
from tests.simulation.disk import SimulatedDisk
from tests.simulation.faults import ATTEMPTS, Crash, Schedule
from tests.simulation.store import SimulatedStore
from training.config.sections import CheckpointSettings
from training.engine import checkpoint
from training.engine.remote import RemoteRun

STEPS, SEEDS = 4, 40
RULE = CheckpointSettings(keep_last=1, keep_best=1)


def save(folder: Path, step: int) -> Path:
    tensors = {"weight": torch.full((8,), float(step))}
    state = {"validation": {"score": float(-step)}}
    return checkpoint.save(folder / "checkpoints", step, tensors, {"exp_avg": tensors}, state)


def check(found: checkpoint.Checkpoint | None, saved: int, schedule: Schedule) -> int:
    """The step from which a new process goes on: no earlier one than the last that was saved."""
    step = 0 if found is None else found.step
    assert step >= saved, f"{schedule}: step {saved} was saved, and {step} is the newest"
    assert found is None or torch.equal(found.model()["weight"], torch.full((8,), float(step))), str(schedule)
    return step


def run(
    schedule: Schedule, go_on: Callable[[int], None], newest: Callable[[int], int], crash: Callable[[], None]
) -> None:
    """Save all steps, in as many processes as it takes.

    Args:
        schedule: the faults.
        go_on: saves one step.
        newest: the step of the newest checkpoint, checked against the step that was saved last.
        crash: what a crash leaves.
    """
    saved = 0
    for _ in range(ATTEMPTS):
        try:
            for step in range(newest(saved) + 1, STEPS + 1):
                go_on(step)
                saved = step
            return
        except Crash:
            schedule.revive()
            crash()
        except InputError as error:
            assert "a fault of the simulation" in str(error), str(schedule)
    raise AssertionError(f"{schedule}: not finished in {ATTEMPTS} attempts")


def test_on_a_disk_that_loses_what_was_not_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk, root = SimulatedDisk(tmp_path / "run", monkeypatch), tmp_path / "run"
    operations = 0
    for seed in range(-1, SEEDS):
        schedule = Schedule(seed, operations)
        disk.reset(None, schedule)

        def go_on(step: int) -> None:
            save(root, step)
            checkpoint.prune(root / "checkpoints", RULE, "score")

        def newest(saved: int, schedule: Schedule = schedule) -> int:
            return check(checkpoint.newest(root / "checkpoints")[0], saved, schedule)

        run(schedule, go_on, newest, disk.fail_power)
        operations = schedule.count
        assert {path.name for path in checkpoint.steps(root / "checkpoints")} >= {"step-000000001", "step-000000004"}


def test_a_run_in_an_object_store_continues_on_another_machine_after_each_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sharding.common.storage.failures.PAUSE_S", 0.0)
    monkeypatch.setattr(SimulatedStore, "objects", {})
    monkeypatch.setattr(SimulatedStore, "schedule", None)
    operations = 0
    for seed in range(-1, SEEDS):
        schedule = Schedule(seed, operations)
        SimulatedStore.objects.clear()
        SimulatedStore.schedule = schedule
        machines = [Cache(tmp_path / f"{seed} 0", 10**9)]

        def remote(machines: list[Cache] = machines) -> RemoteRun:
            with machines[-1].hold("run") as copy:
                return RemoteRun("sim://bucket/run", copy)

        def go_on(step: int, remote: Callable[[], RemoteRun] = remote) -> None:
            remote().publish_checkpoint(save(remote().folder, step), RULE, "score")

        def newest(saved: int, remote: Callable[[], RemoteRun] = remote, schedule: Schedule = schedule) -> int:
            name = remote().pull()
            found = None if name is None else checkpoint.load(remote().folder / "checkpoints" / name)
            return check(found, saved, schedule)

        def crash(machines: list[Cache] = machines, seed: int = seed) -> None:
            machines.append(Cache(tmp_path / f"{seed} {len(machines)}", 10**9))

        run(schedule, go_on, newest, crash)
        operations = schedule.count
        SimulatedStore.schedule = None
        assert {*remote().steps()} >= {"step-000000001", "step-000000004"}, str(schedule)  # the best, and the last
