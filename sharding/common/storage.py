"""A folder, local or in an object store, with the few operations that Earshot needs.

Nothing half-written is ever visible: a file appears under its name whole, or not at all.  Locally that is a
temporary name beside the file, fsync and rename; in an object store the upload's own commit.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import json
import os
import posixpath
import re
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from sharding.common.errors import MEND, InputError
from sharding.common.listing import TEMPORARY, Entry, entry_of, files_below, told

T = TypeVar("T")

_MEMBER = re.compile(r"(.+?\.zip)!/(.+)", re.IGNORECASE | re.DOTALL)
_NO_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9]+:(/(?!/)|/*$)")  # s3:/bucket, and s3:// without one
_SPOOL = 32 << 20  # bytes of a zip member, or of an upload, that are held in memory
_TRIES = 5
_PAUSE_S = 0.2  # before the second try; twice as long before each one after it
PIECE = 1 << 16  # bytes a write: where memory is fragmented, larger ones wait for large pages, five times as long
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LASTING = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)


class Storage:
    """Files below ``url``: a local path, or any address that fsspec knows (``s3://bucket/folder``).

    Credentials and endpoints of object stores come from the usual environment (``AWS_ACCESS_KEY_ID``,
    ``AWS_ENDPOINT_URL``, ...).  Names are relative, with ``/``; one that climbs out of the folder is refused.
    Picklable.
    """

    def __init__(self, url: str | os.PathLike[str]) -> None:
        if _NO_ADDRESS.match(str(url)):  # it would be taken for a folder of that name on this machine
            raise InputError("half an address", value=str(url), remedy="write s3://BUCKET/FOLDER, or a local folder")
        self.url = str(url).rstrip("/") or "/"
        self._fs: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url, "_fs": None}

    def __repr__(self) -> str:
        return f"Storage({self.url!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Storage) and other.url == self.url

    def __hash__(self) -> int:
        return hash(self.url)

    @functools.cached_property
    def local(self) -> Path | None:
        """The folder on this machine, or None for an object store."""
        if "://" not in self.url:
            return Path(self.url)
        return Path(self.url[7:]) if self.url.startswith("file://") else None

    @property
    def _remote(self) -> Any:
        if self._fs is None:
            protocol = self.url.partition("://")[0]
            try:
                # cached listings would hide what other workers have written since
                self._fs = fsspec.filesystem(protocol, use_listings_cache=False, skip_instance_cache=True)
            except (ImportError, ValueError) as error:
                raise InputError(str(error), file=self.url, remedy="give a local folder, or s3://...") from error
        return self._fs

    def child(self, folder: str) -> Storage:
        """The storage of a folder below this one."""
        return Storage(f"{self.url}/{self._checked(folder)}")

    def name(self, path: str) -> str:
        """A file's full name, for messages."""
        return f"{self.url}/{path}"

    @staticmethod
    def _checked(path: str) -> str:
        plain = posixpath.normpath(path.replace("\\", "/")) if path else ""
        if plain == ".." or plain.startswith(("/", "../")) or "\0" in plain:
            raise InputError("a name that climbs out of its folder", value=path)
        return "" if plain == "." else path

    def _path(self, path: str) -> Path:
        assert self.local is not None
        return self.local / self._checked(path)

    def _key(self, path: str) -> str:
        checked = self._checked(path)
        return f"{self.url}/{checked}" if checked else self.url

    def exists(self, path: str) -> bool:
        """Whether a file of that name is there."""
        if self.local is not None:
            return self._path(path).is_file()
        try:  # fsspec's isfile() takes every failure for an absent file
            return bool(_persist(lambda: self._remote.info(self._key(path)))["type"] == "file")
        except FileNotFoundError:
            return False

    def size(self, path: str) -> int:
        """Bytes of a file, or of a zip member; FileNotFoundError where it is absent."""
        if inside := _MEMBER.fullmatch(path):
            return self._member(*inside.groups())[1].file_size
        if self.local is not None:
            return self._path(path).stat().st_size
        return int(_persist(lambda: self._remote.size(self._key(path))))

    @staticmethod
    def archive(path: str) -> str | None:
        """The archive's name where a name is that of a zip member, ``ARCHIVE.zip!/MEMBER``; else None."""
        inside = _MEMBER.fullmatch(path)
        return inside.group(1) if inside else None

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Bytes of every file below a folder, from one listing; names are relative to this storage."""
        return {name: entry.size for name, entry in self.entries(folder).items()}

    def entries(self, folder: str = "") -> dict[str, Entry]:
        """Size of every file below a folder, and when it was put there, from one listing; names as in ``sizes``."""
        if self.local is not None:
            return {name: entry_of(self.local / name) for name in self.list(folder)}
        root = self._remote._strip_protocol(self.url).rstrip("/")
        try:
            found = _persist(lambda: self._remote.find(self._key(folder), detail=True))
        except FileNotFoundError:
            return {}
        # an address of a single file is listed as itself, and consoles make folders by empty objects named "folder/"
        return {
            name[len(root) + 1 :]: Entry(int(info["size"]), told(info.get("LastModified")))
            for name, info in sorted(found.items())
            if name.startswith(f"{root}/") and not name.endswith("/") and info["type"] == "file"
        }

    def list(self, folder: str = "") -> list[str]:
        """Every file below a folder, recursively, sorted; an absent folder is empty."""
        if self.local is not None:
            prefix = posixpath.normpath(folder) + "/" if self._checked(folder) else ""
            return sorted(files_below(str(self._path(folder)), prefix))
        return sorted(self.sizes(folder))

    def read(self, path: str, offset: int = 0, size: int | None = None) -> bytes:
        """``size`` bytes from ``offset``, or all that follow; fewer where the file ends."""
        if self.archive(path):
            with self.open(path) as member:
                member.seek(offset)
                return member.read() if size is None else member.read(size)
        if self.local is not None:
            with self._path(path).open("rb") as file:
                file.seek(offset)
                return file.read() if size is None else file.read(size)
        end = None if size is None else offset + size
        if size == 0:
            return b""
        start = offset or None  # no range where all is wanted: an empty file has none that could be met
        return bytes(_persist(lambda: self._remote.cat_file(self._key(path), start=start, end=end)))

    def open(self, path: str) -> BinaryIO:
        """A seekable file for reading; ``ARCHIVE.zip!/MEMBER`` is read in place."""
        if inside := _MEMBER.fullmatch(path):
            return self._open_member(*inside.groups())
        if self.local is not None:
            return self._path(path).open("rb")
        return cast(BinaryIO, _persist(lambda: self._remote.open(self._key(path), "rb")))

    def _open_member(self, archive: str, member: str) -> BinaryIO:
        opened, found = self._member(archive, member)
        with opened.open(found) as source:
            spool = tempfile.SpooledTemporaryFile(_SPOOL)  # noqa: SIM115 - the caller closes it
            shutil.copyfileobj(source, spool, 1 << 20)
        spool.seek(0)
        return cast(BinaryIO, spool)

    def _member(self, archive: str, member: str) -> tuple[zipfile.ZipFile, zipfile.ZipInfo]:
        opened = _archive(self, archive, self._version(archive))
        try:
            return opened, opened.getinfo(member)
        except KeyError:
            raise FileNotFoundError(f"{self.name(archive)} has no member {member}") from None

    def _version(self, path: str) -> tuple[object, ...]:
        """What changes when a file is replaced."""
        if self.local is not None:
            found = self._path(path).stat()
            return found.st_size, found.st_mtime_ns, found.st_ino
        described = _persist(lambda: self._remote.info(self._key(path)))
        return described["size"], described.get("ETag"), str(described.get("LastModified"))

    def write(self, path: str, data: bytes) -> None:
        """Put a whole file under its name."""
        with self.writer(path) as file:
            file.write(data)

    def setdefault(self, path: str, data: bytes) -> bytes:
        """Put a whole file under its name unless there is one; the contents that are there afterwards, b"" if none are.

        For object stores alone.  Of several who try at once one is obeyed where the store knows conditional puts (S3's
        ``If-None-Match: *``); elsewhere the last one is.
        """
        assert self.local is None, "on one machine the kernel's locks do this"
        try:
            _plainly(lambda: self._remote.pipe_file(self._key(path), data, mode="create"))
        except FileExistsError:
            pass
        except (OSError, TypeError, ValueError, NotImplementedError):
            # a condition that did not hold in the words of another server, or none that it understands
            if not self.exists(path):
                self.write(path, data)
        try:
            return self.read(path)
        except FileNotFoundError:
            return b""

    @contextlib.contextmanager
    def writer(self, path: str) -> Iterator[BinaryIO]:
        """A file that appears under its name when the block ends well, and never otherwise."""
        if self.local is None:
            with tempfile.SpooledTemporaryFile(_SPOOL) as spool:
                yield cast(BinaryIO, spool)
                self._upload(spool, path)
            return
        with _appearing(self._path(path)) as file:
            yield file

    def _upload(self, spool: Any, path: str) -> None:
        def send() -> None:
            spool.seek(0)
            out = self._remote.open(self._key(path), "wb")
            try:
                shutil.copyfileobj(spool, out, 8 << 20)
                out.close()
            except BaseException:
                out.discard()  # else the parts that did arrive would be committed
                out.closed = True
                raise

        _persist(send)

    def remove(self, path: str) -> None:
        """Remove a file; an absent one is fine."""
        if self.local is not None:
            self._path(path).unlink(missing_ok=True)
        else:
            with contextlib.suppress(FileNotFoundError):
                _persist(lambda: self._remote.rm_file(self._key(path)))

    def remove_tree(self, folder: str) -> None:
        """Remove a folder and all below it; an absent one is fine."""
        if self.local is not None:
            shutil.rmtree(self._path(folder), ignore_errors=True)
            return
        for name in self.list(folder):
            self.remove(name)

    def move(self, source: str, target: str) -> None:
        """Give a file another name; one that has it already is left."""
        if not self.exists(source):
            return
        if self.local is None:
            _persist(lambda: self._remote.copy(self._key(source), self._key(target)))
            self.remove(source)
            return
        self._path(target).parent.mkdir(parents=True, exist_ok=True)
        self._path(source).replace(self._path(target))
        _sync_folder(self._path(target).parent)
        _sync_folder(self._path(source).parent)

    def sweep(self) -> None:
        """Remove what killed writers left behind under temporary names.  Only for who is alone here."""
        if self.local is not None:
            for path in self.local.rglob(f".*{TEMPORARY}"):
                path.unlink(missing_ok=True)

    def read_table(self, path: str, columns: Sequence[str] | None = None) -> pa.Table:
        """A Parquet file.

        Raises:
            InputError: it is damaged.
        """
        local = self.local
        source = pa.BufferReader(self.read(path)) if local is None else self._path(path).open("rb")
        try:
            with source:
                return pq.read_table(source, columns=columns)
        except (pa.ArrowException, OSError) as error:  # pyarrow calls damage either
            raise InputError(f"damaged: {error}", file=self.name(path), remedy=MEND) from error

    def read_json(self, path: str) -> dict[str, Any]:
        """A JSON file that holds an object; InputError where it is damaged."""
        try:
            return dict(json.loads(self.read(path)))
        except (ValueError, TypeError, RecursionError) as error:
            raise InputError(f"damaged: {error}", file=self.name(path), remedy=MEND) from error

    def write_table(self, path: str, table: pa.Table) -> None:
        """A Parquet file whose bytes depend on the table and on pyarrow's version alone."""
        buffer = io.BytesIO()
        pq.write_table(table.combine_chunks(), buffer, compression="zstd", row_group_size=1 << 17)
        self.write(path, buffer.getvalue())


def located(path: str) -> tuple[Storage, str]:
    """The storage of the folder in which a file lies, and the file's name there."""
    folder, slash, name = path.rstrip("/").rpartition("/")
    return Storage(folder or slash or "."), name


@functools.lru_cache(maxsize=4)
def _archive(storage: Storage, name: str, version: tuple[object, ...]) -> zipfile.ZipFile:
    """An open archive, kept: the directory of one with 260,000 members takes seconds to read."""
    return zipfile.ZipFile(storage.open(name))


class _InPieces(io.FileIO):
    def write(self, data: Any) -> int:
        return super().write(memoryview(data)[:PIECE])  # who buffers it comes again with the rest


@contextlib.contextmanager
def _appearing(target: Path) -> Iterator[BinaryIO]:
    """A file under a temporary name, which gets its own once all is on the disk."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{target.name[:80]}.", suffix=TEMPORARY, dir=target.parent)
    try:
        with io.BufferedWriter(_InPieces(handle, "w")) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    """Make a rename durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def is_full(error: OSError) -> bool:
    """Whether there is no room left, rather than a passing failure."""
    return error.errno in _FULL


def _plainly(action: Callable[[], T]) -> T:
    """An object store's own errors as OSError."""
    try:
        return action()
    except OSError:
        raise
    except Exception as error:
        from botocore.exceptions import BotoCoreError, NoCredentialsError

        if isinstance(error, NoCredentialsError):
            raise PermissionError(f"{error} (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, or a profile)") from error
        if isinstance(error, BotoCoreError):
            raise OSError(str(error)) from error
        raise


def _persist(action: Callable[[], T]) -> T:
    """Try again with growing pauses: object stores fail for moments."""
    for attempt in range(_TRIES):
        try:
            return _plainly(action)
        except _LASTING:
            raise
        except OSError as error:
            if is_full(error) or attempt == _TRIES - 1:
                raise
            time.sleep(_PAUSE_S * 2**attempt)
    raise AssertionError("unreachable")
