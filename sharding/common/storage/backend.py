"""What a kind of storage must be able to do."""

from __future__ import annotations

import posixpath
from contextlib import AbstractContextManager
from typing import BinaryIO, NamedTuple, Protocol

from sharding.common.errors import InputError


class Entry(NamedTuple):
    """A file in a listing.

    Attributes:
        size: in bytes.
        changed: when the file was last changed, in seconds since 1970; infinite where the storage does not say.
            Locally this is the kernel's own record (ctime), which copying tools cannot set back.
    """

    size: int
    changed: float


class Listing(NamedTuple):
    """Names of files below a folder, sorted.

    Attributes:
        names: files that can be read.
        outside: files that are reached only through links that lead out of the folder, where such are refused.
    """

    names: list[str]
    outside: list[str]


class Backend(Protocol):
    """Files below one folder.  Names are relative, use ``/`` and have been checked; ``""`` is the folder itself.

    Every operation raises OSError with the file's full name; FileNotFoundError where the file is absent.
    """

    def is_file(self, name: str) -> bool:
        """Whether a file of that name exists."""
        ...

    def size(self, name: str) -> int:
        """Bytes of a file."""
        ...

    def version(self, name: str) -> tuple[object, ...]:
        """A value that changes when the file is replaced."""
        ...

    def names(self, folder: str) -> list[str]:
        """Every file below a folder, recursively, sorted; an absent folder is empty."""
        ...

    def listing(self, folder: str) -> Listing:
        """As ``names``, with the files that are refused."""
        ...

    def entries(self, folder: str) -> dict[str, Entry]:
        """Size and time of every file below a folder, from one listing."""
        ...

    def read(self, name: str, offset: int, size: int | None) -> bytes:
        """``size`` bytes from ``offset``, or all that follow; fewer where the file ends."""
        ...

    def open(self, name: str) -> BinaryIO:
        """A seekable file for reading."""
        ...

    def writer(self, name: str) -> AbstractContextManager[BinaryIO]:
        """A file that appears under its name, whole, when the block ends without an error."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file; an absent one is fine."""
        ...

    def remove_tree(self, folder: str) -> None:
        """Remove a folder and everything below it; an absent one is fine."""
        ...

    def move(self, source: str, target: str) -> None:
        """Rename a file that exists; a file that has the new name is replaced."""
        ...

    def sweep(self) -> None:
        """Remove what killed writers left behind under temporary names."""
        ...


def checked(name: str) -> str:
    """The name itself; ``""`` for the folder.  InputError where the name climbs out of the folder."""
    plain = posixpath.normpath(name.replace("\\", "/")) if name else ""
    if plain == ".." or plain.startswith(("/", "../")) or "\0" in plain:
        raise InputError("a name that climbs out of its folder", value=name)
    return "" if plain == "." else name
