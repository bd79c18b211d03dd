"""Whose folder OUT is: one builder at a time."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from sharding.common.errors import InputError
from sharding.common.storage import Storage, is_full
from sharding.layout import Work, in_work

Result = TypeVar("Result")

LOCK = in_work(Work.LOCK)
BEAT_S = 10.0  # between two signs of life of a builder in an object store
SILENCE_S = 45.0  # without one, after which a builder on another machine counts as dead
_REMEDY = "wait for it, or end it; the same command then goes on"


class Claim:
    """The right to build here, as long as nobody else took it."""

    def __init__(self, out: Storage) -> None:
        self._out = out
        self.lost = False

    def check(self) -> None:
        """Raises ``InputError`` where another builder took over."""
        if self.lost:
            raise InputError(
                "another builder took over here", file=self._out.url, remedy="let it finish; nothing needs to be mended"
            )

    def guarded(self, results: Iterable[Result]) -> Iterator[Result]:
        """Results as they come, as long as nobody else took over."""
        for result in results:
            self.check()
            yield result


@contextlib.contextmanager
def claim(out: Storage) -> Iterator[Claim]:
    """Keep a second builder out, and turn failures of storage into errors that say how to go on.

    Locally the lock is the kernel's, and ends with the process, however it ends.  In an object store it is a file
    that is created only where there is none (a conditional put) and shows signs of life; one that a killed builder
    left behind is taken over: at once where that ran on this machine, else after ``SILENCE_S`` without a sign.
    Where a store knows no conditional puts, two builders that begin in the same moment both believe to be alone
    until the first sign of life, when one of them finds the other's lock and stops.

    Raises:
        InputError: another builder is at work, or storage failed.
    """
    with _translated(out), _kernel_lock(out) if out.local is not None else _lock_file(out) as held:
        yield held


@contextlib.contextmanager
def _translated(out: Storage) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if is_full(error):
            place = "" if out.local is not None else f" in {tempfile.gettempdir()} (TMPDIR), where uploads wait"
            what, remedy = "no space left", f"make room{place} and run the same command again: it goes on"
        elif isinstance(error, FileNotFoundError):
            what = f"a file is gone: {error.filename or error}"
            remedy = "if it belonged to what is built here, remove that and build again"
        else:
            what, remedy = f"reading or writing failed: {error}", "once that is mended, the same command goes on"
        raise InputError(what, file=out.url, remedy=remedy) from error


@contextlib.contextmanager
def _lock_file(out: Storage) -> Iterator[Claim]:
    held = Claim(out)
    me = {"host": socket.gethostname(), "pid": os.getpid(), "born": _born(os.getpid()), "token": uuid.uuid4().hex}
    _take(out, me)
    ended = threading.Event()
    signs = threading.Thread(target=_show_life, args=(out, me, held, ended), daemon=True)
    signs.start()
    try:
        yield held
    finally:
        ended.set()
        signs.join()
        if not held.lost and _owner(out).get("token") == me["token"]:
            out.remove(LOCK)


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


def _take(out: Storage, me: dict[str, Any]) -> None:
    """Put our lock there; refuse where its owner lives."""
    mine = json.dumps(me).encode()
    while True:
        try:
            contents = out.put_if_absent(LOCK, mine)
        except FileNotFoundError as error:
            raise InputError(str(error), file=out.url, remedy="create it, or correct the address") from error
        if not contents:  # its owner was just done
            continue
        owner = _parsed(contents)
        if owner.get("token") == me["token"]:
            return
        if owner and _lives(out, owner, me["host"]):
            raise InputError(
                f"another build is at work here: process {owner['pid']} on {owner['host']}",
                file=out.url,
                remedy=_REMEDY,
            )
        if _owner(out).get("token") == owner.get("token"):
            out.remove(LOCK)


def _lives(out: Storage, owner: dict[str, Any], host: str) -> bool:
    """Whether a lock's owner is at work: by its process where it runs here, else by its signs of life."""
    if owner["host"] == host:
        born = _born(owner["pid"])
        return born is not None and born == owner["born"]
    print(
        f"  waiting up to {SILENCE_S:.0f} s for a sign of life of the builder on {owner['host']}",
        file=sys.stderr,
        flush=True,
    )
    deadline = time.monotonic() + SILENCE_S
    while time.monotonic() < deadline:
        time.sleep(min(1.0, SILENCE_S / 10))
        if _owner(out) != owner:
            return bool(_owner(out))
    return False


def _show_life(out: Storage, me: dict[str, Any], held: Claim, ended: threading.Event) -> None:
    beat = 0
    while not ended.wait(BEAT_S):
        try:
            if _owner(out).get("token") != me["token"]:
                held.lost = True
                return
            beat += 1
            out.write(LOCK, json.dumps(me | {"beat": beat}).encode())
        except OSError:
            continue  # the store fails for a moment; if for longer, the work itself will meet it


def _owner(out: Storage) -> dict[str, Any]:
    try:
        return _parsed(out.read(LOCK))
    except FileNotFoundError:
        return {}


def _parsed(contents: bytes) -> dict[str, Any]:
    """A lock's owner; none where nobody can have written it."""
    try:
        owner = json.loads(contents)
        return owner if {"host", "pid", "born", "token"} <= set(owner) else {}
    except (ValueError, TypeError):
        return {}


def _born(pid: int) -> str | None:
    """When a process of this machine began; None where there is none.  (A number alone may be another's by now.)"""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        state, *numbers = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if state == "Z" else f"{boot} {numbers[18]}"
    except OSError:
        return None
