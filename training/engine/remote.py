"""Runs and models in an object store, and their copies on this machine.

A run at ``s3://...`` has the files of a local run.  The process that trains works in a copy of the folder below the
machine's cache, and uploads what it has written:

- a checkpoint's tensors first and its ``state.json``, which has their checksums, last: a checkpoint whose upload was
  broken off has no ``state.json``, and is none.  One that is taken away loses its ``state.json`` first.
- likewise an export's ``config.json`` last.
- single files, such as the log, by one upload each, which a store makes visible whole or not at all.

The copy holds the newest checkpoint and the one that is being written.  The recipe's rule of what is kept
(``keep_last``, ``keep_best``) holds in the store.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from sharding.common.addresses import is_address
from sharding.common.errors import InputError
from sharding.common.storage import Storage
from sharding.common.storage.cache import Cache, Copy, folder_bytes
from training.config.sections import CheckpointSettings
from training.engine import checkpoint
from training.engine.checkpoint import FROZEN, STATE
from training.engine.sealed import unsealed

CHECKPOINTS, EXPORT, CONFIG, TENSORBOARD = "checkpoints", "export", "config.json", "tensorboard"
GO_ON = "once the cause is removed, the same command continues from the last checkpoint"


class RemoteRun:
    """A run in an object store.

    Args:
        url: its address.
        copy: the copy of it on this machine, held as long as this object is used.
    """

    def __init__(self, url: str, copy: Copy) -> None:
        self.storage, self._copy = Storage(url), copy
        self.folder = copy.folder
        self._scores: dict[str, dict[str, float]] = {}  # validation figures by checkpoint
        self._uploaded: dict[str, int] = {}  # size of each growing file when it was last uploaded

    def steps(self) -> list[str]:
        """Names of the checkpoints that are complete, oldest first."""
        return complete_steps(self.storage)

    def pull(self, chosen: str | None = None) -> str | None:
        """Make the copy one of the run with its newest intact checkpoint, or with the one that is ``chosen``.

        Newer checkpoints that are damaged are copied too, so that their damage is reported.

        Returns:
            the intact checkpoint's name; None if there is none.

        Raises:
            InputError: there is no room in the cache, or the store fails.
        """
        with failures_explained(self.storage), self._copy.alone():
            self._pull_setup()
            names = [chosen] if chosen else list(reversed(self.steps()))
            tried, intact = [], None
            while names and intact is None:
                tried.append(names.pop(0))
                intact = tried[-1] if self._pull_checkpoint(tried[-1]) else None
            for path in checkpoint.steps(self.folder / CHECKPOINTS):
                if path.name not in tried:
                    shutil.rmtree(path)
            return intact

    def fetch(self, name: str) -> Path:
        """The folder of a checkpoint in the copy, downloaded if need be; its files are not compared yet."""
        with failures_explained(self.storage), self._copy.alone():
            self._pull_checkpoint(name)
        return self.folder / CHECKPOINTS / name

    def _pull_setup(self) -> None:
        """Copy the files of the run as a whole: the recipe, the tokenizer, the log, encoders' files."""
        names = [
            name
            for name in self.storage.list()
            if ("/" not in name or name.startswith("tokenizer/")) and not name.startswith(".") and name != FROZEN
        ]
        for path in [path for path in self.folder.glob("*") if path.is_file() and path.name != FROZEN]:
            if path.name not in names:
                path.unlink()
        if not any(name.startswith("tokenizer/") for name in names):
            shutil.rmtree(self.folder / "tokenizer", ignore_errors=True)
        for name in names:
            Storage(self.folder).write(name, self.storage.read(name))

    def _pull_checkpoint(self, name: str) -> bool:
        """Copy a checkpoint, and say whether it is intact."""
        target, place = self.folder / CHECKPOINTS / name, f"{CHECKPOINTS}/{name}"
        state = self.storage.read(f"{place}/{STATE}")
        if not (target / STATE).is_file() or (target / STATE).read_bytes() != state or not _is_intact(target):
            shutil.rmtree(target, ignore_errors=True)
            sizes = self.storage.sizes(place)
            frozen = 0 if (self.folder / FROZEN).exists() else self._frozen_bytes()
            self._copy.require_room(folder_bytes(self.folder) + sum(sizes.values()) + frozen)
            draft = target.with_name(f".writing-{name}")
            shutil.rmtree(draft, ignore_errors=True)
            for file in sizes:
                self.storage.download(file, draft / file.removeprefix(f"{place}/"))
            (draft / STATE).write_bytes(state)
            draft.rename(target)
            if not _is_intact(target) and self.storage.exists(FROZEN):
                self.storage.download(FROZEN, self.folder / f".{FROZEN}.writing")
                (self.folder / f".{FROZEN}.writing").replace(self.folder / FROZEN)
        return _is_intact(target)

    def _frozen_bytes(self) -> int:
        return self.storage.size(FROZEN) if self.storage.exists(FROZEN) else 0

    def require_room(self, needed: int) -> None:
        """``InputError`` unless the copy may take ``needed`` bytes in all."""
        self._copy.require_room(needed)

    def publish_setup(self) -> None:
        """Upload what belongs to the run as a whole, before its first checkpoint."""
        with failures_explained(self.storage):
            for path in sorted([*self.folder.glob("*"), *self.folder.glob("tokenizer/**/*")]):
                if path.is_file() and not path.name.startswith("."):
                    self.storage.upload(path, path.relative_to(self.folder).as_posix())

    def publish_logs(self) -> None:
        """Upload the log and TensorBoard's files as far as they have grown."""
        with failures_explained(self.storage):
            for path in sorted([*self.folder.glob("*.jsonl"), *self.folder.glob(f"{TENSORBOARD}/*")]):
                name, size = path.relative_to(self.folder).as_posix(), path.stat().st_size
                if self._uploaded.get(name) != size:
                    self.storage.upload(path, name)
                    self._uploaded[name] = size

    def publish_checkpoint(self, folder: Path, settings: CheckpointSettings, metric: str) -> None:
        """Upload a checkpoint, and remove those that the rule does not keep, here and in the store.

        Args:
            folder: the checkpoint in the copy.
            settings, metric: as for ``checkpoint.prune``.
        """
        with failures_explained(self.storage):
            for later in self.steps():
                if later >= folder.name:  # it is damaged: otherwise the run would have continued from it
                    self._remove(f"{CHECKPOINTS}/{later}", STATE)
                    self._scores.pop(later, None)
            self._upload_folder(folder, f"{CHECKPOINTS}/{folder.name}", STATE)
            names = self.steps()
            for name in set(names) - checkpoint.to_keep(names, self._scored(names, metric), settings):
                self._remove(f"{CHECKPOINTS}/{name}", STATE)
            for path in checkpoint.steps(self.folder / CHECKPOINTS):
                if path.name != folder.name:
                    shutil.rmtree(path)

    def publish_export(self, folder: Path) -> None:
        """Upload the export of the copy in place of the one that is there."""
        with failures_explained(self.storage):
            self._remove(EXPORT, CONFIG)
            self._upload_folder(folder, EXPORT, CONFIG)

    def best(self, metric: str) -> Path | None:
        """The best checkpoint of those in the store (see ``checkpoint.best``), which is downloaded into the copy."""
        with failures_explained(self.storage):
            scores = self._scored(self.steps(), metric)
        for name in sorted(scores, key=lambda name: (scores[name], name), reverse=True):
            with contextlib.suppress(InputError):  # a damaged one is no candidate
                return checkpoint.load(self.fetch(name)).folder
        return None

    def _scored(self, names: list[str], metric: str) -> dict[str, float]:
        """The metric of each checkpoint that has it; those that are damaged have none."""
        for name in names:
            if name not in self._scores:
                self._scores[name] = {}
                with contextlib.suppress(FileNotFoundError, ValueError):
                    state = unsealed(self.storage.read(f"{CHECKPOINTS}/{name}/{STATE}").decode())
                    self._scores[name] = state.get("validation", {})
        return {name: float(self._scores[name][metric]) for name in names if metric in self._scores[name]}

    def _upload_folder(self, folder: Path, place: str, commit: str) -> None:
        files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / commit)
        for path in [*files, folder / commit]:
            self.storage.upload(path, f"{place}/{path.relative_to(folder).as_posix()}")

    def _remove(self, place: str, commit: str) -> None:
        self.storage.remove(f"{place}/{commit}")
        self.storage.remove_tree(place)


def complete_steps(storage: Storage) -> list[str]:
    """Names of the checkpoints of a run that are complete, oldest first."""
    names = (name.split("/") for name in storage.list(CHECKPOINTS))
    return sorted(parts[1] for parts in names if len(parts) == 3 and checkpoint.is_step(parts[1]) and parts[2] == STATE)


def _is_intact(folder: Path) -> bool:
    with contextlib.suppress(InputError):
        checkpoint.load(folder)
        return True
    return False


@contextlib.contextmanager
def failures_explained(storage: Storage) -> Iterator[None]:
    """Failures of the store become ``InputError`` that names the file."""
    try:
        yield
    except OSError as error:
        name = error.filename or storage.url
        raise InputError(f"reading or writing failed: {error.strerror or error}", file=name, remedy=GO_ON) from error


@contextlib.contextmanager
def model_folder(place: str | Path) -> Iterator[Path]:
    """The folder of a model, or a copy on this machine of one in an object store: an export, a checkpoint, or a run.

    Of a run it is the export, or else the newest intact checkpoint.  The copy is kept for the next time.

    Raises:
        InputError: there is no model, or no room in the cache, or the store fails.
    """
    if not is_address(place):
        yield Path(place)
        return
    storage, cache = Storage(place), Cache.of_environment()
    with failures_explained(storage):
        for export in (storage, storage.child(EXPORT)):
            if export.exists(CONFIG):
                with _copied_folder(export, CONFIG, cache) as folder:
                    yield folder
                return
        if storage.exists(STATE):
            run, _, name = storage.url.rpartition(f"/{CHECKPOINTS}/")
            if not run:
                raise InputError(
                    "the checkpoint is not in the folder of a run", file=place, remedy="keep it in its run"
                )
        else:
            run, name = storage.url.removesuffix(f"/{CHECKPOINTS}"), ""
        newest = complete_steps(Storage(run))[-1:]
    if not name and not newest:
        remedy = "name a run's address, RUN/checkpoints/step-..., or an export; `aws s3 ls` lists what is there"
        raise InputError("no model here", file=place, remedy=remedy)
    with cache.hold(f"{run} {name or newest}") as copy:
        RemoteRun(run, copy).pull(name or None)
        yield copy.folder / CHECKPOINTS / name if name else copy.folder


@contextlib.contextmanager
def _copied_folder(storage: Storage, commit: str, cache: Cache) -> Iterator[Path]:
    """A copy of a folder as it is now; ``commit`` is the file that says what is in it."""
    content = storage.read(commit)
    with cache.hold(f"{storage.url} {hashlib.sha256(content).hexdigest()}") as copy:
        with copy.alone() as folder:
            if not (folder / commit).is_file():
                sizes = storage.sizes()
                copy.require_room(sum(sizes.values()))
                for file in sizes:
                    storage.download(file, folder / file)
                Storage(folder).write(commit, content)
        yield copy.folder
