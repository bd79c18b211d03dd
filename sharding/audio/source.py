"""The bytes of a sound file: read once, hashed meanwhile, and readable from any offset."""

from __future__ import annotations

import hashlib
import io
from typing import BinaryIO


class Source:
    """The bytes of one file: in memory if they are few, else in a seekable file.

    The SHA-256 follows the reads as long as they are in order, so that a file that is decoded from front to back is
    read only once; ``sha256`` reads the rest.

    Args:
        content: the whole file as bytes, or a seekable binary file.
        size: its length in bytes.
    """

    def __init__(self, content: bytes | BinaryIO, size: int) -> None:
        self.size = size
        self.error: Exception | None = None  # the error of a read that a decoder made; decoders do not pass it on
        self._bytes = content if isinstance(content, bytes) else None
        self._file = io.BytesIO(content) if isinstance(content, bytes) else content
        self._digest = hashlib.sha256(self._bytes or b"")
        self._hashed = len(self._bytes or b"")

    def read(self, offset: int, size: int) -> bytes:
        """At most ``size`` bytes from ``offset``; fewer only at the end of the file."""
        if self._bytes is not None:
            return self._bytes[offset : offset + size]
        self._file.seek(offset)
        parts: list[bytes] = []
        left = size
        while left > 0:
            part = self._file.read(left)
            if not part:
                break
            parts.append(part)
            left -= len(part)
        data = b"".join(parts)
        if offset <= self._hashed < offset + len(data):
            self._digest.update(memoryview(data)[self._hashed - offset :])
            self._hashed = offset + len(data)
        return data

    def view(self, offset: int = 0, end: int | None = None, head: bytes = b"") -> BinaryIO:
        """A new seekable file of the bytes from ``offset`` to ``end`` (None: the end of the file).

        ``head`` takes the place of as many of its first bytes.
        """
        if self._bytes is not None:
            return io.BytesIO(head + self._bytes[offset + len(head) : end])
        return io.BufferedReader(_View(self, offset, self.size if end is None else end, head), buffer_size=1 << 18)

    def sha256(self) -> str:
        """Hex digest of the whole file."""
        while self._hashed < self.size and self.read(self._hashed, 1 << 20):
            pass
        return self._digest.hexdigest()


class _View(io.RawIOBase):
    """A file that is a part of a ``Source``.  An error of a read is kept in ``Source.error``, for decoders hide it."""

    def __init__(self, source: Source, offset: int, end: int, head: bytes) -> None:
        self._source, self._offset, self._end, self._position = source, offset, end, 0
        self._head = head

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position}.get(whence, self._end - self._offset)
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        try:
            left = max(0, self._end - self._offset - self._position)
            data = self._source.read(self._offset + self._position, min(len(buffer), left))
        except Exception as error:
            self._source.error = error
            return 0
        buffer[: len(data)] = data
        instead = self._head[self._position :][: len(data)]
        buffer[: len(instead)] = instead
        self._position += len(data)
        return len(data)
