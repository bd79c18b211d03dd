"""Tar members with fixed metadata: the only bytes of a shard that are neither sound nor JSON."""

from __future__ import annotations

import tarfile

BLOCK = 512
END = bytes(2 * BLOCK)


def header(name: str, size: int) -> bytes:
    """The header of a member: USTAR, preceded by a PAX record only where the name needs one."""
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, 0o644, 0
    return info.tobuf(tarfile.PAX_FORMAT)


def header_size(name: str, size: int) -> int:
    """Bytes of ``header(name, size)``."""
    if len(name) <= 100 and name.isascii() and size < 1 << 33:  # what USTAR's fields hold
        return BLOCK
    return len(header(name, size))


def padded(size: int) -> int:
    """Bytes of a member's content with the zeros that fill its last block."""
    return size + -size % BLOCK


def padding(size: int) -> bytes:
    """Zeros that fill a member's last block."""
    return bytes(-size % BLOCK)
