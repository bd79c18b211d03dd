"""Failures of storage: errors that name their file, and a bounded number of further tries."""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")

TRIES = 5
PAUSE_S = 0.2  # before the second try; each further pause is twice as long
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PERMANENT = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)
_CODES = {
    FileNotFoundError: errno.ENOENT,
    PermissionError: errno.EACCES,
    FileExistsError: errno.EEXIST,
    IsADirectoryError: errno.EISDIR,
    NotADirectoryError: errno.ENOTDIR,
    TimeoutError: errno.ETIMEDOUT,
}


class UnreadableFile(OSError):
    """The disk could not deliver this one file's bytes (EIO), in several tries; ``filename`` names it."""


def is_full(error: OSError) -> bool:
    """Whether storage has no room left, so that further tries are useless."""
    return error.errno in _FULL


def named(error: OSError, name: str) -> OSError:
    """The error itself if it names a file, else an error of the same kind that names ``name`` and can be pickled."""
    if error.filename is not None:
        return error
    code = error.errno or next((code for kind, code in _CODES.items() if isinstance(error, kind)), errno.EIO)
    return OSError(code, error.strerror or str(error), name)  # Python chooses the subclass by the code


@contextlib.contextmanager
def naming(name: str) -> Iterator[None]:
    """Let every OSError of the block name a file: ``name``, unless it names one already."""
    try:
        yield
    except OSError as error:
        renamed = named(error, name)
        if renamed is error:
            raise
        raise renamed from error


def persist(action: Callable[[], T], passing: Callable[[OSError], bool] | None = None) -> T:
    """The result of an action, which is tried up to ``TRIES`` times with growing pauses.

    Args:
        action: raises OSError where it fails.
        passing: whether a further try may succeed after an error; by default not after permanent ones and full disks.

    Raises:
        OSError: the error of the last try, or the first error after which no try can succeed.
    """
    may_pass = passing or _may_pass
    for attempt in range(1, TRIES):
        try:
            return action()
        except OSError as error:
            if not may_pass(error):
                raise
            time.sleep(PAUSE_S * 2 ** (attempt - 1))
    return action()


def _may_pass(error: OSError) -> bool:
    return not isinstance(error, _PERMANENT) and not is_full(error)
