"""What kind of machine this is."""

from __future__ import annotations

import contextlib
import platform
from pathlib import Path


def cpu() -> str:
    """The kind of CPU; on another kind, resamplers may round differently."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"{platform.machine()} {line.partition(':')[2].strip()}"
    return platform.machine()
