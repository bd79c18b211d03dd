"""Locks the folder of a run, so that only one trainer writes to it, and only for one recipe.

On this machine the lock is the kernel's.  In an object store it is a file with heartbeats, and the trainer works in a
copy of the folder; ``sharding.common.storage.lease`` says when the lock of a dead trainer is taken over.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from sharding.common.addresses import is_address
from sharding.common.errors import InputError
from sharding.common.storage import Storage
from sharding.common.storage.cache import Cache
from sharding.common.storage.lease import Claim, hold_lock_file
from training.config import resolved
from training.config.extending import read_recipe
from training.config.loading import parse_recipe
from training.config.sections import Recipe
from training.engine import checkpoint
from training.engine.distributed import Group
from training.engine.remote import EXPORT, RemoteRun, failures_explained
from training.models.build import TOKENIZER
from training.models.encoders.outside import carried, contents, is_outside
from training.run.progress import StatusLine

LOCK = ".lock"
PATIENCE_S = 30.0  # Ray Train can start a new rank this long before the old one has ended
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)  # the file system has no locks


@dataclass(frozen=True)
class RunPlace:
    """Where a run is.

    Attributes:
        folder: its folder on this machine.
        remote: the run in the object store that the folder is a copy of; None for a run of this file system.
        claim: the first rank's lock in the object store.
        intact: the name of the remote run's newest intact checkpoint; None if there is none.
    """

    folder: Path
    remote: RemoteRun | None = None
    claim: Claim | None = None
    intact: str | None = None

    def name(self, file: str = "") -> str:
        """The run's own name of a file, for results and messages."""
        place = str(self.folder) if self.remote is None else self.remote.storage.url
        return f"{place}/{file}" if file else place


@contextlib.contextmanager
def hold_run_folder(recipe: Recipe, place: str | Path, group: Group) -> Iterator[RunPlace]:
    """Lock the folder of a run, and write the recipe, or check that the folder holds a run of this recipe.

    On this machine the first rank holds a lock of the kernel, which ends with its process, however that ends.  On a
    file system without locks nothing keeps a second trainer out.

    Args:
        recipe: the recipe of the run.
        place: a folder that every rank sees, or an address such as ``s3://bucket/run``.
        group: the ranks.

    Returns:
        the run's folder; of a run in an object store, the copy on each rank's machine, brought up to date.

    Raises:
        InputError: on every rank; another process trains in the folder, the folder is that of another recipe, or the
            object store fails.
        OSError: on every rank; the folder cannot be written.
    """
    with contextlib.ExitStack() as held:
        opened: RunPlace | Exception = RunPlace(Path(place))
        if group.rank == 0:
            opened = _attempt(lambda: _open_first(recipe, place, held))
        first = group.gather_objects(_news(opened), "run folder")[0]
        if isinstance(first, Exception):
            raise first
        if is_address(place) and group.rank > 0:
            opened = _attempt(lambda: _open_other(str(place), first, held))
        for news in group.gather_objects(_news(opened), "copies of the run folder"):
            if isinstance(news, Exception):
                raise news
        assert isinstance(opened, RunPlace)
        yield opened


def _attempt(action: Callable[[], RunPlace]) -> RunPlace | Exception:
    try:
        return action()
    except (InputError, OSError) as error:
        return error


def _news(opened: RunPlace | Exception) -> str | Exception | None:
    """The message to the other ranks: the error, or the checkpoint from which the run continues."""
    return opened if isinstance(opened, Exception) else opened.intact


def _open_first(recipe: Recipe, place: str | Path, held: contextlib.ExitStack) -> RunPlace:
    """The first rank takes the lock, brings its copy up to date, and writes the recipe."""
    if not is_address(place):
        folder = Path(place)
        folder.mkdir(parents=True, exist_ok=True)
        held.enter_context(_lock(folder))
        _write_recipe(recipe, folder)
        return RunPlace(folder)
    remote = _remote(str(place), held)
    with failures_explained(remote.storage):
        claim = held.enter_context(hold_lock_file(remote.storage, LOCK, "training run"))
    intact = remote.pull()
    _write_recipe(recipe, remote.folder)
    remote.publish_setup()  # another rank of this machine makes the same copy again, from what the store has
    return RunPlace(remote.folder, remote, claim, intact)


def _open_other(place: str, step: str | None, held: contextlib.ExitStack) -> RunPlace:
    """Another rank brings the copy on its machine to the same checkpoint."""
    remote = _remote(place, held)
    return RunPlace(remote.folder, remote, intact=remote.pull(step))


def _remote(url: str, held: contextlib.ExitStack) -> RemoteRun:
    copy = held.enter_context(Cache.of_environment().hold(Storage(url).url))
    return RemoteRun(url, copy)


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
    present = [part for part in ("audio", "text") if getattr(recipe, part) is not None]
    files = {part: carried(getattr(recipe, part), part, folder) for part in present}
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
