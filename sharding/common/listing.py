"""What lies below a local folder, whatever users keep there: links in circles, pipes, what killed writers left."""

from __future__ import annotations

import datetime
import errno
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

TEMPORARY = ".tmp"  # ends the hidden names of files that are not whole yet


class Entry(NamedTuple):
    """A file in a listing.

    Attributes:
        size: in bytes.
        changed: when it was put there, or changed last, in seconds since 1970; infinite where nobody tells.  Locally
            the kernel's own record (ctime), which tools that copy cannot set back.
    """

    size: int
    changed: float


def files_below(folder: str, prefix: str, above: tuple[tuple[int, int], ...] = ()) -> Iterator[str]:
    """Names of all files below a folder, without a stat of each: a dataset has 400,000.  Links may form loops."""
    try:
        found = Path(folder).stat()
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    here = (found.st_dev, found.st_ino)
    if here in above:
        return
    for entry in entries:
        try:
            is_folder = entry.is_dir()
            if not (is_folder or entry.is_file()):
                entry.stat()  # a pipe or device is there, a link to nowhere is not
        except FileNotFoundError:
            continue
        except OSError:  # links in a circle: whoever opens it is told
            is_folder = False
        if is_folder:
            yield from files_below(entry.path, f"{prefix}{entry.name}/", (*above, here))
        elif not (entry.name.startswith(".") and entry.name.endswith(TEMPORARY)):
            yield prefix + entry.name


def entry_of(path: Path) -> Entry:
    """Of a listed file; where links that form a circle lead nowhere, it is empty."""
    try:
        found = path.stat()
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        return Entry(0, math.inf)
    return Entry(found.st_size, found.st_ctime)


def told(time: object) -> float:
    """What an object store says about when a file was put there."""
    return time.timestamp() if isinstance(time, datetime.datetime) else math.inf
