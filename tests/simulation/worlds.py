"""The two kinds of storage that are simulated, the commands of a build, and one schedule from end to end."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pytest

from sharding.build.append import append
from sharding.build.reshard import reshard
from sharding.build.run import build
from sharding.common.errors import InputError
from sharding.common.runners import LocalRunner
from sharding.common.storage import lease
from sharding.fates.decide import FateSettings
from sharding.layout import DATASET
from sharding.shards.manifest import Manifest
from sharding.sources.protected import parse_protect
from tests.sharding.build.kills import keep_every_finding
from tests.sharding.conftest import settings_for
from tests.sharding.corpora import tree, write_corpus, write_extra
from tests.simulation.decoder import RememberingDecoder
from tests.simulation.disk import SimulatedDisk
from tests.simulation.faults import ATTEMPTS, Crash, Schedule
from tests.simulation.store import SimulatedStore


class World(Protocol):
    """A kind of storage with a folder in which commands work."""

    url: str

    def reset(self, source: Path | None, schedule: Schedule | None) -> None:
        """Begin with a copy of a folder, or with none."""
        ...

    def crash(self, schedule: Schedule) -> None:
        """What a crash leaves; then a new process begins."""
        ...

    def end(self) -> None:
        """The process ends in an orderly way; then a new one begins."""
        ...

    def contents(self) -> dict[str, bytes]:
        """Every file, without faults."""
        ...


class DiskWorld:
    """A local disk."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.url = root, str(root)
        self._disk = SimulatedDisk(root, monkeypatch)

    def reset(self, source: Path | None, schedule: Schedule | None) -> None:
        self._disk.reset(source, schedule)

    def crash(self, schedule: Schedule) -> None:
        self._disk.fail_power()

    def end(self) -> None:
        """The kernel's lock ends with the process."""

    def contents(self) -> dict[str, bytes]:
        self._disk.schedule = None
        return tree(self.root)


class StoreWorld:
    """An object store."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.url = "sim://bucket/out"
        monkeypatch.setattr(SimulatedStore, "objects", {})
        monkeypatch.setattr(SimulatedStore, "schedule", None)
        self._process = itertools.count()
        self._monkeypatch = monkeypatch
        monkeypatch.setattr(lease, "HEARTBEAT_S", 1e6)  # else what happens would depend on the clock
        self._begin_process()

    def _begin_process(self) -> None:
        """The former process of this machine is gone: its lock is stale."""
        own = next(self._process)
        self._monkeypatch.setattr(lease.os, "getpid", lambda: own)
        self._monkeypatch.setattr(lease, "_start_of", lambda pid: "now" if pid == own else None)

    def reset(self, source: Path | None, schedule: Schedule | None) -> None:
        SimulatedStore.objects.clear()
        if source is not None:
            SimulatedStore.objects |= {f"bucket/out/{name}": data for name, data in tree(source).items()}
        SimulatedStore.schedule = schedule

    def crash(self, schedule: Schedule) -> None:
        schedule.events.append("the process ends")
        self.end()

    def end(self) -> None:
        self._begin_process()

    def contents(self) -> dict[str, bytes]:
        SimulatedStore.schedule = None
        return {name.removeprefix("bucket/out/"): data for name, data in sorted(SimulatedStore.objects.items())}


@dataclasses.dataclass
class Scene:
    """A command that changes a build.

    Attributes:
        start: the folder that it begins with; None: an empty one.
        command: runs it on a folder.
    """

    start: Path | None
    command: Callable[[str], object]


def make_scenes(folder: Path) -> dict[str, Scene]:
    """Every command that changes a build, on a build of a few clips."""
    one = LocalRunner(1)
    mine = settings_for(write_corpus(folder / "corpus", clips=2, seconds=1.5), 300_000)
    other = dataclasses.replace(mine, fates=FateSettings(protect=parse_protect("")))
    extra, built = write_extra(folder / "extra", 1.5), folder / "built"
    build(mine, str(built), one)
    return {
        "build": Scene(None, lambda url: build(mine, url, one)),
        "new plan": Scene(built, lambda url: build(other, url, one, new_plan=True)),
        "retry": Scene(built, lambda url: build(mine, url, one, retry="missing")),
        "append": Scene(built, lambda url: append(url, {}, {"extra": str(extra)}, one)),
        "reshard": Scene(None, lambda url: reshard(str(built), url, 10**6, one)),
    }


@dataclasses.dataclass
class Trial:
    """A scene in a world, with what an undisturbed run of it gives."""

    scene: Scene
    world: World
    operations: int = 0
    expected: dict[str, bytes] = dataclasses.field(default_factory=dict)

    def prepare(self) -> Trial:
        calm = Schedule(0, 0)
        self.world.reset(self.scene.start, calm)
        self.scene.command(self.world.url)
        self.operations, self.expected = calm.count, self.world.contents()
        return self

    def run(self, seed: int) -> None:
        """Carry out the command under the faults of a seed, again and again until it succeeds; compare every byte."""
        schedule = Schedule(seed, self.operations)
        self.world.reset(self.scene.start, schedule)
        for _ in range(ATTEMPTS):
            try:
                self.scene.command(self.world.url)
                break
            except Crash:
                schedule.revive()
                self.world.crash(schedule)
            except InputError as error:
                schedule.events.append(f"refused: {str(error).splitlines()[0]}")
                assert "a fault of the simulation" in str(error), str(schedule)
                self.world.end()
            except BaseException as error:
                raise AssertionError(f"{schedule}: {type(error).__name__}: {error}") from error
            self._check_readers(schedule)
        else:
            raise AssertionError(f"{schedule}: the command did not succeed in {ATTEMPTS} attempts")
        found = self.world.contents()
        # .build is the build's own: a retry that had succeeded before its process died begins another one.
        names = (name for name in {**found, **self.expected} if not name.startswith(".build/"))
        different = [name for name in names if found.get(name) != self.expected.get(name)]
        assert not different, f"{schedule}: {different}"

    def _check_readers(self, schedule: Schedule) -> None:
        """Whoever opens the build now sees a whole one, or none."""
        schedule_of = SimulatedStore.schedule
        SimulatedStore.schedule = None
        disk = getattr(self.world, "_disk", None)
        if disk is not None:
            disk.schedule = None
        try:
            if DATASET in (tree(Path(self.world.url)) if disk is not None else self._names()):
                Manifest.open(self.world.url)
        except InputError as error:
            raise AssertionError(f"{schedule}: a reader finds half a build: {error}") from error
        finally:
            SimulatedStore.schedule = schedule_of
            if disk is not None:
                disk.schedule = schedule

    def _names(self) -> set[str]:
        return {name.removeprefix("bucket/out/") for name in SimulatedStore.objects}


def remember_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decode each clip once in all builds of this process, wait nowhere, and keep every finding at once."""
    monkeypatch.setattr("sharding.probe.batch.Decoder", RememberingDecoder)
    monkeypatch.setattr("sharding.common.storage.failures.PAUSE_S", 0.0)
    keep_every_finding(monkeypatch)
