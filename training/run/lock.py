"""Locks the folder of a run, so that only one trainer writes to it, and only for one recipe."""

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
from training.config.extending import read_recipe
from training.config.loading import parse_recipe
from training.config.sections import Recipe
from training.engine import checkpoint
from training.engine.distributed import Group
from training.models.encoders.outside import carried, contents, is_outside
from training.models.hub import EXPORT
from training.run.progress import StatusLine
from training.tasks.retrieval import TOKENIZER

LOCK = ".lock"
PATIENCE_S = 30.0  # Ray Train can start a new rank this long before the old one has ended
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)  # the file system has no locks


@contextlib.contextmanager
def hold_run_folder(recipe: Recipe, folder: Path, group: Group) -> Iterator[None]:
    """Lock the folder of a run, and write the recipe, or check that the folder holds a run of this recipe.

    The first rank holds a lock of the kernel, which ends with its process, however that ends.  On a file system
    without locks nothing keeps a second trainer out.

    Raises:
        InputError: on every rank; another process trains in the folder, or the folder is that of another recipe.
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
    """Lock ``folder``.

    It uses ``lockf`` and not ``flock``: loader processes would inherit a ``flock`` and hold it after their rank
    was killed.
    """
    with (folder / LOCK).open("a") as file:
        deadline, announced = time.monotonic() + PATIENCE_S, False
        while not _locked(file.fileno()):
            if time.monotonic() > deadline:
                raise InputError(
                    "another process trains in this folder",
                    file=folder,
                    remedy="wait for it or end it, then run the same command again; or name another --run",
                )
            if not announced:
                StatusLine("", 0).say(f"waiting up to {PATIENCE_S:.0f} s for another process that trains in {folder}")
                announced = True
            time.sleep(0.5)
        yield


def _locked(handle: int) -> bool:
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        if error.errno not in _NO_LOCKS:
            raise
    return True


def _write_recipe(recipe: Recipe, folder: Path) -> None:
    path = folder / "recipe.yaml"
    if not checkpoint.steps(folder / "checkpoints"):
        if (folder / EXPORT).exists():
            raise InputError(
                "the folder holds an export, but not the checkpoints that it came from",
                file=folder / EXPORT,
                remedy="move it away to start a new run here, or name another --run",
            )
        # A start that ended early may have left the tokenizer of other data.
        shutil.rmtree(folder / TOKENIZER, ignore_errors=True)
    elif path.is_file():
        changed = resolved.differences(_former_recipe(path, recipe), recipe)
        if changed:
            raise _another_recipe(path, changed)
    files = {part: carried(getattr(recipe, part), part, folder) for part in ("audio", "text")}
    Storage(folder).write(path.name, resolved.dump(replace(recipe, **files)).encode())


def _former_recipe(path: Path, recipe: Recipe) -> Recipe:
    """The recipe with which the run was started.

    The Python files of encoders in the run's folder are not run, since somebody else may have written them: such a file
    must equal the one that ``recipe`` names, and that one is used.
    """
    tree, origins = read_recipe(path)
    for part in ("audio", "text"):
        section = tree.get(part) if isinstance(tree, dict) else None
        name = section.get("encoder") if isinstance(section, dict) else None
        if isinstance(section, dict) and isinstance(name, str) and is_outside(name):
            own = getattr(recipe, part).encoder
            before, after = contents(f"{path.parent / name}"), contents(own) if is_outside(own) else own
            if before != after:
                raise _another_recipe(path, [f"{part}.encoder: {before!r} -> {after!r}"])
            section["encoder"] = own
    return parse_recipe(tree, path, origins)


def _another_recipe(path: Path, changed: list[str]) -> InputError:
    return InputError(
        "the run was started with another recipe: " + "; ".join(changed[:5]),
        file=path,
        remedy="use the same recipe to resume the run, or another --run to start a new one",
    )
