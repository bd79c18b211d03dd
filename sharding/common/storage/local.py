"""A folder of this machine, whatever users keep there: links in circles, pipes, what killed writers left."""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import math
import os
import posixpath
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from sharding.common.errors import InputError
from sharding.common.storage.backend import Entry, Listing
from sharding.common.storage.failures import UnreadableFile, naming, persist

T = TypeVar("T")

FOLLOW_LINKS = "add --follow-links if those files belong to the dataset, or give the folder that really holds them"

PIECE = 1 << 16  # bytes of one write: larger writes wait for large pages where memory is fragmented, 5 times as long
_TEMPORARY = ".tmp"  # ends the hidden names of files that are not whole yet


class LocalFolder:
    """The backend of a folder of this machine.

    A file is written under a temporary name in the same folder, synced to the disk, and then renamed.

    Args:
        folder: the folder.
        follow_links: False: links that lead out of the folder are refused.
    """

    def __init__(self, folder: Path, follow_links: bool = True) -> None:
        self.folder = folder
        self._follow_links = follow_links

    def is_file(self, name: str) -> bool:
        return self._path(name).is_file()

    def size(self, name: str) -> int:
        return self._path(name).stat().st_size

    def version(self, name: str) -> tuple[object, ...]:
        found = self._path(name).stat()
        return found.st_size, found.st_mtime_ns, found.st_ino

    def names(self, folder: str) -> list[str]:
        return self.listing(folder).names

    def listing(self, folder: str) -> Listing:
        prefix = posixpath.normpath(folder) + "/" if folder else ""
        found = Listing([], [])
        for name, is_outside in _files_below(str(self._path(folder)), prefix, self._leads_out):
            (found.outside if is_outside else found.names).append(name)
        return Listing(sorted(found.names), sorted(found.outside))

    def entries(self, folder: str) -> dict[str, Entry]:
        return {name: _entry_of(self.folder / name) for name in self.names(folder)}

    def read(self, name: str, offset: int, size: int | None) -> bytes:
        with _PatientFile(str(self._path(name))) as file:
            if size is None:
                file.seek(offset)
                return file.readall()
            # A read reserves memory for all that it is asked for, and a damaged table may ask for any size.
            return file.read_at(offset, min(size, os.fstat(file.fileno()).st_size))

    def open(self, name: str) -> BinaryIO:
        return io.BufferedReader(_PatientFile(str(self._path(name))), PIECE)

    @contextlib.contextmanager
    def writer(self, name: str) -> Iterator[BinaryIO]:
        target = self._path(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.parent / f".{target.name[:80]}.{secrets.token_hex(8)}{_TEMPORARY}"
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            with io.BufferedWriter(_InPieces(handle, str(target))) as file:
                yield file
                file.flush()
                with naming(str(target)):
                    os.fsync(file.fileno())
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync_folder(target.parent)

    def remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._path(name).unlink()
            # Else a power failure could bring the file back after others, on which it relies, have gone for good.
            _sync_folder(self._path(name).parent)

    def remove_tree(self, folder: str) -> None:
        shutil.rmtree(self._path(folder), ignore_errors=True)

    def move(self, source: str, target: str) -> None:
        old, new = self._path(source), self._path(target)
        new.parent.mkdir(parents=True, exist_ok=True)
        old.replace(new)
        _sync_folder(new.parent)
        _sync_folder(old.parent)

    def sweep(self) -> None:
        for path in self.folder.rglob(f".*{_TEMPORARY}"):
            path.unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        path = self.folder / name
        if self._leads_out(str(path)):
            raise InputError("a link that leads out of the dataset's folder", file=path, remedy=FOLLOW_LINKS)
        return path

    def _leads_out(self, path: str) -> bool:
        """Whether links of a path lead to a place outside the folder that must not be read."""
        if self._follow_links:
            return False
        real = Path(os.path.realpath(path))
        return not any(real.is_relative_to(folder) for folder in self._real_folders)

    @functools.cached_property
    def _real_folders(self) -> list[Path]:
        """The folder itself; and in a Hugging Face cache, the folder of the files that the links of a revision lead to.

        Such a cache has links ``datasets--NAME/snapshots/REVISION/FILE`` to ``datasets--NAME/blobs/HASH``.
        """
        real = Path(os.path.realpath(self.folder))
        caches = [parent.parent for parent in real.parents if parent.name == "snapshots"]
        return [real, *(cache / "blobs" for cache in caches if cache.name.startswith(("datasets--", "models--")))]


class _PatientFile(io.FileIO):
    """A file whose reads are tried again after an error of the disk (EIO), and whose errors name it."""

    def readinto(self, buffer: Any) -> int | None:
        return self._patiently(lambda: io.FileIO.readinto(self, buffer))

    def readall(self) -> bytes:
        start = self.tell() if self.seekable() else None

        def read_rest() -> bytes:
            if start is not None:
                self.seek(start)  # a try that failed may have moved on
            return io.FileIO.readall(self)

        return self._patiently(read_rest)

    def read_at(self, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset``, fewer where the file ends; no buffer takes time to copy them."""
        parts: list[bytes] = []
        while part := self._patiently(functools.partial(os.pread, self.fileno(), size, offset)):
            parts.append(part)
            offset, size = offset + len(part), size - len(part)  # the kernel reads at most 2 GiB at once
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _patiently(self, action: Callable[[], T]) -> T:
        name = str(self.name)
        try:
            with naming(name):
                return persist(action, lambda error: error.errno == errno.EIO)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            raise UnreadableFile(errno.EIO, error.strerror, name) from error


class _InPieces(io.FileIO):
    """An open file that is written in small pieces, and whose errors name the file that it will become."""

    def __init__(self, handle: int, target: str) -> None:
        super().__init__(handle, "w")
        self._target = target

    def write(self, data: Any) -> int:
        with naming(self._target):
            return super().write(memoryview(data)[:PIECE])  # the buffer before it sends the rest later


def _files_below(
    folder: str,
    prefix: str,
    leads_out: Callable[[str], bool],
    outside: bool = False,
    above: tuple[tuple[int, int], ...] = (),
) -> Iterator[tuple[str, bool]]:
    """(name, whether a link leads out) of all files below a folder.

    There is no stat of each file, as a dataset has 400,000.  Links may form loops.
    """
    try:
        found = Path(folder).stat()
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    here = (found.st_dev, found.st_ino)
    if here in above:
        return
    for entry in entries:
        try:
            is_folder = entry.is_dir()
            if not (is_folder or entry.is_file()):
                entry.stat()  # this succeeds for a pipe or a device, and fails for a link to nowhere
        except FileNotFoundError:
            continue
        except OSError:  # links that form a circle are listed; opening one fails
            is_folder = False
        is_outside = outside or (entry.is_symlink() and leads_out(entry.path))
        if is_folder:
            yield from _files_below(entry.path, f"{prefix}{entry.name}/", leads_out, is_outside, (*above, here))
        elif not (entry.name.startswith(".") and entry.name.endswith(_TEMPORARY)):
            yield prefix + entry.name, is_outside


def _entry_of(path: Path) -> Entry:
    """Size and time of a listed file; a link that is part of a circle counts as empty."""
    try:
        found = path.stat()
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        return Entry(0, math.inf)
    return Entry(found.st_size, found.st_ctime)


def apply_umask(*paths: Path) -> None:
    """Give files the permissions that the umask allows, as a plain ``open`` does: some libraries write them as 0600."""
    umask = os.umask(0o077)
    os.umask(umask)
    for path in paths:
        path.chmod(0o666 & ~umask)


def _sync_folder(folder: Path) -> None:
    """Make a rename durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
