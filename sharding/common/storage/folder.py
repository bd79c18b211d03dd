"""A folder, local or in an object store, with the few operations that Earshot needs.

Nothing half-written is ever visible: a file appears under its name whole, or not at all.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from sharding.common.errors import MEND, InputError
from sharding.common.storage.backend import Backend, Entry, Listing, checked
from sharding.common.storage.local import LocalFolder
from sharding.common.storage.object_store import ObjectStore
from sharding.common.storage.zipped import Archives, member_of

_INCOMPLETE = re.compile(r"[A-Za-z][A-Za-z0-9]+:(/(?!/)|/*$)")  # s3:/bucket, and s3:// without a bucket


class Storage:
    """Files below ``url``: a local path, or any address that fsspec knows (``s3://bucket/folder``).

    Credentials and endpoints of object stores come from the usual environment (``AWS_ACCESS_KEY_ID``,
    ``AWS_ENDPOINT_URL``, ...).  Names are relative, with ``/``; one that climbs out of the folder is refused.  Errors
    are OSError and name the file.  Picklable.

    Args:
        url: the folder.
        follow_links: False: an InputError for every file that links of a local folder reach outside of it.
    """

    def __init__(self, url: str | os.PathLike[str], follow_links: bool = True) -> None:
        if _INCOMPLETE.match(str(url)):  # it would be taken for a folder of that name on this machine
            raise InputError("incomplete address", value=str(url), remedy="write s3://BUCKET/FOLDER, or a local folder")
        if str(url).startswith("memory://"):
            raise InputError(
                "files in memory are gone when the process ends, and no other process sees them",
                value=str(url),
                remedy="give a local folder, or s3://BUCKET/FOLDER",
            )
        self.url = str(url).rstrip("/") or "/"
        self.follow_links = follow_links
        local = self.local
        self._files: Backend = ObjectStore(self.url) if local is None else LocalFolder(local, follow_links)
        self._archives = Archives(self._files)

    def __reduce__(self) -> tuple[type[Storage], tuple[str, bool]]:
        return Storage, (self.url, self.follow_links)

    def __repr__(self) -> str:
        return f"Storage({self.url!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Storage) and other.__reduce__() == self.__reduce__()

    def __hash__(self) -> int:
        return hash((self.url, self.follow_links))

    @property
    def local(self) -> Path | None:
        """The folder on this machine, or None for an object store."""
        if "://" not in self.url:
            return Path(self.url)
        return Path(self.url.removeprefix("file://")) if self.url.startswith("file://") else None

    def child(self, folder: str) -> Storage:
        """The storage of a folder below this one."""
        return Storage(f"{self.url}/{checked(folder)}", self.follow_links)

    def name(self, path: str) -> str:
        """A file's full name, for messages."""
        return f"{self.url}/{path}"

    @staticmethod
    def archive(path: str) -> str | None:
        """The archive's name where ``path`` names a zip member, ``ARCHIVE.zip!/MEMBER``; else None."""
        member = member_of(path)
        return member.archive if member else None

    def exists(self, path: str) -> bool:
        """Whether a file of that name exists."""
        return self._files.is_file(checked(path))

    def size(self, path: str) -> int:
        """Bytes of a file, or of a zip member once decompressed; FileNotFoundError where it is absent."""
        member = member_of(path)
        return self._archives.size(member) if member else self._files.size(checked(path))

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Bytes of every file below a folder, from one listing; names are relative to this storage."""
        return {name: entry.size for name, entry in self.entries(folder).items()}

    def entries(self, folder: str = "") -> dict[str, Entry]:
        """Size and time of every file below a folder, from one listing; names are relative to this storage."""
        return self._files.entries(checked(folder))

    def list(self, folder: str = "") -> list[str]:
        """Every file below a folder, recursively, sorted; an absent folder is empty."""
        return self._files.names(checked(folder))

    def listing(self, folder: str = "") -> Listing:
        """As ``list``, with the names of the files that are refused because links lead out of this storage to them."""
        return self._files.listing(checked(folder))

    def read(self, path: str, offset: int = 0, size: int | None = None) -> bytes:
        """``size`` bytes from ``offset``, or all that follow; fewer where the file ends."""
        if self.archive(path) is None:
            return self._files.read(checked(path), offset, size)
        with self.open(path) as member:
            member.seek(offset)
            return member.read() if size is None else member.read(size)

    def open(self, path: str) -> BinaryIO:
        """A seekable file for reading; of ``ARCHIVE.zip!/MEMBER``, the member's contents."""
        member = member_of(path)
        return self._archives.open(member) if member else self._files.open(checked(path))

    def write(self, path: str, data: bytes) -> None:
        """Put a whole file under its name."""
        with self.writer(path) as file:
            file.write(data)

    @contextlib.contextmanager
    def writer(self, path: str) -> Iterator[BinaryIO]:
        """A file that appears under its name when the block ends without an error, and never otherwise."""
        with self._files.writer(checked(path)) as file:
            yield file

    def put_if_absent(self, path: str, data: bytes) -> bytes:
        """Put a whole file under its name unless there is one (see ``ObjectStore.put_if_absent``).

        For object stores alone: on one machine, the kernel's locks serve this purpose.

        Returns:
            what the file holds afterwards; ``b""`` where it has been removed since.
        """
        assert isinstance(self._files, ObjectStore)
        self._files.put_if_absent(checked(path), data)
        try:
            return self.read(path)
        except FileNotFoundError:
            return b""

    def upload(self, file: Path, path: str) -> None:
        """Put a file of this machine under a name, whole or not at all.  For object stores alone."""
        assert isinstance(self._files, ObjectStore)
        self._files.upload(file, checked(path))

    def download(self, path: str, file: Path) -> None:
        """Copy a file to this machine; the copy may be cut where this fails.  For object stores alone."""
        assert isinstance(self._files, ObjectStore)
        file.parent.mkdir(parents=True, exist_ok=True)
        self._files.download(checked(path), file)

    def remove(self, path: str) -> None:
        """Remove a file; an absent one is fine."""
        self._files.remove(checked(path))

    def remove_tree(self, folder: str) -> None:
        """Remove a folder and everything below it; an absent one is fine."""
        self._files.remove_tree(checked(folder))

    def move(self, source: str, target: str) -> None:
        """Rename a file.  Where it is absent, an earlier call has renamed it, and nothing happens."""
        if self.exists(source):
            self._files.move(checked(source), checked(target))

    def sweep(self) -> None:
        """Remove what killed writers left behind under temporary names.  Only for the sole writer."""
        self._files.sweep()

    def read_table(self, path: str, columns: Sequence[str] | None = None) -> pa.Table:
        """A Parquet file.

        Raises:
            InputError: it is damaged.
        """
        source = pa.BufferReader(self.read(path)) if self.local is None else self.open(path)
        try:
            with source:
                return pq.read_table(source, columns=columns)
        except (pa.ArrowException, OSError) as error:  # pyarrow raises either for damage
            raise InputError(f"damaged: {error}", file=self.name(path), remedy=MEND) from error

    def read_json(self, path: str) -> dict[str, Any]:
        """A JSON file that holds an object; InputError where it is damaged."""
        try:
            return dict(json.loads(self.read(path)))
        except (ValueError, TypeError, RecursionError) as error:
            raise InputError(f"damaged: {error}", file=self.name(path), remedy=MEND) from error

    def write_table(self, path: str, table: pa.Table) -> None:
        """A Parquet file whose bytes depend only on the table and on pyarrow's version."""
        buffer = io.BytesIO()
        pq.write_table(table.combine_chunks(), buffer, compression="zstd", row_group_size=1 << 17)
        self.write(path, buffer.getvalue())


def located(path: str) -> tuple[Storage, str]:
    """The storage of the folder in which a file lies, and the file's name there."""
    folder, slash, name = path.rstrip("/").rpartition("/")
    return Storage(folder or slash or "."), name
