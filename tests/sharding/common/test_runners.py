from __future__ import annotations

import gc
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
import pytest

from sharding.common.errors import InputError
from sharding.common.runners import LocalRunner
from tests.conftest import REPOSITORY


def double(number: int) -> int:
    return 2 * number


def fail_at_three(number: int) -> int:
    if number == 3:
        raise InputError("three is too many", value=number)
    return number


def die_once(task: tuple[int, str]) -> int:
    number, flag = task
    if number == 4 and not Path(flag).exists():
        Path(flag).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def die_always(number: int) -> int:
    if number == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.parametrize("workers", [1, 2])
def test_every_item_gives_one_result(workers: int) -> None:
    assert sorted(LocalRunner(workers).map(double, (n for n in range(30)))) == [2 * n for n in range(30)]
    assert list(LocalRunner(workers).map(double, [])) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_the_work_comes_through(workers: int) -> None:
    with pytest.raises(InputError, match="three is too many"):
        list(LocalRunner(workers).map(fail_at_three, range(10)))


def test_items_are_taken_only_a_few_ahead() -> None:
    taken = []

    def items() -> object:
        for number in range(100):
            taken.append(number)
            yield number

    results = LocalRunner(2).map(double, items())  # type: ignore[arg-type]
    next(results)
    assert len(taken) <= 8
    results.close()  # type: ignore[attr-defined]


def test_a_worker_that_dies_costs_nothing(tmp_path: Path) -> None:
    tasks = [(number, str(tmp_path / "flag")) for number in range(12)]
    assert sorted(LocalRunner(2).map(die_once, tasks)) == list(range(12))


def test_workers_that_keep_dying_end_in_a_clear_error() -> None:
    with pytest.raises(InputError, match="keep dying"):
        list(LocalRunner(2).map(die_always, range(12)))


BUILDER = """
import os, sys, time
from sharding.common.runners import LocalRunner
def work(folder):
    open(f"{folder}/{os.getpid()}", "w").close()
    time.sleep(60)
if __name__ == "__main__":
    list(LocalRunner(2).map(work, [sys.argv[1]] * 4))
"""


def test_no_worker_outlives_a_killed_builder(tmp_path: Path) -> None:
    script, pids = tmp_path / "builder.py", tmp_path / "pids"
    script.write_text(BUILDER)
    pids.mkdir()
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    builder = subprocess.Popen([sys.executable, str(script), str(pids)], env=environment)
    deadline = time.monotonic() + 60
    while len(list(pids.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    workers = [int(path.name) for path in pids.iterdir()]
    assert len(workers) == 2
    builder.kill()
    builder.wait()
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


def pid_of(number: int) -> int:
    time.sleep(0.05)
    return os.getpid()


def test_the_same_processes_serve_until_the_runner_is_gone() -> None:
    runner = LocalRunner(2)
    first = set(runner.map(pid_of, range(8)))
    assert set(runner.map(pid_of, range(8))) == first and os.getpid() not in first
    with pytest.raises(InputError):
        list(runner.map(fail_at_three, range(10)))
    later = set(runner.map(pid_of, range(8)))
    assert later and not later & first
    del runner
    gc.collect()  # the error above knows the frames in which it was raised
    assert not any(Path(f"/proc/{pid}").exists() for pid in first | later)


def test_who_interrupts_does_not_wait_for_what_is_under_way() -> None:
    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    former = signal.signal(signal.SIGALRM, interrupt)
    runner = LocalRunner(2)
    try:
        list(runner.map(double, range(4)))  # the workers are there
        workers = [each for each in psutil.Process().children() if "spawn_main" in " ".join(each.cmdline())]
        signal.setitimer(signal.ITIMER_REAL, 1.0)
        begun = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            list(runner.map(time.sleep, [100.0] * 4))
        assert time.monotonic() - begun < 60
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
    assert workers and all(not each.is_running() or each.status() == psutil.STATUS_ZOMBIE for each in workers)
    assert sorted(runner.map(double, range(4))) == [0, 2, 4, 6]


def test_an_interruption_at_any_line_leaves_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for line in itertools.count():
        interrupted = _interrupt_at(line)
        assert not list(tmp_path.iterdir()), line
        if not interrupted:
            break
    assert line > 20


def _interrupt_at(at: int) -> bool:
    """Begin work, and interrupt it before the line of that number.  False where it has fewer lines."""
    lines = itertools.count()

    def nothing() -> Iterator[int]:
        sys.settrace(None)
        yield from ()

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        if event == "line" and next(lines) == at:
            sys.settrace(None)
            raise KeyboardInterrupt
        return trace

    runner: LocalRunner = LocalRunner(workers=2)
    try:
        sys.settrace(trace)
        list(runner._spread(double, nothing(), {}))
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(None)
    return False
