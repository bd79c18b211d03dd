"""Whose folder a run's is: one trainer's at a time, and one recipe's."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from sharding.common.errors import InputError
from sharding.common.storage import Storage
from training.config import resolved
from training.config.loading import load_recipe
from training.config.sections import Recipe
from training.engine import checkpoint
from training.engine.distributed import Group
from training.models.encoders.outside import carried
from training.models.hub import EXPORT
from training.run.progress import StatusLine
from training.tasks.retrieval import TOKENIZER

LOCK = ".lock"
PATIENCE_S = 30.0  # a rank that Ray Train is about to end can outlive the start of its successor for so long
_LOCKLESS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)  # file systems without locks: nobody can be kept out


@contextlib.contextmanager
def hold_run_folder(recipe: Recipe, folder: Path, group: Group) -> Iterator[None]:
    """Keep other trainers out, and write the run's recipe or make sure that the one there is the same run.

    The lock is the kernel's, held by the first rank, and ends with its process, however that ends.

    Raises:
        InputError: on every rank; another process trains there, or the folder is another recipe's.
        OSError: on every rank; the folder cannot be written.
    """
    with contextlib.ExitStack() as held:
        refusal: Exception | None = None
        if group.rank == 0:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                held.enter_context(_lock(folder))
                _write_recipe(recipe, folder)
            except (InputError, OSError) as error:
                refusal = error
        refusal = group.gather_objects(refusal, "run folder")[0]
        if refusal is not None:
            raise refusal
        yield


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Not ``flock``: a killed rank's loader processes would inherit that, and hold it for as long as they live."""
    with (folder / LOCK).open("a") as file:
        deadline, told = time.monotonic() + PATIENCE_S, False
        while not _locked(file.fileno()):
            if time.monotonic() > deadline:
                raise InputError(
                    "another process trains in this folder",
                    file=folder,
                    remedy="wait for it or end it, then the same command goes on; or name another --run",
                )
            if not told:
                StatusLine("", 0).say(f"waiting up to {PATIENCE_S:.0f} s for another process that trains in {folder}")
                told = True
            time.sleep(0.5)
        yield


def _locked(handle: int) -> bool:
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        if error.errno not in _LOCKLESS:
            raise
    return True


def _write_recipe(recipe: Recipe, folder: Path) -> None:
    path = folder / "recipe.yaml"
    if not checkpoint.steps(folder / "checkpoints"):
        if (folder / EXPORT).exists():
            raise InputError(
                "there is an export of a run whose checkpoints are gone",
                file=folder / EXPORT,
                remedy="move it away to train afresh here, or name another --run",
            )
        shutil.rmtree(folder / TOKENIZER, ignore_errors=True)  # of a start that came to nothing: it is not this run's
    elif path.is_file():
        changed = resolved.differences(load_recipe(path), recipe)
        if changed:
            raise InputError(
                "the run was started with another recipe: " + "; ".join(changed[:5]),
                file=path,
                remedy="use the same recipe to go on, or another --run to start afresh",
            )
    files = {part: carried(getattr(recipe, part), part, folder) for part in ("audio", "text")}
    Storage(folder).write(path.name, resolved.dump(replace(recipe, **files)).encode())
