"""Of several builders in one folder or prefix, one is obeyed."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from sharding.build.claim import LOCK, claim
from sharding.build.run import build
from sharding.common.errors import InputError
from sharding.common.runners import LocalRunner
from sharding.common.storage import Storage, lease
from tests.conftest import REPOSITORY
from tests.sharding.conftest import settings_for


def test_of_two_builders_in_one_folder_the_second_is_refused(small: Path, tmp_path: Path) -> None:
    out = Storage(tmp_path / "out")
    with claim(out), pytest.raises(InputError, match="another build is at work"):
        build(settings_for(small), out.url, LocalRunner(1))
    build(settings_for(small), out.url, LocalRunner(1))


HOLDER = """
import sys, time
from sharding.build.claim import claim
from sharding.common.storage import Storage
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
    assert not out.exists(LOCK)
    holder.wait()


def test_heartbeats_tell_a_builder_on_another_machine_from_a_dead_one(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_S", 0.2)
    monkeypatch.setattr(lease, "SILENCE_S", 2.0)
    out = Storage(f"{s3}/{tmp_path.name}")
    names = iter(["here", "there", "there"])
    monkeypatch.setattr(lease.socket, "gethostname", lambda: next(names))
    with claim(out), pytest.raises(InputError, match="on here"), claim(out):
        pass
    out.write(LOCK, b'{"host": "gone", "pid": 1, "born": "long ago", "token": "x"}')
    with claim(out) as held:
        held.check()
        out.write(LOCK, b'{"host": "rude", "pid": 1, "born": "now", "token": "y"}')
        deadline = time.monotonic() + 30
        with pytest.raises(InputError, match="took over"):
            while time.monotonic() < deadline:
                held.check()
                time.sleep(0.05)
    assert out.exists(LOCK)  # it is the other's


def test_a_build_that_was_copied_from_a_disk_is_free(s3: str, tmp_path: Path) -> None:
    """The lock file of a disk is empty, because the kernel holds the lock."""
    out = Storage(f"{s3}/{tmp_path.name}")
    out.write(LOCK, b"")
    with claim(out):
        assert out.read(LOCK)


def test_only_one_of_many_simultaneous_claims_succeeds(s3: str, tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    storage = Storage(f"{s3}/{tmp_path.name}")
    with ThreadPoolExecutor(8) as pool:
        for name in map(str, range(5)):
            found = list(pool.map(lambda n, name=name: storage.put_if_absent(name, str(n).encode()), range(8)))
            assert len(set(found)) == 1 and storage.read(name) == found[0]


def test_a_file_in_the_place_of_the_builds_folder_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for out in (tmp_path / "notes.txt", tmp_path / "notes.txt" / "below"):
        with pytest.raises(InputError, match="a file stands where the build needs a folder"), claim(Storage(out)):
            pass
    assert (tmp_path / "notes.txt").read_text() == "mine"
