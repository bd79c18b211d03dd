"""Copies on this machine of what lies in an object store, in one folder of bounded size.

``EARSHOT_CACHE`` names the folder (``~/.cache/earshot``) and ``EARSHOT_CACHE_SIZE`` bounds it (100 GB).  Half of it is
for the copies of runs and models, which are folders; the other half is for samples.  Nothing in the cache is the only
copy of anything: it can be removed at any time while nothing runs.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sharding.common.errors import InputError
from sharding.common.sizes import parse_size, show_size

FOLDER, SIZE = "EARSHOT_CACHE", "EARSHOT_CACHE_SIZE"
DEFAULT_SIZE = "100GB"


@dataclass(frozen=True)
class Cache:
    """The cache of this machine.

    Attributes:
        folder: where it lies.
        bytes: how large it may become.
    """

    folder: Path
    bytes: int

    @staticmethod
    def of_environment() -> Cache:
        """The cache that the environment names; ``InputError`` where its size is no size."""
        folder = os.environ.get(FOLDER) or "~/.cache/earshot"
        try:
            size = parse_size(os.environ.get(SIZE) or DEFAULT_SIZE)
        except ValueError as error:
            raise InputError(str(error), file=SIZE, remedy=f"set {SIZE} to a size such as 200GB") from error
        return Cache(Path(folder).expanduser().resolve(), size)

    @property
    def copies(self) -> Path:
        """The folder of the copies of runs and models."""
        return self.folder / "copies"

    @contextlib.contextmanager
    def hold(self, name: str) -> Iterator[Copy]:
        """The copy of that name, such as an address; an empty folder at first.  Nobody removes it while it is held."""
        folder = self.copies / hashlib.sha256(name.encode()).hexdigest()[:32]
        self.copies.mkdir(parents=True, exist_ok=True)
        with _lock_of(folder).open("a+b") as lock:
            fcntl.lockf(lock, fcntl.LOCK_SH)
            os.utime(lock.fileno())
            folder.mkdir(exist_ok=True)
            yield Copy(self, folder)

    def require_room(self, copy: Path, needed: int) -> None:
        """Remove the copies that were not used for the longest, until ``copy`` can have ``needed`` bytes.

        Raises:
            InputError: it cannot, even without the copies that nobody holds.
        """
        limit = self.bytes // 2
        sizes = {path: folder_bytes(path) for path in self.copies.iterdir() if path.is_dir() and path != copy}
        for path in sorted(sizes, key=_last_use):
            if sum(sizes.values()) + needed <= limit:
                return
            if _remove_unless_held(path):
                del sizes[path]
        if sum(sizes.values()) + needed > limit:
            raise InputError(
                f"the local copy needs {show_size(needed)}; the cache has {show_size(limit)} for copies of runs and "
                f"models, and {show_size(sum(sizes.values()))} of that is in use",
                file=self.folder,
                remedy=f"set {SIZE} to at least {show_size(2 * (needed + sum(sizes.values())))}, on a disk that has it",
            )


@dataclass(frozen=True)
class Copy:
    """A copy that is held."""

    cache: Cache
    folder: Path

    @contextlib.contextmanager
    def alone(self) -> Iterator[Path]:
        """The folder, for changing it: other processes of this machine that want to change it wait."""
        with self.folder.with_name(self.folder.name + ".change").open("ab") as lock:
            fcntl.lockf(lock, fcntl.LOCK_EX)
            yield self.folder

    def require_room(self, needed: int) -> None:
        """Make room for ``needed`` bytes in this copy; see ``Cache.require_room``."""
        self.cache.require_room(self.folder, needed)


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder; files that vanish meanwhile count nothing."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.lstat().st_size if path.is_file() else 0
    return total


def _lock_of(copy: Path) -> Path:
    """The lock file beside a copy; its time of change says when the copy was last used."""
    return copy.with_name(f"{copy.name}.lock")


def _last_use(copy: Path) -> float:
    lock = _lock_of(copy)
    return lock.stat().st_mtime if lock.exists() else 0.0


def _remove_unless_held(copy: Path) -> bool:
    with _lock_of(copy).open("a+b") as lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return False
            raise
        shutil.rmtree(copy, ignore_errors=True)
        return True
