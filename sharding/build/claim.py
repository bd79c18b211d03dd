"""Locks OUT so that only one builder writes to it."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sharding.common.errors import InputError
from sharding.common.storage import Storage, is_full
from sharding.layout import Work, in_work

Result = TypeVar("Result")

LOCK = in_work(Work.LOCK)
HEARTBEAT_S = 10.0  # between two heartbeats of a builder in an object store
SILENCE_S = 45.0  # without a heartbeat, after which a builder on another machine counts as dead
_REMEDY = "wait for it, or end it; the same command then continues"


class Claim:
    """The right to write to OUT; another builder takes it over if this one seems to be dead."""

    def __init__(self, out: Storage) -> None:
        self._out = out
        self.lost = False

    def check(self) -> None:
        """Raises ``InputError`` if another builder took over."""
        if self.lost:
            raise InputError(
                "another builder took over here", file=self._out.url, remedy="let it finish; nothing needs to be mended"
            )

    def guarded(self, results: Iterable[Result]) -> Iterator[Result]:
        """Passes results on as they come; raises ``InputError`` when another builder takes over."""
        for result in results:
            self.check()
            yield result


@dataclass(frozen=True)
class Owner:
    """The builder that a lock file names.

    Attributes:
        host: its machine.
        pid: its process.
        born: when the process began (see ``_start_of``), because a process number may be used again.
        token: chosen at random for each claim.
        beat: counts the heartbeats.
    """

    host: str
    pid: int
    born: str | None
    token: str
    beat: int = 0

    @staticmethod
    def read(contents: bytes) -> Owner | None:
        """The owner that a lock file names; None if it is no lock file of a builder."""
        try:
            return Owner(**json.loads(contents))
        except (ValueError, TypeError):
            return None

    def as_bytes(self) -> bytes:
        """The contents of the lock file."""
        return json.dumps(dataclasses.asdict(self)).encode()


@contextlib.contextmanager
def claim(out: Storage) -> Iterator[Claim]:
    """Keep a second builder out, and turn failures of storage into errors that say how to go on.

    Locally the lock is the kernel's, and ends with the process, however that ends.  In an object store the lock is a
    file.  It is created by a conditional put, which fails if the file exists, and its builder rewrites it regularly (a
    heartbeat).  The lock of a dead builder is taken over: at once if the builder ran on this machine, else after
    ``SILENCE_S`` without a heartbeat.  If a store knows no conditional puts, two builders that begin in the same moment
    both take the lock; at the first heartbeat one of them finds the other's lock and stops.

    Raises:
        InputError: another builder is at work, or storage failed.
    """
    with _storage_errors_explained(out), _kernel_lock(out) if out.local is not None else _lock_file(out) as held:
        yield held


@contextlib.contextmanager
def _storage_errors_explained(out: Storage) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if is_full(error):
            what, remedy = "no space left", "make room there and run the same command again: it continues"
        elif isinstance(error, FileNotFoundError):
            what = f"a file is gone: {error.strerror or error}"
            remedy = "if it belonged to what is built here, remove that and build again"
        else:
            what = f"reading or writing failed: {error.strerror or error}"
            remedy = "once that is mended, the same command continues"
        raise InputError(what, file=error.filename or out.url, remedy=remedy) from error


@contextlib.contextmanager
def _kernel_lock(out: Storage) -> Iterator[Claim]:
    assert out.local is not None
    path = out.local / LOCK
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError("another build is at work here", file=out.url, remedy=_REMEDY) from None
        yield Claim(out)


@contextlib.contextmanager
def _lock_file(out: Storage) -> Iterator[Claim]:
    held = Claim(out)
    me = Owner(socket.gethostname(), os.getpid(), _start_of(os.getpid()), uuid.uuid4().hex)
    _take(out, me)
    ended = threading.Event()
    heartbeat = threading.Thread(target=_beat, args=(out, me, held, ended), daemon=True)
    heartbeat.start()
    try:
        yield held
    finally:
        ended.set()
        heartbeat.join()
        if not held.lost and _is_mine(_owner(out), me):
            out.remove(LOCK)


def _take(out: Storage, me: Owner) -> None:
    """Write our lock file; refuse if the owner of the one that is there is alive."""
    while True:
        try:
            contents = out.put_if_absent(LOCK, me.as_bytes())
        except FileNotFoundError as error:
            raise InputError(str(error), file=out.url, remedy="create it, or correct the address") from error
        if not contents:  # its owner has just removed it
            continue
        owner = Owner.read(contents)
        if _is_mine(owner, me):
            return
        if owner is not None and _is_alive(out, owner, me.host):
            raise InputError(
                f"another build is at work here: process {owner.pid} on {owner.host}",
                file=out.url,
                remedy=_REMEDY,
            )
        now = _owner(out)
        if (now and now.token) == (owner and owner.token):
            out.remove(LOCK)


def _is_mine(owner: Owner | None, me: Owner) -> bool:
    return owner is not None and owner.token == me.token


def _is_alive(out: Storage, owner: Owner, host: str) -> bool:
    """Whether a lock's owner is at work: by its process if it runs on this machine, else by its heartbeats."""
    if owner.host == host:
        born = _start_of(owner.pid)
        return born is not None and born == owner.born
    print(
        f"  waiting up to {SILENCE_S:.0f} s for a sign of life of the builder on {owner.host}",
        file=sys.stderr,
        flush=True,
    )
    deadline = time.monotonic() + SILENCE_S
    while time.monotonic() < deadline:
        time.sleep(min(1.0, SILENCE_S / 10))
        now = _owner(out)
        if now != owner:
            return now is not None
    return False


def _beat(out: Storage, me: Owner, held: Claim, ended: threading.Event) -> None:
    """Rewrite our lock file regularly; if it is another's, the claim is lost."""
    while not ended.wait(HEARTBEAT_S):
        try:
            if not _is_mine(_owner(out), me):
                held.lost = True
                return
            me = dataclasses.replace(me, beat=me.beat + 1)
            out.write(LOCK, me.as_bytes())
        except OSError:
            continue  # if the store fails for longer than a moment, the build itself reports it


def _owner(out: Storage) -> Owner | None:
    try:
        return Owner.read(out.read(LOCK))
    except FileNotFoundError:
        return None


def _start_of(pid: int) -> str | None:
    """When a process of this machine began, counted from a boot; None if there is no such process."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        state, *numbers = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if state == "Z" else f"{boot} {numbers[18]}"
    except OSError:
        return None
