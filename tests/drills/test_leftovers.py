"""A drill that is killed leaves nothing behind for longer than until the next drill starts."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from tests.conftest import REPOSITORY
from tests.drills.hosts import permitted

# Ends with the process that started it, as a drill ends with its terminal, and leaves what it has made
OWNER = """
import subprocess, sys, time
from pathlib import Path
from tests.drills.hosts import network, small_disk

folder = Path(sys.argv[1])
with small_disk(folder / "disk", 1), network(2, folder) as hosts:
    subprocess.Popen(["ip", "netns", "exec", hosts[1].name, "sleep", "600"])
    while not hosts[1].processes():
        time.sleep(0.01)
    print("made", flush=True)
    time.sleep(600)
"""
# In namespaces of its own, so that drills may run beside it
DRILL = """
import os, subprocess, sys, tempfile
from pathlib import Path
from tests.drills.leftovers import processes, remove_leftovers

subprocess.run(["mount", "-t", "tmpfs", "none", "/run"], check=True)

def seen():
    spaces = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    links = subprocess.run(["ip", "-brief", "link"], capture_output=True, text=True, check=True).stdout
    mounts = Path("/proc/self/mountinfo").read_text()
    return sum(f"earshot-{owner.pid}-" in text or f"eh{owner.pid}-" in text for text in (spaces, links, mounts))

with tempfile.TemporaryDirectory() as folder:
    owner = subprocess.Popen([sys.executable, "-c", sys.argv[1], folder], stdout=subprocess.PIPE)
    assert owner.stdout.readline() == b"made\\n"
    (sleeper,) = processes(f"earshot-{owner.pid}-1")
    remove_leftovers()
    assert seen() == 3 and Path("/proc", str(sleeper)).exists(), "the owner lives"
    owner.kill()
    owner.wait()
    assert seen() == 3
    remove_leftovers()
    assert seen() == 0
    status = Path("/proc", str(sleeper), "status")
    assert not status.exists() or "(zombie)" in status.read_text()
"""


@pytest.mark.skipif(not permitted(), reason="network namespaces are not permitted here")
def test_the_next_drill_removes_what_a_killed_one_has_left_but_nothing_of_a_running_one() -> None:
    command = ["unshare", "--net", "--mount", sys.executable, "-c", textwrap.dedent(DRILL), OWNER]
    subprocess.run(command, cwd=REPOSITORY, check=True, timeout=60)
