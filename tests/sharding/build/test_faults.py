"""Kills and full disks at every moment: what ends well ends in the bytes of an undisturbed run."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sharding.audio import AudioForm
from sharding.build.append import append
from sharding.build.reshard import reshard
from sharding.build.run import build
from sharding.common.errors import InputError
from sharding.common.runners import LocalRunner
from sharding.fates.decide import FateSettings
from sharding.probe.child import Decoder
from sharding.probe.messages import Finished
from sharding.shards.integrity import verify
from sharding.sources.protected import parse_protect
from tests.conftest import REPOSITORY
from tests.sharding.build.kills import Death, Killed, keep_every_finding, killed
from tests.sharding.conftest import settings_for
from tests.sharding.corpora import outcome, tree, write_corpus, write_extra


def swept(death: Death, run: Callable[[], Any], out: Path, begin: Callable[[], Any], most: int = 0) -> int:
    """Die at every change (or at ``most`` of them, chosen at random), go on, and compare; how many there were."""
    begin()
    death.left = 1 << 30
    run()
    expected, changes = tree(out), (1 << 30) - death.left
    moments = range(1, changes + 1)
    for moment in sorted(random.sample(moments, most)) if most else moments:
        death.left = 0
        begin()
        death.left = moment
        with pytest.raises(Killed):
            run()
        death.left = 0
        run()
        found = tree(out)
        assert found == expected, (
            moment,
            [name for name in {**found, **expected} if found.get(name) != expected.get(name)],
        )
    return changes


def from_copy(source: Path, out: Path) -> Callable[[], None]:
    def begin() -> None:
        shutil.rmtree(out, ignore_errors=True)
        if source.exists():
            shutil.copytree(source, out)

    return begin


def scenes(small: Path, tmp_path: Path, built: Path) -> Iterator[tuple[str, Any, Any, Path]]:
    """(name, what is done, how it begins, its folder) of everything that changes a build."""
    out, one = tmp_path / "out", LocalRunner(1)
    mine = settings_for(small, 200_000)
    other = dataclasses.replace(mine, fates=FateSettings(protect=parse_protect("")))
    extra = write_extra(tmp_path / "extra", 1.5)
    yield "build", lambda: build(mine, str(out), one), from_copy(tmp_path / "nothing", out), out
    yield "new plan", lambda: build(other, str(out), one, new_plan=True), from_copy(built, out), out
    yield "retry", lambda: build(mine, str(out), one, retry="missing"), from_copy(built, out), out
    yield "append", lambda: append(str(out), {}, {"extra": str(extra)}, one), from_copy(built, out), out
    yield "reshard", lambda: reshard(str(built), str(out), 10**6, one), from_copy(tmp_path / "nothing", out), out


def sweep(scene: str, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    keep_every_finding(monkeypatch)
    built = tmp_path / "built"
    build(settings_for(small, 200_000), str(built), LocalRunner(1))
    death = Death(monkeypatch)
    run, begin, out = next(rest for name, *rest in scenes(small, tmp_path, built) if name == scene)
    assert swept(death, run, out, begin, most) > 10
    assert verify(str(out), "full", LocalRunner(1)) == []


SCENES = ("build", "new plan", "retry", "append", "reshard")


@pytest.mark.parametrize("scene", SCENES)
def test_whatever_was_killed_continues_to_the_same_bytes(
    scene: str, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep(scene, small, tmp_path, monkeypatch, 1)


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("scene", SCENES)
def test_whatever_is_killed_at_any_change_of_a_file_goes_on_to_the_same_bytes(
    scene: str, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep(scene, small, tmp_path, monkeypatch, 0)


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("most", [2, pytest.param(0, marks=pytest.mark.slow)])
def test_after_a_new_plan_that_was_killed_the_former_command_goes_on(
    most: int, finished: bool, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where sound is to be stored in another way, all is removed first: shards never before the records of them."""
    out, mine, one = tmp_path / "out", settings_for(small, 200_000), LocalRunner(1)
    other = dataclasses.replace(mine, probe=dataclasses.replace(mine.probe, form=AudioForm(rate=16000)))
    build(mine, str(tmp_path / "expected"), one)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr("sharding.build.stages.store_final_facts", killed)
        build(mine, str(tmp_path / "written"), one)
    death, begin = Death(monkeypatch), from_copy(tmp_path / ("expected" if finished else "written"), out)
    removals = range(1, 25)
    for moment in sorted(random.sample(removals, most)) if most else removals:
        begin()
        death.left = moment
        with pytest.raises(Killed):
            build(other, str(out), one, new_plan=True)
        death.left = 0
        try:
            build(mine, str(out), one)
        except InputError:  # the removal was through, and the new build begun
            build(mine, str(out), one, new_plan=True)
        assert tree(out) == tree(tmp_path / "expected"), moment


def command(corpus: Path | str, out: Path | str, *more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "sharding", "build", "--protect", "mine/test", "--window-s", "10"),
        *("--shard-size", "400kB", "--source", f"mine={corpus}", "--out", str(out), *more),
    ]


def start(corpus: Path | str, out: Path | str, *more: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command(corpus, out, *more),
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def finish(corpus: Path | str, out: Path | str, *more: str) -> None:
    process = start(corpus, out, *more)
    _, message = process.communicate(timeout=300)
    assert process.returncode == 0, message.decode()


def finished_shards(out: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of every shard that has its record."""
    names = [path.stem for path in (out / ".build/records").glob("*.json")]
    found = [out / "shards" / f"{name}.tar" for name in names]
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in found if path.exists()}


# a pattern below OUT that tells that a phase has begun
PHASES = {
    "probe": ".build/packs/*",
    "join": ".build/facts/*.parquet",
    "plan": "matches.parquet",
    "write": ".build/plan.json",
    "later shards": ".build/records/*.json",
    "commit": ".build/settled.parquet",
    "tidying up": "dataset.json",
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """A corpus, and what a build of it is that nobody kills."""
    corpus = write_corpus(tmp_path_factory.mktemp("many") / "corpus", clips=160, seconds=1.0)
    finish(corpus, corpus.with_name("out"))
    return corpus, tree(corpus.with_name("out"))


@pytest.mark.slow
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("victim", ["driver", "worker"])
def test_a_build_killed_in_any_phase_goes_on_and_redoes_no_shard(
    phase: str, victim: str, undisturbed: tuple[Path, dict[str, bytes]], tmp_path: Path
) -> None:
    corpus, expected = undisturbed
    rng = random.Random()
    for turn in range(2):
        out = tmp_path / f"out{turn}"
        process = start(corpus, out, "--workers", "2")
        while process.poll() is None and not list(out.glob(PHASES[phase])):
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.3))
        before = finished_shards(out)
        if victim == "driver":
            process.kill()  # the driver alone: its workers must end by themselves
        else:
            workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            for worker in workers[-1:]:
                os.kill(int(worker), signal.SIGKILL)
        process.communicate(timeout=300)
        if process.returncode == 0:
            assert tree(out) == expected
            continue
        finish(corpus, out, "--workers", "2")
        assert tree(out) == expected
        after = {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in (out / "shards").iterdir()}
        assert {name: after[name] for name in before} == before


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a small file system is not allowed here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_a_clear_stop_and_nothing_is_torn(tiny_disk: Path, small: Path, tmp_path: Path) -> None:
    settings, out = settings_for(small, 200_000), tiny_disk / "out"
    build(settings, str(tmp_path / "undisturbed"), LocalRunner(1))
    for size in ("1m", "1500k", "2m"):
        subprocess.run(["mount", "-o", f"remount,size={size}", tiny_disk], check=True)
        with pytest.raises(InputError, match="no space left"):
            build(settings, str(out), LocalRunner(1))
        assert not (out / "dataset.json").exists()
        assert not list(out.rglob("*.tmp"))
    subprocess.run(["mount", "-o", "remount,size=64m", tiny_disk], check=True)
    build(settings, str(out), LocalRunner(1))
    assert tree(out) == tree(tmp_path / "undisturbed")


def test_a_build_that_is_killed_again_and_again_after_three_clips_ends_in_the_same_bytes(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its clips are one batch, which no start finishes."""
    build(settings_for(small), str(tmp_path / "undisturbed"), LocalRunner(1))
    left, examine = 0, Decoder.examine

    def dying(*args: Any) -> Iterator[Any]:
        nonlocal left
        for message in examine(*args):
            left -= isinstance(message, Finished)
            if left < 0:
                raise Killed
            yield message

    monkeypatch.setattr(Decoder, "examine", dying)
    out, starts = tmp_path / "out", 0
    while not (out / "dataset.json").exists():
        left, starts = 3, starts + 1
        assert starts < 6
        with contextlib.suppress(Killed):
            build(settings_for(small), str(out), LocalRunner(1))
    assert starts > 1 and tree(out) == tree(tmp_path / "undisturbed")


@pytest.mark.slow
def test_a_build_whose_starts_are_killed_as_soon_as_they_kept_a_clip_ends(small: Path, tmp_path: Path) -> None:
    out, starts, kept = tmp_path / "out", 0, 0
    while not (out / "dataset.json").exists():
        process = start(small, out)
        while process.poll() is None and (now := len(list((out / ".build").glob("[fs]*/**/*.parquet")))) <= kept:
            time.sleep(0.001)
        process.kill()
        process.communicate()
        kept, starts = now, starts + 1
        assert starts < 30
    finish(small, tmp_path / "undisturbed")
    assert starts > 2 and outcome(out) == outcome(tmp_path / "undisturbed")
