"""Bytes on their way: in memory, and in a temporary file once they are many."""

from __future__ import annotations

import tempfile
from typing import Any

from sharding.common.storage.failures import naming

_IN_MEMORY = 32 << 20  # bytes


class Spool(tempfile.SpooledTemporaryFile[bytes]):
    """A binary file for writing and then reading, which is gone once it is closed.  A lack of room names TMPDIR."""

    def __init__(self) -> None:
        super().__init__(_IN_MEMORY)

    def write(self, data: Any) -> int:
        with naming(f"{tempfile.gettempdir()} (TMPDIR)"):
            return super().write(data)
