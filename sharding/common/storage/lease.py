"""The right to write to a folder of an object store, where no kernel keeps a second writer out.

A lock file names its owner and is written by a conditional put.  The owner rewrites it every ``HEARTBEAT_S``.  A lock
is stale where its owner's process is gone (if it ran on this machine), or where it was not rewritten for ``SILENCE_S``
(if it ran on another one); then the next writer removes it.  An owner whose lock was removed all the same finds out
at its next heartbeat, and stops.  In an object store that knows no conditional puts, two writers that begin in the
same moment both take the lock; at the first heartbeat one of them finds the other's lock and stops.
"""

from __future__ import annotations

import contextlib
import dataclasses
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
from sharding.common.storage.folder import Storage

Result = TypeVar("Result")

HEARTBEAT_S = 10.0  # between two heartbeats
SILENCE_S = 45.0  # without a heartbeat, after which an owner on another machine counts as dead
REMEDY = "wait for it, or end it; the same command then continues"


class Claim:
    """The right to write to a folder; another writer takes it over if this one seems to be dead."""

    def __init__(self, out: Storage) -> None:
        self._out = out
        self.lost = False

    def check(self) -> None:
        """Raises ``InputError`` if another writer took over."""
        if self.lost:
            raise InputError(
                "another process took over here", file=self._out.url, remedy="let it finish; nothing is damaged"
            )

    def guarded(self, results: Iterable[Result]) -> Iterator[Result]:
        """Passes results on as they come; raises ``InputError`` when another writer takes over."""
        for result in results:
            self.check()
            yield result


@dataclass(frozen=True)
class Owner:
    """The writer that a lock file names.

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
        """The owner that a lock file names; None if it is no lock file."""
        try:
            return Owner(**json.loads(contents))
        except (ValueError, TypeError):
            return None

    def as_bytes(self) -> bytes:
        """The contents of the lock file."""
        return json.dumps(dataclasses.asdict(self)).encode()


@contextlib.contextmanager
def hold_lock_file(out: Storage, file: str, work: str) -> Iterator[Claim]:
    """Hold a lock file in a folder of an object store; the module's description says when it counts as stale.

    Args:
        out: the folder.
        file: the lock file's name in it.
        work: what its owner does, for messages: "build" or "training run".

    Raises:
        InputError: another process holds it and is alive, or the store refuses to write.
    """
    held = Claim(out)
    me = Owner(socket.gethostname(), os.getpid(), _start_of(os.getpid()), uuid.uuid4().hex)
    _take(out, file, me, work)
    ended = threading.Event()
    heartbeat = threading.Thread(target=_beat, args=(out, file, me, held, ended), daemon=True)
    heartbeat.start()
    try:
        yield held
    finally:
        ended.set()
        heartbeat.join()
        if not held.lost and _is_mine(_owner(out, file), me):
            out.remove(file)


def _take(out: Storage, file: str, me: Owner, work: str) -> None:
    """Write our lock file; refuse if the owner of the one that is there is alive."""
    while True:
        try:
            contents = out.put_if_absent(file, me.as_bytes())
        except FileNotFoundError as error:
            raise InputError(str(error), file=out.url, remedy="create it, or correct the address") from error
        if not contents:  # its owner has just removed it, or the folder was copied from a disk, where the file is empty
            if not _contents(out, file):
                out.remove(file)
            continue
        owner = Owner.read(contents)
        if _is_mine(owner, me):
            return
        if owner is not None and _is_alive(out, file, owner, me.host):
            raise InputError(
                f"another {work} is at work here: process {owner.pid} on {owner.host}", file=out.url, remedy=REMEDY
            )
        now = _owner(out, file)
        if (now and now.token) == (owner and owner.token):
            out.remove(file)


def _is_mine(owner: Owner | None, me: Owner) -> bool:
    return owner is not None and owner.token == me.token


def _is_alive(out: Storage, file: str, owner: Owner, host: str) -> bool:
    """Whether a lock's owner is at work: by its process if it runs on this machine, else by its heartbeats."""
    if owner.host == host:
        born = _start_of(owner.pid)
        return born is not None and born == owner.born
    print(
        f"  waiting up to {SILENCE_S:.0f} s for a sign of life of the process that holds {out.name(file)} "
        f"on {owner.host}",
        file=sys.stderr,
        flush=True,
    )
    deadline = time.monotonic() + SILENCE_S
    while time.monotonic() < deadline:
        time.sleep(min(1.0, SILENCE_S / 10))
        now = _owner(out, file)
        if now != owner:
            return now is not None
    return False


def _beat(out: Storage, file: str, me: Owner, held: Claim, ended: threading.Event) -> None:
    """Rewrite our lock file regularly; if it is another's, the claim is lost."""
    while not ended.wait(HEARTBEAT_S):
        try:
            if not _is_mine(_owner(out, file), me):
                held.lost = True
                return
            me = dataclasses.replace(me, beat=me.beat + 1)
            out.write(file, me.as_bytes())
        except OSError:
            continue  # if the store fails for longer than a moment, the work itself reports it


def _owner(out: Storage, file: str) -> Owner | None:
    return Owner.read(_contents(out, file))


def _contents(out: Storage, file: str) -> bytes:
    """What the lock file holds; nothing if there is none."""
    try:
        return out.read(file)
    except FileNotFoundError:
        return b""


def _start_of(pid: int) -> str | None:
    """When a process of this machine began, counted from a boot; None if there is no such process."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        state, *numbers = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if state == "Z" else f"{boot} {numbers[18]}"
    except OSError:
        return None
