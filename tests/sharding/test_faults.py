"""Kills, full disks and second builders at every moment: what ends well ends in the bytes of an undisturbed run."""

from __future__ import annotations

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
import soundfile

import sharding.claim
from sharding.append import append
from sharding.audio import AudioForm
from sharding.build import BuildSettings, build
from sharding.claim import claim
from sharding.errors import InputError
from sharding.fates import FateSettings
from sharding.leaks import parse_protect
from sharding.manifest import Manifest
from sharding.plan import PlanSettings
from sharding.reshard import reshard
from sharding.runners import LocalRunner
from sharding.storage import Storage
from sharding.verify import verify
from tests.conftest import REPOSITORY
from tests.sharding.conftest import settings_for
from tests.sharding.corpora import RATE, noise, tree, write_corpus, write_extra


class Killed(BaseException):
    """Stands for SIGKILL: nothing in Earshot may catch it and go on."""


def killed(*args: Any, **options: Any) -> Any:
    raise Killed


class Death:
    """Ends the process that it watches at the n-th change that is made to files."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = 0
        for owner, name in ((Path, "replace"), (Path, "unlink"), (shutil, "rmtree")):
            monkeypatch.setattr(owner, name, self._counted(getattr(owner, name)))

    def _counted(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **options: Any) -> Any:
            self.left -= 1
            if self.left == 0:
                raise Killed
            return original(*args, **options)

        return step


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "small", clips=3, seconds=1.5)


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
    built = tmp_path / "built"
    build(settings_for(small, 200_000), str(built), LocalRunner(1))
    death = Death(monkeypatch)
    run, begin, out = next(rest for name, *rest in scenes(small, tmp_path, built) if name == scene)
    assert swept(death, run, out, begin, most) > 10
    assert verify(str(out), "full", LocalRunner(1)) == []


SCENES = ("build", "new plan", "retry", "append", "reshard")


@pytest.mark.parametrize("scene", SCENES)
def test_whatever_is_killed_somewhere_goes_on_to_the_same_bytes(
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
        patched.setattr("sharding.stages.Stages.settle_facts", killed)
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


def test_of_two_builders_in_one_folder_the_second_is_refused(small: Path, tmp_path: Path) -> None:
    out = Storage(tmp_path / "out")
    with claim(out), pytest.raises(InputError, match="another build is at work"):
        build(settings_for(small), out.url, LocalRunner(1))
    build(settings_for(small), out.url, LocalRunner(1))


HOLDER = """
import sys, time
from sharding.claim import claim
from sharding.storage import Storage
with claim(Storage(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def hold(url: str) -> subprocess.Popen[bytes]:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, url], cwd=REPOSITORY, stdout=subprocess.PIPE)
    assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
    return holder


def test_in_an_object_store_a_live_builder_is_respected_and_a_killed_one_is_not(s3: str, tmp_path: Path) -> None:
    out = Storage(f"{s3}/{tmp_path.name}")
    holder = hold(out.url)
    try:
        with pytest.raises(InputError, match=f"process {holder.pid}"), claim(out):
            pass
    finally:
        holder.kill()
    with claim(out):  # also while nobody has reaped the killed one
        pass
    assert not out.exists(sharding.claim.LOCK)
    holder.wait()


def test_a_builder_on_another_machine_is_told_from_a_dead_one_by_its_signs_of_life(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharding.claim, "BEAT_S", 0.2)
    monkeypatch.setattr(sharding.claim, "SILENCE_S", 2.0)
    out = Storage(f"{s3}/{tmp_path.name}")
    names = iter(["here", "there", "there"])
    monkeypatch.setattr(sharding.claim.socket, "gethostname", lambda: next(names))
    with claim(out), pytest.raises(InputError, match="on here"), claim(out):
        pass
    out.write(sharding.claim.LOCK, b'{"host": "gone", "pid": 1, "born": "long ago", "token": "x"}')
    with claim(out) as held:
        held.check()
        out.write(sharding.claim.LOCK, b'{"host": "rude", "pid": 1, "born": "now", "token": "y"}')
        time.sleep(0.8)
        with pytest.raises(InputError, match="took over"):
            held.check()
    assert out.exists(sharding.claim.LOCK)  # it is the other's


def test_of_many_that_claim_at_once_one_is_obeyed(s3: str, tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    storage = Storage(f"{s3}/{tmp_path.name}")
    with ThreadPoolExecutor(8) as pool:
        for name in map(str, range(5)):
            found = list(pool.map(lambda n, name=name: storage.setdefault(name, str(n).encode()), range(8)))
            assert len(set(found)) == 1 and storage.read(name) == found[0]


def outcome(out: Path) -> dict[str, bytes]:
    return {name: data for name, data in tree(out).items() if not name.startswith(".build/")}


@pytest.mark.parametrize("finished", [True, False])
def test_a_new_plan_decodes_only_what_is_new(
    finished: bool, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, probed: list[str]
) -> None:
    out, settings = tmp_path / "out", settings_for(small, 200_000)
    if not finished:
        with monkeypatch.context() as patched, pytest.raises(Killed):
            patched.setattr("sharding.writing.write_shard", killed)
            build(settings, str(out), LocalRunner(1))
        assert list((out / ".build/facts").glob("*")) and not (out / "dataset.json").exists()
    else:
        build(settings, str(out), LocalRunner(1))
    extra = write_extra(tmp_path / "extra", 1.5)
    other = dataclasses.replace(
        settings,
        sources={"mine": str(small), "extra": str(extra)},
        fates=FateSettings(protect=parse_protect("")),
        plan=PlanSettings(10**6),
    )
    build(other, str(tmp_path / "fresh"), LocalRunner(1))
    probed.clear()
    build(other, str(out), LocalRunner(1), new_plan=True)
    assert outcome(out) == outcome(tmp_path / "fresh")
    failed = {"mine/train/gone", "mine/train/page"}
    assert {clip_id for clip_id in probed if not clip_id.startswith("extra/")} <= failed


def test_a_new_plan_reads_clips_again_that_are_other_files_now(small: Path, tmp_path: Path) -> None:
    out, settings = tmp_path / "out", settings_for(small, 200_000)
    build(settings, str(out), LocalRunner(1))
    shutil.copy(small / "train/a1.flac", small / "train/gone.flac")  # was missing
    shutil.copy(small / "train/long.flac", small / "train/a0.flac")  # another sound
    (small / "train/a2.flac").unlink()
    other = dataclasses.replace(settings, plan=PlanSettings(10**6))
    build(other, str(tmp_path / "fresh"), LocalRunner(1))
    build(other, str(out), LocalRunner(1), new_plan=True)
    assert outcome(out) == outcome(tmp_path / "fresh")


def test_a_recording_of_the_same_size_is_not_the_same_recording(small: Path, tmp_path: Path) -> None:
    out, settings = tmp_path / "out", settings_for(small, 200_000)
    for number, name in enumerate(("a0", "a1")):
        soundfile.write(small / f"train/{name}.wav", noise(number, 1.0), RATE)
        (small / f"train/{name}.flac").unlink()
    table = (small / "clips.csv").read_text()
    (small / "clips.csv").write_text(table.replace("a0.flac", "a0.wav").replace("a1.flac", "a1.wav"))
    build(settings, str(out), LocalRunner(1))
    before = outcome(out)
    soundfile.write(small / "train/a0.wav", noise(9, 1.0), RATE)
    os.utime(small / "train/a0.wav", (0, 0))  # as copying tools do
    build(settings, str(out), LocalRunner(1), new_plan=True)
    build(settings, str(tmp_path / "fresh"), LocalRunner(1))
    assert outcome(out) == outcome(tmp_path / "fresh") != before


@pytest.mark.parametrize("mistake", ["folder", "list"])
def test_after_a_mistake_the_corrected_command_is_taken(mistake: str, small: Path, tmp_path: Path) -> None:
    out, settings = tmp_path / "out", settings_for(small, 200_000)
    (tmp_path / "list.csv").write_text("name,length\nx,1\n")
    wrong = {
        "folder": dataclasses.replace(settings, sources={"mine": str(tmp_path / "absent")}),
        "list": dataclasses.replace(settings, exclude=(str(tmp_path / "list.csv"),)),
    }
    with pytest.raises(InputError):
        build(wrong[mistake], str(out), LocalRunner(1))
    assert not (out / ".build/facts").exists()  # and it was noticed before any work
    build(settings, str(out), LocalRunner(1))
    assert verify(str(out), "quick", LocalRunner(1)) == []
    if mistake == "folder":
        with pytest.raises(InputError):
            append(str(out), {}, {"extra": str(tmp_path / "absent")}, LocalRunner(1))
        result = append(str(out), {}, {"extra": str(write_extra(tmp_path / "extra", 1.5))}, LocalRunner(1))
        assert sum(result["added"]["extra"].values()) == sum(result["reasons"]["extra"].values()) > 0


def test_with_the_same_settings_a_new_plan_is_made_only_where_inputs_have_changed(small: Path, tmp_path: Path) -> None:
    out, settings = tmp_path / "out", settings_for(small, 200_000)
    build(settings, str(out), LocalRunner(1))
    before = tree(out)
    build(settings, str(out), LocalRunner(1), new_plan=True)
    assert tree(out) == before
    table = (small / "clips.csv").read_text()
    (small / "clips.csv").write_text(table.replace("noise that is called train/a1", "another caption"))
    build(settings, str(out), LocalRunner(1))
    assert tree(out) == before
    build(settings, str(out), LocalRunner(1), new_plan=True)
    build(settings, str(tmp_path / "fresh"), LocalRunner(1))
    assert outcome(out) == outcome(tmp_path / "fresh") != {n: d for n, d in before.items() if n[:6] != ".build"}


@pytest.mark.slow
def test_whatever_changes_a_build_does_so_in_an_object_store_too(s3: str, small: Path, tmp_path: Path) -> None:
    settings, one = settings_for(small, 200_000), LocalRunner(1)
    other = dataclasses.replace(settings, plan=PlanSettings(300_000))
    grown = dataclasses.replace(other, sources={"mine": str(small), "extra": str(write_extra(tmp_path / "extra", 1.5))})
    for url in (f"{s3}/{tmp_path.name}", str(tmp_path / "out")):
        build(settings, url, one)
        build(other, url, one, new_plan=True)
        append(url, {}, {"extra": str(tmp_path / "extra")}, one)
        build(grown, url, one, retry="missing")
        assert verify(url, "full", one) == []
    remote = Storage(f"{s3}/{tmp_path.name}")
    there = {name: remote.read(name) for name in remote.list()}
    here = tree(tmp_path / "out")
    del here[".build/lock"]
    assert there == here


def test_other_audio_settings_throw_all_away(small: Path, tmp_path: Path) -> None:
    out, settings = tmp_path / "out", settings_for(small, 200_000)
    build(settings, str(out), LocalRunner(1))
    other: BuildSettings = dataclasses.replace(settings, probe=dataclasses.replace(settings.probe, window_s=20.0))
    with pytest.raises(InputError, match=r"probe\.window_s: 10\.0 there, 20\.0 now"):
        build(other, str(out), LocalRunner(1))
    build(other, str(out), LocalRunner(1), new_plan=True)
    build(other, str(tmp_path / "fresh"), LocalRunner(1))
    assert outcome(out) == outcome(tmp_path / "fresh")
    assert Manifest.open(out).table.num_rows > 0
