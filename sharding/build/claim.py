"""Locks OUT so that only one builder writes to it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from sharding.common.errors import InputError
from sharding.common.storage import Storage, is_full
from sharding.common.storage.lease import REMEDY, Claim, hold_lock_file
from sharding.layout import Work, in_work

__all__ = ["LOCK", "Claim", "claim"]

LOCK = in_work(Work.LOCK)


@contextlib.contextmanager
def claim(out: Storage) -> Iterator[Claim]:
    """Keep a second builder out, and turn failures of storage into errors that say how to continue.

    Locally the lock is the kernel's, and ends with the process, however that ends; where nothing was begun, no folder
    is left.  In an object store it is a file with heartbeats; ``sharding.common.storage.lease`` says when the lock of
    a dead builder is taken over.

    Raises:
        InputError: another builder is at work, or storage failed.
    """
    lock = _kernel_lock(out) if out.local is not None else hold_lock_file(out, LOCK, "build")
    with _storage_errors_explained(out), lock as held:
        yield held


@contextlib.contextmanager
def _storage_errors_explained(out: Storage) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if is_full(error):
            what, remedy = "no space left", "make room there and run the same command again: it continues"
        elif isinstance(error, NotADirectoryError | FileExistsError):
            what = "a file stands where the build needs a folder"
            remedy = "name another folder for --out, or move the file away"
        elif isinstance(error, FileNotFoundError):
            what = f"a file is gone: {error.strerror or error}"
            remedy = "if it belonged to what is built here, remove that and build again"
        else:
            what = f"reading or writing failed: {error.strerror or error}"
            remedy = "once the cause is removed, the same command continues"
        raise InputError(what, file=error.filename or out.url, remedy=remedy) from error


@contextlib.contextmanager
def _kernel_lock(out: Storage) -> Iterator[Claim]:
    assert out.local is not None
    path, is_new = out.local / LOCK, not out.local.exists()
    with _locked(path, out):
        try:
            yield Claim(out)
        finally:
            with contextlib.suppress(OSError):  # a folder that holds anything stays
                if [each.name for each in path.parent.iterdir()] == [path.name]:  # nothing was begun here
                    path.unlink()
                    path.parent.rmdir()
                    if is_new:
                        out.local.rmdir()


def _locked(path: Path, out: Storage) -> TextIO:
    """The lock file, open and locked; one that its owner removed meanwhile is made anew."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise InputError("another build is at work here", file=out.url, remedy=REMEDY) from None
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()
