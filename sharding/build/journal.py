"""File operations that belong together: all of them are carried out, even where the builder is killed in between.

A command that changes a finished build first writes everything new to files of their own, where nobody looks for
them.  Then it writes an *intent*: the list of file operations that put the new files in place.  From that moment on the
change is decided.  A builder that is killed leaves the intent behind, and the next one carries out the whole list
again before it does anything else.  So each list must give the same result when it is carried out again from its
beginning, wherever the former attempt ended.

An intent has a second list, the cleanup, which removes the files that the first list was made from.  It begins only
when the first list is complete, and is then repeated alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from sharding.common.errors import InputError
from sharding.common.storage import Storage
from sharding.layout import Work, in_work

_INTENT = in_work(Work.INTENT)


class Operation(NamedTuple):
    """One change of files below OUT.

    Attributes:
        action: what is done, a key of ``_ACTIONS``.
        target: the file or folder that changes.
        content: for ``move`` and ``copy``: the file that it is made from; for ``write``: its text; else empty.
    """

    action: str
    target: str
    content: str = ""


def remove(file: str) -> Operation:
    """Remove a file, if it is there."""
    return Operation("remove", file)


def remove_folder(folder: str) -> Operation:
    """Remove a folder and all below it, if it is there."""
    return Operation("remove_folder", folder)


def move(source: str, target: str) -> Operation:
    """Give ``source`` the name ``target``; where ``source`` is gone, an earlier attempt has done so."""
    return Operation("move", target, source)


def copy(source: str, target: str) -> Operation:
    """Write the contents of ``source`` to ``target``; ``source`` must stay until the cleanup."""
    return Operation("copy", target, source)


def write(target: str, data: bytes) -> Operation:
    """Write a small text file."""
    return Operation("write", target, data.decode())


_ACTIONS: Mapping[str, Callable[[Storage, Operation], None]] = {
    "remove": lambda out, operation: out.remove(operation.target),
    "remove_folder": lambda out, operation: out.remove_tree(operation.target),
    "move": lambda out, operation: out.move(operation.content, operation.target),
    "copy": lambda out, operation: out.write(operation.target, out.read(operation.content)),
    "write": lambda out, operation: out.write(operation.target, operation.content.encode()),
}


def carry_out(out: Storage, operations: Sequence[Operation], cleanup: Sequence[Operation] = ()) -> None:
    """Decide on a change of the build at ``out``, and make it; see the module's description."""
    _decide(out, operations, cleanup)
    finish(out)


def finish(out: Storage) -> None:
    """Carry out what a killed builder had decided; where it had decided nothing, nothing happens.

    Raises:
        InputError: the intent is damaged.
    """
    while out.exists(_INTENT):
        operations, cleanup = _read(out)
        for operation in operations:
            _ACTIONS[operation.action](out, operation)
        if cleanup:
            _decide(out, cleanup, ())
        else:
            out.remove(_INTENT)


def _decide(out: Storage, operations: Sequence[Operation], cleanup: Sequence[Operation]) -> None:
    out.write(_INTENT, json.dumps({"operations": operations, "cleanup": cleanup}).encode())


def _read(out: Storage) -> tuple[list[Operation], list[Operation]]:
    intent = out.read_json(_INTENT)
    try:
        operations = [Operation(*map(str, one)) for one in intent["operations"]]
        cleanup = [Operation(*map(str, one)) for one in intent["cleanup"]]
        if unknown := {one.action for one in (*operations, *cleanup)} - set(_ACTIONS):
            raise ValueError(f"unknown actions {sorted(unknown)}")
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"not a list of file operations: {error}",
            file=out.name(_INTENT),
            remedy="another version of Earshot or a damaged disk wrote it: build into an empty folder",
        ) from error
    return operations, cleanup
