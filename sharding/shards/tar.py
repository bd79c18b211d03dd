"""The bytes of a shard that are neither sound nor JSON: the headers of tar members, and padding."""

from __future__ import annotations

import tarfile

BLOCK = 512
END = bytes(2 * BLOCK)


def header(name: str, size: int) -> bytes:
    """The header of a member: USTAR, with a PAX record before it only if the name or size needs one."""
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, 0o644, 0
    return info.tobuf(tarfile.PAX_FORMAT)


def header_size(name: str, size: int) -> int:
    """The length of ``header(name, size)`` in bytes."""
    if len(name) <= 100 and name.isascii() and size < 1 << 33:  # what USTAR's fields hold
        return BLOCK
    return len(header(name, size))


def padded(size: int) -> int:
    """The length in bytes of a member's contents with the zeros that fill its last block."""
    return size + -size % BLOCK


def padding(size: int) -> bytes:
    """The zeros that fill the last block of a member."""
    return bytes(-size % BLOCK)
