"""Whose folder OUT is: one builder at a time, one set of settings at a time, and nothing of anybody else's."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sharding.errors import InputError
from sharding.storage import Storage

_LOCK = ".build/lock"


@contextlib.contextmanager
def claim(out: Storage) -> Iterator[None]:
    """Keep a second builder out.

    Locally the lock ends with the process, however it ends.  An object store has no such lock: there a file
    says who builds, and one that a killed builder left behind on another machine must be removed by hand.
    """
    remedy = "wait for it, or end it; the same command then goes on"
    if out.local is not None:
        path = out.local / _LOCK
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError("another build is at work here", file=out.url, remedy=remedy) from None
            yield
        return
    me = {"host": socket.gethostname(), "pid": os.getpid()}
    if out.exists(_LOCK):
        owner = json.loads(out.read(_LOCK))
        dead = owner["host"] == me["host"] and not Path(f"/proc/{owner['pid']}").exists()
        if not dead:
            raise InputError(
                f"another build is at work here: process {owner['pid']} on {owner['host']}",
                file=out.url,
                remedy=f"{remedy}; if it is gone, remove {out.name(_LOCK)}",
            )
    out.write(_LOCK, json.dumps(me).encode())
    try:
        yield
    finally:
        out.remove(_LOCK)


def settle(out: Storage, settings: dict[str, Any], new_plan: bool) -> None:
    """Make sure that OUT is empty, or holds a build of these settings, finished or not.

    Raises:
        InputError: other settings, unless ``new_plan`` allows to throw that build away; or no build's files.
    """
    out.child(".build").sweep()
    if out.exists(".build/settings.json"):
        out.sweep()
        former = json.loads(out.read(".build/settings.json"))
        found = sorted(differences(former, settings))
        if not found:
            return
        if not new_plan:
            raise InputError(
                "there is a build with other settings here:\n    " + "\n    ".join(found),
                file=out.url,
                remedy="use those settings, another --out, or --new-plan to throw the former build away",
            )
    elif any(not name.startswith(".build/") for name in out.sizes("")):
        raise InputError("holds files that no build wrote", file=out.url, remedy="choose an empty --out")
    # what tells that a stage is through goes before what the stage wrote: a kill in between must not matter
    for name in ("dataset.json", ".build/catalogue.json", ".build/plan.json", "matches.parquet"):
        out.remove(name)
    for folder in ("records", "tasks", "facts", "fingerprints", "packs", "reopened"):
        out.remove_tree(f".build/{folder}")
    for name in ("fates.parquet", "orphans.parquet", ".build/retry.json"):
        out.remove(name)
    for folder in ("catalogue", "plan", "shards", "manifest", "report"):
        out.remove_tree(folder)
    out.write(".build/settings.json", json.dumps(settings, indent=1, sort_keys=True).encode())


def differences(former: Any, now: Any, place: str = "") -> Iterator[str]:
    """One line for every setting that is not the same, e.g. ``plan.shard_bytes: 1000 there, 2000 now``."""
    if isinstance(former, dict) and isinstance(now, dict):
        for name in sorted(set(former) | set(now)):
            yield from differences(former.get(name), now.get(name), f"{place}.{name}" if place else name)
    elif former != now:
        yield f"{place}: {former!r} there, {now!r} now"
