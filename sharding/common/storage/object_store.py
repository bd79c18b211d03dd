"""A folder in an object store, through fsspec."""

from __future__ import annotations

import contextlib
import datetime
import functools
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import fsspec

from sharding.common.errors import InputError
from sharding.common.storage.backend import Entry, Listing
from sharding.common.storage.failures import naming, persist
from sharding.common.storage.spool import Spool

T = TypeVar("T")

_CREDENTIALS = "(credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile)"
CONNECTIONS = 64  # to a server at once; botocore's own limit is 10


class ObjectStore:
    """The backend of an address that fsspec knows, such as ``s3://bucket/folder``.

    Object stores fail for moments, so every operation is tried again a few times, uploads as a whole: s3fs repeats
    single requests, and other file systems of fsspec repeat nothing.  A file appears with the upload's own commit.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    @functools.cached_property
    def _files(self) -> Any:
        protocol = self.url.partition("://")[0]
        try:
            # cached listings would hide what other workers have written since
            more = {"config_kwargs": {"max_pool_connections": CONNECTIONS}} if protocol in ("s3", "s3a") else {}
            return fsspec.filesystem(protocol, use_listings_cache=False, skip_instance_cache=True, **more)
        except (ImportError, ValueError) as error:
            raise InputError(str(error), file=self.url, remedy="give a local folder, or s3://...") from error

    def is_file(self, name: str) -> bool:
        try:  # fsspec's isfile() takes every failure for an absent file
            return bool(self._info(name)["type"] == "file")
        except FileNotFoundError:
            return False

    def size(self, name: str) -> int:
        return int(self._info(name)["size"])

    def version(self, name: str) -> tuple[object, ...]:
        found = self._info(name)
        return found["size"], found.get("ETag"), str(found.get("LastModified"))

    def names(self, folder: str) -> list[str]:
        return sorted(self.entries(folder))

    def listing(self, folder: str) -> Listing:
        return Listing(self.names(folder), [])

    def entries(self, folder: str) -> dict[str, Entry]:
        root = self._files._strip_protocol(self.url).rstrip("/")
        try:
            found = self._persist(folder, lambda key: self._files.find(key, detail=True))
        except FileNotFoundError as error:
            if _lacks_bucket(error):
                raise
            return {}
        # the address of a single file is listed as itself, and consoles make folders by empty objects named "folder/"
        return {
            name[len(root) + 1 :]: Entry(int(info["size"]), _seconds(info.get("LastModified")))
            for name, info in sorted(found.items())
            if name.startswith(f"{root}/") and not name.endswith("/") and info["type"] == "file"
        }

    def read(self, name: str, offset: int, size: int | None) -> bytes:
        if size == 0:
            return b""
        start = offset or None  # without an offset no range is asked for: an empty file has none that could be met
        end = None if size is None else offset + size
        return bytes(self._persist(name, lambda key: self._files.cat_file(key, start=start, end=end)))

    def open(self, name: str) -> BinaryIO:
        return cast(BinaryIO, self._persist(name, lambda key: self._files.open(key, "rb")))

    @contextlib.contextmanager
    def writer(self, name: str) -> Iterator[BinaryIO]:
        with Spool() as waiting:
            yield cast(BinaryIO, waiting)
            self._persist(name, functools.partial(self._upload, waiting))

    def _upload(self, waiting: Spool, key: str) -> None:
        waiting.seek(0)
        out = self._files.open(key, "wb")
        try:
            shutil.copyfileobj(waiting, out, 8 << 20)
            out.close()
        except BaseException:
            out.discard()  # else the parts that did arrive would be committed
            out.closed = True
            raise

    def upload(self, file: Path, name: str) -> None:
        """Put a file of this machine under a name; it appears with the upload's own commit."""
        self._persist(name, lambda key: self._files.put_file(str(file), key))

    def download(self, name: str, file: Path) -> None:
        """Copy a file to this machine, over what is there."""
        self._persist(name, lambda key: self._files.get_file(key, str(file)))

    def put_if_absent(self, name: str, data: bytes) -> None:
        """Put a whole file under its name unless there is one.

        Where several try at once, one succeeds if the store knows conditional puts (S3's ``If-None-Match: *``); where
        it does not, the last one overwrites the others.
        """
        try:
            self._plainly(name, lambda key: self._files.pipe_file(key, data, mode="create"))
        except FileExistsError:
            return
        except (OSError, TypeError, ValueError, NotImplementedError):
            # another server's words for a condition that did not hold, or a store that knows no conditions
            if not self.is_file(name):
                with self.writer(name) as file:
                    file.write(data)

    def remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._persist(name, lambda key: self._files.rm_file(key))

    def remove_tree(self, folder: str) -> None:
        for name in self.names(folder):
            self.remove(name)

    def move(self, source: str, target: str) -> None:
        self._persist(source, lambda key: self._files.copy(key, self._key(target)))
        self.remove(source)

    def sweep(self) -> None:
        """Do nothing: an upload that was broken off leaves no file."""

    def _info(self, name: str) -> dict[str, Any]:
        return dict(self._persist(name, lambda key: self._files.info(key)))

    def _key(self, name: str) -> str:
        return f"{self.url}/{name}" if name else self.url

    def _persist(self, name: str, action: Callable[[str], T]) -> T:
        return persist(lambda: self._plainly(name, action))

    def _plainly(self, name: str, action: Callable[[str], T]) -> T:
        """The action's result; an object store's own errors are raised as OSError that names the file."""
        key = self._key(name)
        with naming(key):
            try:
                return action(key)
            except PermissionError as error:  # often no more than "Forbidden"
                raise PermissionError(f"{error.strerror or error} {_CREDENTIALS}") from error
            except OSError:
                raise
            except Exception as error:
                from botocore.exceptions import BotoCoreError, NoCredentialsError

                if isinstance(error, NoCredentialsError):
                    raise PermissionError(f"{error} {_CREDENTIALS}") from error
                if isinstance(error, BotoCoreError):
                    raise OSError(str(error)) from error
                raise


def _lacks_bucket(error: BaseException | None) -> bool:
    """Whether S3 said that the bucket itself does not exist: not an empty folder, but a wrong address."""
    while error is not None:
        if getattr(error, "response", {}).get("Error", {}).get("Code") == "NoSuchBucket":
            return True
        error = error.__cause__
    return False


def _seconds(time: object) -> float:
    """When an object store says that a file was put there, in seconds since 1970; infinite where it does not say."""
    return time.timestamp() if isinstance(time, datetime.datetime) else math.inf
