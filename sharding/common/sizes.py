"""Counts, sizes in bytes and times as people write them."""

from __future__ import annotations

import re

_SIZE = re.compile(r"(?P<number>\d+(\.\d+)?([eE]\d+)?)\s*(?P<prefix>[kKMGT]?)(?P<binary>i?)B?")


def parse_size(text: str) -> int:
    """Bytes: ``1e9``, ``500MB``, ``2GiB``; ``ValueError`` with a sentence for anything else."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"not a size: {text!r}; write 1e9, 500MB or 2GiB")
    base = 1024 if found["binary"] else 1000
    number = float(found["number"]) * base ** " KMGT".index(found["prefix"].upper() or " ")
    if not 1 <= number < 1 << 63:
        raise ValueError(f"not a size of a file: {text!r}")
    return int(number)


def show_size(count: float) -> str:
    """Bytes with three digits: ``1.23 GB``."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} PB"


def show_hours(hours: float) -> str:
    """Hours in the unit that people use for as long a time: ``20 s``, ``5 min``, ``3.2 h``, ``4.5 days``."""
    seconds = round(hours * 3600)
    if seconds < 1:
        return "under 1 s"
    if seconds < 100:
        return f"{seconds} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"


def quantity(count: int, one: str, several: str = "") -> str:
    """A number of things: ``1 clip``, ``1,234 clips``; ``several`` is a plural that is not ``one`` and s."""
    return f"{count:,} {one if count == 1 else several or one + 's'}"
