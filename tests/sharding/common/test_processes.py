from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.conftest import REPOSITORY

PROGRAM = """
import time
from sharding.common.processes import run_program
def main():
    try:
        print("ready", flush=True)
        time.sleep(60)
    except KeyboardInterrupt as interrupt:
        print("cleaned up", flush=True)
        return 128 + interrupt.args[0]
    return 7
run_program(main)
"""


def start(script: str, stderr: int | None = None, **environment: str) -> subprocess.Popen[str]:
    said = {name: value for name, value in os.environ.items() if name != "WORLD_SIZE"} | environment
    words = [sys.executable, "-c", script]
    return subprocess.Popen(words, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=stderr, text=True, env=said)


@pytest.mark.parametrize(
    ("environment", "status", "said"), [({}, 143, "cleaned up\n"), ({"WORLD_SIZE": "2"}, -signal.SIGTERM, "")]
)
def test_sigterm_ends_a_command_in_order_and_a_launchers_rank_at_once(
    environment: dict[str, str], status: int, said: str
) -> None:
    process = start(PROGRAM, **environment)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.terminate()
    assert process.wait(30) == status
    assert process.stdout.read() == said


STARTING = """
import os, signal, subprocess, sys
from sharding.common.processes import run_program, undisturbed_start
def main():
    try:
        with undisturbed_start():
            os.kill(os.getpid(), signal.{name})
            child = subprocess.Popen([sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGINT)"])
            print("started", child.wait(), flush=True)
        print("went on", flush=True)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    return 7
run_program(main)
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interrupt_waits_until_a_process_has_started_and_ctrl_c_never_reaches_that_process(name: str) -> None:
    process = start(STARTING.replace("{name}", name))
    assert process.communicate(timeout=30)[0] == "started 0\ninterrupted\n"


LOST = """
import os, signal
from sharding.common.processes import run_program
class Held:
    def __del__(self):
        os.kill(os.getpid(), signal.{name})
        for _ in range(1000):
            pass
def main():
    import time
    try:
        del [Held()][0]
        time.sleep(30)
    except KeyboardInterrupt as interrupt:
        print("interrupted", flush=True)
        return 128 + int(interrupt.args[0] if interrupt.args else 2)
    return 7
run_program(main)
"""


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_an_interrupt_that_arrives_in_a_destructor_is_not_lost(name: str, status: int) -> None:
    process = start(LOST.replace("{name}", name), stderr=subprocess.STDOUT)
    assert process.communicate(timeout=20)[0] == "interrupted\n"
    assert process.returncode == status


ANEW = """
import time
from sharding.common.processes import number_of, run_program
def main():
    try:
        print("ready", flush=True)
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            raise KeyboardInterrupt from None
    except KeyboardInterrupt as interrupt:
        return 128 + number_of(interrupt)
run_program(main)
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_that_a_library_raises_anew_keeps_its_number(number: signal.Signals, status: int) -> None:
    process = start(ANEW)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.wait(30) == status


def test_a_program_ends_with_its_status_and_all_that_it_printed() -> None:
    process = start("from sharding.common.processes import run_program\nrun_program(lambda: print('x' * 9) or 7)")
    assert process.communicate(timeout=30)[0] == "x" * 9 + "\n"
    assert process.returncode == 7


CHILD = "from sharding.common.processes import die_with_parent\ndie_with_parent()\nprint('ready', flush=True)\n"
PARENT = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {CHILD + "import time; time.sleep(60)"!r}], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(60)
"""


def test_a_process_ends_with_the_one_that_started_it() -> None:
    parent = start(PARENT)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while _runs(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(child)


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
