"""Builds under schedules of faults that follow from seeds, on a local disk and in an object store.

A failure names its seed.  To see it again:

    EARSHOT_SEEDS=1234 python -m pytest tests/simulation/test_builds.py -k "append and disk"

``EARSHOT_SEEDS=0-999`` runs a range of them, ``make test-slow`` 40 of each command in each kind of storage.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.simulation.worlds import DiskWorld, Scene, StoreWorld, Trial, make_scenes, remember_decoded

FEW, MANY = 4, 40
SCENES = ("build", "new plan", "retry", "append", "reshard")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Scene]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        remember_decoded(monkeypatch)
        return make_scenes(tmp_path_factory.mktemp("scenes"))


def seeds(count: int) -> range:
    """The seeds of a test, or those that EARSHOT_SEEDS names."""
    first, dash, last = os.environ.get("EARSHOT_SEEDS", f"0-{count - 1}").partition("-")
    return range(int(first), int(last if dash else first) + 1)


def run_all(scene: Scene, storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    remember_decoded(monkeypatch)
    world = DiskWorld(tmp_path / "out", monkeypatch) if storage == "disk" else StoreWorld(monkeypatch)
    trial = Trial(scene, world).prepare()
    for seed in seeds(count):
        trial.run(seed)


@pytest.mark.parametrize("storage", ["disk", "store"])
@pytest.mark.parametrize("name", ["build", "append"])
def test_a_few_schedules_of_faults_change_no_byte(
    name: str, storage: str, scenes: dict[str, Scene], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_all(scenes[name], storage, tmp_path, monkeypatch, FEW)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("storage", ["disk", "store"])
@pytest.mark.parametrize("name", SCENES)
def test_schedules_of_faults_change_no_byte(
    name: str, storage: str, scenes: dict[str, Scene], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_all(scenes[name], storage, tmp_path, monkeypatch, MANY)
