"""Members of zip archives, named ``ARCHIVE.zip!/MEMBER``.

fsspec's own ``zip://`` file system is not used: it serves an archive that was replaced from its old directory, and a
seek backwards in a member decompresses it from the start.
"""

from __future__ import annotations

import errno
import re
import shutil
import zipfile
from typing import BinaryIO, NamedTuple, cast

from sharding.common.storage.backend import Backend, checked
from sharding.common.storage.failures import UnreadableFile
from sharding.common.storage.spool import Spool

_MEMBER = re.compile(r"(.+?\.zip)!/(.+)", re.IGNORECASE | re.DOTALL)
# A member that decompresses to more than MANY bytes, and to more than RATIO times its size in the archive, is a bomb.
# Deflate reaches 1,032; of sound, only long silence exceeds RATIO.
MANY = 64 << 20
RATIO = 200
LARGEST = 8 << 30  # bytes of a member: 12 hours of stereo at 48 kHz and 16 bit
_OPEN_ARCHIVES = 4


class Member(NamedTuple):
    """A member of an archive, by names."""

    archive: str
    name: str


def member_of(path: str) -> Member | None:
    """The archive's and the member's name where ``path`` is ``ARCHIVE.zip!/MEMBER``; else None."""
    inside = _MEMBER.fullmatch(path)
    return Member(*inside.groups()) if inside else None


class Archives:
    """The archives of one folder that were read last, kept open: a directory of 260,000 members takes seconds to read.

    An archive that was replaced is opened anew.
    """

    def __init__(self, files: Backend) -> None:
        self._files = files
        self._open: dict[str, tuple[tuple[object, ...], zipfile.ZipFile]] = {}  # the one used last is at the end

    def size(self, member: Member) -> int:
        """Bytes of a member once decompressed; FileNotFoundError where it is absent."""
        return self._find(member)[1].file_size

    def open(self, member: Member) -> BinaryIO:
        """A seekable file with the member's contents, decompressed.

        Raises:
            UnreadableFile: it would decompress to an absurd size.  The size is the one that the archive declares;
                zipfile never decompresses more than that.
        """
        archive, found = self._find(member)
        absurd = found.file_size > MANY and found.file_size > RATIO * found.compress_size
        if absurd or found.file_size > LARGEST:
            what = f"decompresses from {found.compress_size:,} to {found.file_size:,} bytes; unpack it to use it"
            raise UnreadableFile(errno.EIO, what, f"{member.archive}!/{member.name}")
        with archive.open(found) as source:
            spool = Spool()
            shutil.copyfileobj(source, spool, 1 << 20)
        spool.seek(0)
        return cast(BinaryIO, spool)

    def _find(self, member: Member) -> tuple[zipfile.ZipFile, zipfile.ZipInfo]:
        archive = self._archive(checked(member.archive))
        try:
            return archive, archive.getinfo(member.name)
        except KeyError:
            raise FileNotFoundError(f"{member.archive} has no member {member.name}") from None

    def _archive(self, name: str) -> zipfile.ZipFile:
        version = self._files.version(name)
        known = self._open.pop(name, None)
        archive = known[1] if known and known[0] == version else zipfile.ZipFile(self._files.open(name))
        self._open[name] = version, archive
        while len(self._open) > _OPEN_ARCHIVES:
            del self._open[next(iter(self._open))]
        return archive
