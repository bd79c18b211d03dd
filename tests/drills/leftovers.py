"""What a drill makes outside its own process, and what a drill that was killed has left of it.

Namespaces, links and disks have names that carry the process id of the drill that made them.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

_OWNED = re.compile(r"(?:earshot-|eh)(\d+)-\w+")


def space_name(host: int | str) -> str:
    """The network namespace of a host of this process, which is the host's name too."""
    return f"earshot-{os.getpid()}-{host}"


def link_name(end: int | str) -> str:
    """A link or bridge of this process; the kernel allows 15 characters."""
    return f"eh{os.getpid()}-{end}"


def disk_name() -> str:
    """The source of the disks of this process, in the table of mounts."""
    return f"earshot-{os.getpid()}-disk"


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Be the only drill of this machine, because all use the same addresses; begin without leftovers."""
    with socket.socket(socket.AF_UNIX) as lock:
        try:
            lock.bind("\0earshot-drills")  # the kernel frees this name with the process, however that ends
        except OSError as error:
            raise AssertionError("another drill runs on this machine: wait for its end") from error
        remove_leftovers()
        yield


def remove_leftovers() -> None:
    """Remove what drills have left whose process has ended; leave what belongs to a process that lives."""
    for space in _said("ip", "netns", "list"):
        if _is_left(space):
            remove_space(space)
    for line in _said("ip", "-brief", "link"):
        if _is_left(link := line.partition("@")[0]):
            remove_link(link)
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mounted, _, source = line.partition(" - ")
        if _is_left(source.split()[1]):
            remove_disk(Path(mounted.split()[4]))


def processes(space: str) -> list[int]:
    """The ids of the processes of a namespace."""
    return [int(word) for word in _said("ip", "netns", "pids", space)]


def end_all(space: str) -> None:
    """End the processes of a namespace at once."""
    while found := processes(space):
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)


def remove_space(space: str) -> None:
    """End what runs in a namespace, and remove it, where it is there."""
    end_all(space)
    subprocess.run(["ip", "netns", "del", space], capture_output=True, check=False)


def remove_link(link: str) -> None:
    """Remove a link or a bridge, where it is there: the kernel ends those of a namespace some time after it."""
    subprocess.run(["ip", "link", "del", link], capture_output=True, check=False)


def remove_disk(folder: Path) -> None:
    """Unmount a disk, also where a process has open files on it."""
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _is_left(name: str) -> bool:
    found = _OWNED.fullmatch(name)
    return found is not None and not Path("/proc", found[1]).exists()


def _said(*command: str) -> list[str]:
    """The first word of each line that a command prints."""
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    return [line.split()[0] for line in made.stdout.splitlines() if line.strip()]
