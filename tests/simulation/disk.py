"""A local disk that loses what was not synced when the power fails.

A folder of the real file system, with the calls of Python that change it taken in between: a rename, a removal or a
write is durable once the file or the folder that it changed was synced.  After a crash, either nothing is lost (the
process was killed), or the last changes of the whole disk, or the last changes of each folder, as file systems that
reorder do; and files whose contents were not synced are cut.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.simulation.faults import Schedule


class _Change(NamedTuple):
    folder: str
    undo: Callable[[], None]


class SimulatedDisk:
    """The folder ``root``, while the monkeypatch lasts.

    Attributes:
        schedule: the faults; None: none, and nothing is noted.
    """

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.schedule = root, None
        self._lost = root.with_name(f"{root.name}.lost")
        self._names = itertools.count()
        self._changes: list[_Change] = []
        self._synced: dict[int, tuple[int, int]] = {}
        self._real = {name: getattr(os, name) for name in ("replace", "rename", "unlink", "fsync")}
        self._rmtree = shutil.rmtree
        monkeypatch.setattr(os, "replace", self._replace)
        monkeypatch.setattr(os, "rename", self._replace)
        monkeypatch.setattr(os, "unlink", self._unlink)
        monkeypatch.setattr(os, "fsync", self._fsync)
        monkeypatch.setattr(shutil, "rmtree", self._remove_tree)

    schedule: Schedule | None

    def reset(self, source: Path | None, schedule: Schedule | None) -> None:
        """Begin with a copy of a folder, all of it durable, or with none."""
        self.schedule = None
        self._rmtree(self.root, ignore_errors=True)
        self._rmtree(self._lost, ignore_errors=True)
        self._lost.mkdir(parents=True)
        if source is not None:
            shutil.copytree(source, self.root)
        self._changes.clear()
        self._note_all()
        self.schedule = schedule

    def fail_power(self) -> None:
        """After a crash: lose what the schedule's seed chooses of what was not synced."""
        assert self.schedule is not None
        draw, schedule, self.schedule = self.schedule.draw, self.schedule, None
        kind = draw.choice(("kill", "ordered", "reordered"))
        schedule.events.append({"kill": "nothing lost"}.get(kind, f"power fails ({kind})"))
        if kind != "kill":
            self._cut_unsynced(draw)
            folders = {change.folder for change in self._changes}
            kept = {
                folder: draw.randint(0, sum(c.folder == folder for c in self._changes)) for folder in sorted(folders)
            }
            whole, seen = draw.randint(0, len(self._changes)), dict.fromkeys(folders, 0)
            undone = []
            for number, change in enumerate(self._changes):
                seen[change.folder] += 1
                if number >= whole if kind == "ordered" else seen[change.folder] > kept[change.folder]:
                    undone.append(change)
            for change in reversed(undone):
                change.undo()
        self._changes.clear()
        self._note_all()
        self.schedule = schedule

    def _cut_unsynced(self, draw: Any) -> None:
        for path in sorted(self.root.rglob("*")):
            if path.is_file() and not path.is_symlink():
                found = path.stat()
                if self._synced.get(found.st_ino) != (found.st_size, found.st_mtime_ns):
                    os.truncate(path, draw.randint(0, found.st_size))

    def _note_all(self) -> None:
        self._synced = {}
        for path in self.root.rglob("*"):
            if path.is_file():
                self._note(path.stat())

    def _note(self, found: os.stat_result) -> None:
        self._synced[found.st_ino] = (found.st_size, found.st_mtime_ns)

    def _is_ours(self, path: Any) -> bool:
        return self.schedule is not None and str(path).startswith(f"{self.root}/")

    def _short(self, path: Any) -> str:
        return str(path).removeprefix(f"{self.root}/")

    def _replace(self, source: Any, target: Any, **options: Any) -> None:
        if not self._is_ours(source):
            return self._real["replace"](source, target, **options)
        assert self.schedule is not None

        def action() -> None:
            kept = self._keep(target)
            self._real["replace"](source, target)

            def undo() -> None:
                if Path(target).exists():
                    self._real["replace"](target, source)
                if kept is not None:
                    self._real["replace"](kept, target)

            self._changes.append(_Change(str(Path(target).parent), undo))

        return self.schedule.step(f"rename {self._short(source)} to {self._short(target)}", action)

    def _unlink(self, path: Any, **options: Any) -> None:
        if not self._is_ours(path) or not os.path.lexists(path):
            return self._real["unlink"](path, **options)
        assert self.schedule is not None

        def action() -> None:
            kept = self._keep(path)
            self._real["unlink"](path)
            self._changes.append(_Change(str(Path(path).parent), lambda: self._put_back(kept, path)))

        return self.schedule.step(f"remove {self._short(path)}", action)

    def _remove_tree(self, path: Any, *rest: Any, **options: Any) -> None:
        if not self._is_ours(path) or not Path(path).is_dir():
            return self._rmtree(path, *rest, **options)
        assert self.schedule is not None

        def action() -> None:
            kept = str(self._lost / str(next(self._names)))
            self._real["rename"](path, kept)
            self._changes.append(_Change(str(Path(path).parent), lambda: self._put_back(kept, path)))

        return self.schedule.step(f"remove folder {self._short(path)}", action)

    def _fsync(self, handle: int) -> None:
        path = str(Path(f"/proc/self/fd/{handle}").readlink())
        if not (self._is_ours(path) or path == str(self.root)) or self.schedule is None:
            return self._real["fsync"](handle)

        def action() -> None:
            if Path(path).is_dir():
                self._changes = [change for change in self._changes if change.folder != path]
            else:
                self._note(os.fstat(handle))

        return self.schedule.step(f"sync {self._short(path)}", action)

    def _keep(self, path: Any) -> str | None:
        if not Path(path).is_file():
            return None
        kept = str(self._lost / str(next(self._names)))
        os.link(path, kept)
        return kept

    def _put_back(self, kept: str | None, path: Any) -> None:
        if kept is not None and not os.path.lexists(path):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            self._real["replace"](kept, path)
